"""A real run, recorded while it runs and afterwards, and replayed."""

import json
import signal

from romul_sim.records.record import read_record
from tests.conftest import wait_for
from tests.system.conftest import System
from tests.system.test_cli import TOML, ended, local
from tests.system.test_servers import servers  # noqa: F401  (a fixture)


def run_with_a_lost_worker(system):
    system.submit(
        name="taped",
        population=4,
        steps=6,
        constants={"seconds": 0.2},
        budget=4,
        space={"rate": {"type": "float", "min": 1e-4, "max": 0.1, "scale": "log"}},
    )
    recording = system.start(
        "record", "taped", f"--to={system.folder / 'live.jsonl'}", "--every-s=0.1"
    )
    system.actor()
    doomed = system.worker("--name=doomed")
    system.worker()
    system.wait_for_status("running", "taped")
    while not system.history("taped", "result"):
        pass
    system.kill_in_training(doomed, "doomed", "taped")
    system.wait_for_status("finished", "taped", 90)
    assert recording.wait(30) == 0, recording.log.read_text()


def test_a_recorded_run_is_decided_again_and_otherwise(system):
    run_with_a_lost_worker(system)
    live, later = system.folder / "live.jsonl", system.folder / "later.jsonl"
    done = system.call("record", "taped", f"--to={later}")
    assert done.returncode == 0, done.stderr
    assert read_record(live).lines == read_record(later).lines
    for record in (live, later):
        machines = [c.what for c in read_record(record).changes]
        assert machines.count("arrives") == 2
        verified = system.call("replay", str(record), "--verify", "--json")
        output = json.loads(verified.stdout)
        assert (verified.returncode, output["same"], output["trials"]) == (0, True, 24)
    assert "leaves" in [c.what for c in read_record(live).changes]

    forked = system.call("replay", str(live), "--set=optimizer.name=random", "--json")
    output = json.loads(forked.stdout)
    assert 0 < output["changed"] <= output["decisions"] == 24
    assert "best_forked" not in output
    shown = system.call("replay", str(live), "--set=seed=5", "--problem=misspecified", "--seeds=1")
    assert "24 of 24 decisions" in shown.stdout
    assert "on the recorded machines" in shown.stdout

    simulated = system.call("sim", f"--trace={live}", "--trial-s=1", "--steps=2", "--json")
    assert json.loads(simulated.stdout)["machines"]["arrived"] == 2


def test_a_record_that_was_changed_is_found_out(system):
    run_with_a_lost_worker(system)
    record = system.folder / "live.jsonl"
    lines = record.read_text().splitlines()
    place, found = next(
        (i, json.loads(line)) for i, line in enumerate(lines) if '"event": "result"' in line
    )
    found["line"]["value"] = -5.0
    lines[place] = json.dumps(found)
    record.write_text("\n".join(lines))
    done = system.call("replay", str(record), "--verify")
    assert done.returncode == 1
    assert "the decisions differ" in done.stdout
    wrong = system.call("replay", str(record), "--set=steps=none")
    assert wrong.returncode != 0
    assert "Traceback" not in wrong.stderr


def test_a_recording_waits_for_a_server_that_was_away(servers, tmp_path):  # noqa: F811
    durable = ("--appendonly", "yes")
    port, process = servers.plain(*durable)
    system = System(f"redis://127.0.0.1:{port}/0", tmp_path)
    try:
        system.submit(name="taped", steps=4, constants={"seconds": 0.1})
        live, later = tmp_path / "live.jsonl", tmp_path / "later.jsonl"
        recording = system.start("record", "taped", f"--to={live}", "--every-s=0.1")
        system.actor()
        system.worker()
        wait_for(lambda: live.exists() and '"event": "result"' in live.read_text())
        process.kill()
        process.wait()
        wait_for(lambda: "trying again" in recording.log.read_text())
        settings = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", *durable)
        servers.start(*settings, port=port)
        system.wait_for_status("finished", "taped")
        assert recording.wait(60) == 0, recording.log.read_text()
        assert system.call("record", "taped", f"--to={later}").returncode == 0
        assert read_record(live).lines == read_record(later).lines
        assert system.call("replay", str(live), "--verify").returncode == 0
    finally:
        system.close()


def test_a_recording_ends_with_the_local_run_that_it_records(tmp_path):
    (tmp_path / "bowl.toml").write_text(TOML.format(steps=5))
    run = local(tmp_path, "run", "bowl.toml", "--workers=1", "--no-broker")
    live, later = tmp_path / "live.jsonl", tmp_path / "later.jsonl"
    wait_for((tmp_path / "runs/bowl/run.json").exists)
    # It reads once while the run lasts, then only when the run and its server have ended.
    recording = local(tmp_path, "record", "bowl", f"--to={live}", "--every-s=0.05")
    wait_for(lambda: live.exists() and '"event": "history"' in live.read_text())
    recording.send_signal(signal.SIGSTOP)
    assert ended(run)[0] == 0
    recording.send_signal(signal.SIGCONT)
    code, out, err = ended(recording)
    assert code == 0, err
    assert ended(local(tmp_path, "record", "bowl", f"--to={later}"))[0] == 0
    lines = read_record(live).lines
    assert out == f"{live}: {len(lines)} lines of history\n"
    assert lines == read_record(later).lines


def test_followed_lines_end_with_the_last_ones_of_a_local_run(tmp_path):
    (tmp_path / "bowl.toml").write_text(TOML.format(steps=5))
    run = local(tmp_path, "run", "bowl.toml", "--workers=1", "--no-broker")
    wait_for((tmp_path / "runs/bowl/run.json").exists)
    following = local(tmp_path, "history", "bowl", "--follow", "--json")
    wait_for(lambda: '"event"' in following.log.read_text())
    following.send_signal(signal.SIGSTOP)
    assert ended(run)[0] == 0
    following.send_signal(signal.SIGCONT)
    code, out, err = ended(following)
    assert code == 0, err
    shown = [json.loads(line) for line in out.splitlines()]
    assert shown[-1]["event"] == "finished"


def test_followed_lines_of_an_interrupted_run_are_all_shown(tmp_path):
    (tmp_path / "bowl.toml").write_text(TOML.format(steps=1000))
    run = local(tmp_path, "run", "bowl.toml", "--workers=1", "--no-broker")
    wait_for((tmp_path / "runs/bowl/run.json").exists)
    following = local(tmp_path, "history", "bowl", "--follow", "--json")
    wait_for(lambda: '"event": "result"' in following.log.read_text())
    following.send_signal(signal.SIGSTOP)
    run.send_signal(signal.SIGINT)
    ended(run)
    following.send_signal(signal.SIGCONT)
    code, out, err = ended(following)
    assert code == 3
    assert "the run has ended" in err
    [last] = json.loads("[" + ended(local(tmp_path, "history", "bowl", "-n1", "--json"))[1] + "]")
    assert json.loads(out.splitlines()[-1]) == last
