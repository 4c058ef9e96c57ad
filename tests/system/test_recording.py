"""A real run, recorded while it runs and afterwards, and replayed."""

import json

from romul_sim.records.record import read_record


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
