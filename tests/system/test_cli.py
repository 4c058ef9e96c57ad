"""The command line: what it prints, its exit codes, and runs on one machine."""

import asyncio
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest
from redis import Redis

from romul_actors.client import Client
from romul_actors.local.mqtt_broker import has_broker
from romul_actors.local.processes import free_port
from romul_actors.local.redis_server import URL_FILE, embedded_server
from romul_actors.protocol.experiment import parse
from tests.conftest import romul, romul_anew, wait_for
from tests.system.conftest import System, install_overflowing, processes_with
from tests.warm import COLD, Command

TASKS = Path(__file__).parents[1] / "tasks"
TOML = """\
name = "bowl"
task = "romul_workers.tasks.toys:quadratic"
population = 4
steps = {steps}
constants = {{ seconds = 0.05 }}

[space]
rate = {{ type = "float", min = 1e-3, max = 1.0, scale = "log" }}
"""


WRITES = "return (trial.checkpoint / 'x').write_text('x')"


def local(folder, *arguments):
    """Start a command in a folder, in which it finds local runs."""
    out, err = (folder / f"{secrets.token_hex(4)}.{name}" for name in ("out", "err"))
    return Command(arguments, {**os.environ, "OMP_NUM_THREADS": "1"}, out, err, folder)


def ended(process, seconds=100):
    return process.wait(seconds), process.log.read_text(), process.errors.read_text()


def begun_anew(folder, *arguments):
    """Start a command in a new interpreter, as a user's shell does."""
    return subprocess.Popen(
        [*COLD, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.long(25)
def test_the_demo_trains_on_real_data_and_leaves_nothing_running(tmp_path):
    process = begun_anew(
        tmp_path, "demo", "--population", "4", "--steps", "2", "--workers", "1", "--json"
    )
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    said = json.loads(out)
    assert said == json.loads((tmp_path / "runs/demo/summary.json").read_text())
    assert (said["steps"], said["trials"], said["decisions"]) == (2, 8, 8)
    for figure in ("best_val_loss", "test_accuracy", "random_best_val_loss", "wall_s"):
        assert said[figure] > 0
    assert 0 <= said["random_test_accuracy"] <= 1
    assert (tmp_path / "runs/demo/schedules.png").stat().st_size > 10_000
    assert processes_with(str(tmp_path)) == []
    # A second one takes the place of the first; its random search is the same, whatever the seed.
    other = ("--population", "4", "--steps", "2", "--seed", "5", "--workers", "1", "--json")
    code, out, err = ended(local(tmp_path, "demo", *other))
    assert code == 0, err
    again = json.loads(out)
    assert again["random_best_val_loss"] == pytest.approx(said["random_best_val_loss"], rel=1e-3)
    assert again["best_hyperparameters"] != said["best_hyperparameters"]


async def with_pause(folder):
    """Request a pause of a run that has ended; return whether the request is still queued."""
    async with embedded_server(folder) as url, Client.connect(url) as client:
        await client.pause(folder.name)
        return (await client.store.depths(folder.name))["inbox"] == 1


def test_ctrl_c_ends_a_run_cleanly_and_resume_goes_on(tmp_path):
    (tmp_path / "bowl.toml").write_text(TOML.format(steps=20))
    process = begun_anew(tmp_path, "run", "bowl.toml", "--workers=1")
    summary = tmp_path / "runs/bowl/summary.json"
    checkpoints = tmp_path / "runs/bowl/checkpoints"
    wait_for(lambda: checkpoints.exists() and len(list(checkpoints.glob("*-3-*"))) > 0)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=240)
    assert (process.returncode, "romul run --resume bowl" in out) == (130, True)
    before = json.loads(summary.read_text())
    assert 0 < before["trials"] < 80
    assert processes_with(str(tmp_path)) == []

    # The printed state is still true: no worker continued meanwhile.
    runs = {"ROMUL_RUNS": str(tmp_path / "runs")}
    assert json.loads(romul("show", "bowl", "--json", **runs).stdout)["trials"] == before["trials"]
    shown = romul("show", "bowl", **runs).stdout
    assert f"bowl: interrupted, {before['trials']} of 80 trials" in shown
    assert "interrupted: `romul run --resume bowl` continues it" in shown
    assert "no worker" not in shown

    code, _, err = ended(local(tmp_path, "run", "bowl.toml"))
    assert (code, "already holds a run" in err) == (5, True)

    # A pause that nobody has decided yet is no reason to wait.
    assert asyncio.run(with_pause(tmp_path / "runs/bowl"))
    # As many workers as before, since no other number is given.
    code, _, err = ended(local(tmp_path, "run", "--resume", "bowl"))
    assert code == 0, err
    assert json.loads((tmp_path / "runs/bowl/run.json").read_text())["workers"] == 1
    after = json.loads(summary.read_text())
    assert (after["status"], after["trials"]) == ("finished", 80)
    assert after["best"] <= before["best"]
    assert processes_with(str(tmp_path)) == []


def test_the_command_that_goes_on_is_shown_as_it_must_be(system, tmp_path, monkeypatch):
    (tmp_path / "bowl.toml").write_text(TOML.format(steps=20))
    login, _, place = system.url.rpartition("@")
    (tmp_path / "password").write_text(login.rpartition(":")[2])
    monkeypatch.setenv("ROMUL_REDIS_PASSWORD_FILE", str(tmp_path / "password"))
    given = ("run", "bowl.toml", "--workers=1", "--runs=my runs")
    # A run that did not begin does not block another one.
    code, _, err = ended(local(tmp_path, *given, "--redis=redis://127.0.0.1:1/0"))
    assert (code, "no Redis or Valkey server answers" in err) == (3, True), err
    process = begun_anew(tmp_path, *given, f"--redis=redis://default@{place}")
    checkpoints = tmp_path / "my runs/bowl/checkpoints"
    wait_for(lambda: checkpoints.exists() and len(list(checkpoints.glob("*-3-*"))) > 0, 90)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    (shown,) = re.findall(r"interrupted: `(.*)` continues it", out)
    # Without the server's name an empty one of the run's own would be started.
    code, _, err = ended(local(tmp_path, "run", "--resume=bowl", "--runs=my runs"))
    assert (code, "the run has no server of its own" in err) == (3, True), err
    assert not (tmp_path / "my runs/bowl/redis").exists()
    # If its search exists already, a run does not start, and leaves no folder.
    code, _, err = ended(
        local(tmp_path, *given[:-1], "--runs=other", f"--redis=redis://default@{place}")
    )
    assert (code, (tmp_path / "other/bowl/run.json").exists()) == (5, False), err
    code, _, err = ended(local(tmp_path, *given))
    assert (code, "--runs 'my runs' --redis URL`" in " ".join(err.split())) == (5, True), err
    code, _, err = ended(local(tmp_path, *shlex.split(shown)[1:]))
    assert code == 0, err
    summary = json.loads((tmp_path / "my runs/bowl/summary.json").read_text())
    assert (summary["status"], summary["trials"]) == ("finished", 80)


def test_a_run_that_has_ended_is_extended_and_goes_on_with_what_was_changed_in_its_file(tmp_path):
    def said(*arguments):
        code, out, err = ended(local(tmp_path, *arguments))
        return code, out, " ".join(err.split())

    file, folder = tmp_path / "bowl.toml", tmp_path / "runs/bowl"
    file.write_text(TOML.format(steps=2))
    code, _, err = said("run", "bowl.toml", "--workers=1")
    assert code == 0, err
    code, _, err = said("extend", "bowl", "--steps=2")
    assert (code, "2 is not above the current 2" in err) == (2, True)
    code, out, err = said("extend", "bowl", "--steps=4", "--json")
    assert code == 0, err
    assert json.loads(out) == json.loads((folder / "summary.json").read_text())
    assert (json.loads(out)["status"], json.loads(out)["trials"]) == ("finished", 16)
    code, _, err = said("run", "bowl.toml", "--steps=5")
    assert (code, "--steps needs --resume" in err) == (2, True)

    file.write_text(TOML.format(steps=6).replace("min = 1e-3, max = 1.0", "min = 0.2, max = 0.3"))
    code, out, err = said("run", "--resume=bowl", "--json", "--workers=2")
    assert code == 0, err
    assert (json.loads(out)["trials"], json.loads(out)["steps"]) == (24, 6)
    assert 0.2 <= json.loads(out)["best_hyperparameters"]["rate"] <= 1.0
    run = json.loads((folder / "run.json").read_text())
    assert (run["declared"]["space"]["rate"]["min"], run["workers"]) == (0.2, 2)

    file.write_text(file.read_text() + 'width = { type = "int", min = 1, max = 3 }\n')
    for arguments in (("--resume=bowl",), ("bowl.toml", "--resume=bowl")):
        code, _, err = said("run", *arguments)
        assert code == 2
        assert "bowl: space: width was added: existing trials have no value for it" in err
        assert "use --from-run bowl (in Python" in err
    # A missing file, or that of another search, does not belong to this run.
    file.write_text(TOML.format(steps=9).replace('name = "bowl"', 'name = "other"'))
    code, out, err = said("run", "--resume=bowl", "--steps=7", "--json", "--workers=1")
    assert code == 0, err
    assert (json.loads(out)["steps"], json.loads(out)["trials"]) == (7, 28)
    code, _, err = said("run", "bowl.toml", "--resume=bowl")
    assert (code, "declares 'other', but the run is 'bowl'" in err) == (2, True)


def test_a_run_that_is_extended_while_it_is_watched_ends_with_all_its_steps(tmp_path):
    (tmp_path / "gated.py").write_text((TASKS / "gated.py").read_text())
    (tmp_path / "bowl.toml").write_text(
        TOML.format(steps=2)
        .replace("romul_workers.tasks.toys:quadratic", "gated")
        .replace("seconds = 0.05", f'place = "{tmp_path}"')
    )
    held = tmp_path / "0-1 waits"
    held.touch()
    process = local(tmp_path, "run", "bowl.toml", "--workers=1", "--no-broker", "--json")
    try:
        wait_for((tmp_path / "0-1 trains").exists, 90)
        called = romul("extend", "bowl", "--steps=3", ROMUL_RUNS=str(tmp_path / "runs"))
        assert called.returncode == 0, called.stderr
        held.unlink()
        code, out, err = ended(process)
    finally:
        process.kill()
    assert code == 0, err
    said = json.loads(out)
    assert (said["steps"], said["trials"], said["status"]) == (3, 12, "finished")


async def test_a_local_run_is_found_by_its_name_while_it_is_up_and_afterwards(tmp_path):
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "bowl"
    (tmp_path / "bowl.toml").write_text(TOML.format(steps=2))

    def call(*arguments):
        called = romul(*arguments, ROMUL_RUNS=str(runs))
        return called.returncode, called.stdout, " ".join(called.stderr.split())

    code, _, err = call("run", str(tmp_path / "bowl.toml"), "--workers=1", "--no-broker")
    assert code == 0, err
    for look in (["explain", "bowl", "1-1"], ["best", "bowl", f"--copy-to={tmp_path / 'best'}"]):
        code, out, err = call(*look)
        assert (code, err) == (0, ""), look
        assert out
    assert (tmp_path / "best" / "MANIFEST.json").is_file()
    assert not (folder / URL_FILE).exists()
    assert processes_with(str(tmp_path)) == []
    # No actor would decide a request.
    code, _, err = call("pause", "bowl")
    assert (code, "the search is finished: `romul extend bowl" in err) == (3, True), err
    code, out, err = call("show", "bowl", f"--redis={folder}")
    assert (code, "bowl: finished" in out) == (0, True), err
    code, out, err = call("status", "--json")
    [row] = json.loads(out)
    assert (code, row["status"], row["trials"], row["under_way"]) == (0, "finished", 8, False)
    async with embedded_server(folder) as url:
        code, out, err = await asyncio.to_thread(call, "status")
        assert (code, "bowl yes finished 8/8" in " ".join(out.split())) == (0, True), err
        code, _, err = await asyncio.to_thread(call, "pause", "bowl")
        assert (code, err) == (0, "")
        with Redis.from_url(url) as client:
            assert client.xlen("romul:{bowl}:inbox") == 1
    code, _, err = call("remove", "bowl", "--yes")
    assert (code, "to remove it, delete its folder" in err) == (3, True), err
    code, out, err = call("collect", "bowl", "--dry-run")
    assert (code, "bowl: 0 checkpoints would be removed" in out) == (0, True), err
    for unknown in (["show", "bowls"], ["extend", "bowls", "--steps=3"]):
        code, _, err = call(*unknown)
        named = ("no local run 'bowls'" in err, "did you mean 'bowl'?" in err)
        assert (code, *named) == (4, True, True), err
    # A run on a server that was named has no server of its own: the default one is meant.
    (folder / "redis").rename(folder / "away")
    code, _, err = call("extend", "bowl", "--steps=3")
    assert (code, "no Redis or Valkey server answers" in err) == (3, True)


@pytest.mark.long(30)
@pytest.mark.skipif(not has_broker(), reason="there is no broker program")
def test_a_worker_of_a_local_run_is_asked_over_that_runs_broker(tmp_path):
    (tmp_path / "bowl.toml").write_text(TOML.format(steps=400))
    runs = {"ROMUL_RUNS": str(tmp_path / "runs")}
    process = local(tmp_path, "run", "bowl.toml", "--workers=1")
    try:
        wait_for((tmp_path / "runs/bowl/checkpoints").is_dir, 90)
        assert (tmp_path / "runs/bowl/mqtt.url").stat().st_mode & 0o077 == 0
        url = (tmp_path / "runs/bowl/redis.url").read_text()
        with Redis.from_url(url, decode_responses=True) as client:
            [worker] = wait_for(lambda: client.hkeys("romul:{bowl}:workers"), 90)
        # The worker connects to the broker in its own time.
        wait_for(lambda: romul("control", worker, "debug", **runs).returncode == 0, 90)
        kept = romul("remove", "bowl", "--yes", **runs)
        said = " ".join(kept.stderr.split())
        assert (kept.returncode, "end it, then delete its folder" in said) == (
            3,
            True,
        )
        unknown = romul("control", worker + "x", "drain", **runs)
        said = " ".join(unknown.stderr.split())
        assert (unknown.returncode, f"did you mean '{worker}'?" in said) == (4, True)
        drained = romul("control", worker, "drain", **runs)
        assert (drained.returncode, drained.stderr) == (0, "")
        with Redis.from_url(url, decode_responses=True) as client:
            wait_for(lambda: '"event":"drain"' in str(client.xrange("romul:{bowl}:history")), 90)
        found = romul("doctor", f"--redis={tmp_path / 'runs/bowl'}", **runs).stdout
        assert "the broker at 127.0.0.1:" in found
    finally:
        process.send_signal(signal.SIGINT)
        ended(process)
    assert not (tmp_path / "runs/bowl/mqtt.url").exists()
    gone = romul("control", worker, "drain", **runs)
    assert (gone.returncode, "no running local run has a worker" in gone.stderr) == (4, True)


def test_a_server_without_a_broker_is_named_without_its_password():
    done = romul("control", "w", "drain", "--redis=redis://user:s3cret@127.0.0.1:1/0")
    assert done.returncode == 2
    assert "user:***@127.0.0.1:1/0 has no broker" in done.stderr
    assert "s3cret" not in done.stderr


COUNTS = """\
from romul_actors.protocol.experiment import Experiment, FloatSpec

experiment = Experiment(name={name!r}, task={name!r}, steps={steps}, population=4,
    space={{'x': FloatSpec(type='float', min=0.0, max=1.0)}})

def train(trial):
    n = 1 if trial.parent is None else 1 + int((trial.parent / 'n').read_text())
    (trial.checkpoint / 'n').write_text(str(n))
    return trial.hyperparameters['x'] - 10 * n
"""
"""A task whose checkpoint counts the trials that led to it."""


def test_a_run_begins_with_what_another_one_has_found(tmp_path):
    for name, steps in (("old", 2), ("values", 1), ("weights", 1)):
        (tmp_path / f"{name}.py").write_text(COUNTS.format(name=name, steps=steps))

    def said(*arguments):
        code, out, err = ended(local(tmp_path, "run", *arguments, "--json", "--workers=1"))
        assert code == 0, err
        return json.loads(out)

    old = said("old.py")
    x = old["best_hyperparameters"]["x"]
    assert old["best"] == pytest.approx(x - 20)
    # The state after a killed run: there is no server.
    (tmp_path / "runs/old" / URL_FILE).write_text("redis://:secret@127.0.0.1:1/0")
    values = said("values.py", "--from-run=old")
    assert values["best"] <= x - 10 + 1e-9
    assert said("weights.py", "--from-run=old", "--with-checkpoints")["best"] <= x - 30 + 1e-9
    # The old run has what it had.
    assert len(list((tmp_path / "runs/old/checkpoints").glob("?-1-?-*"))) == 4

    code, _, err = ended(local(tmp_path, "run", "old.py", "--from-run=old"))
    assert (code, "already holds a run" in " ".join(err.split())) == (5, True)
    (tmp_path / "more.py").write_text(COUNTS.format(name="more", steps=1))
    code, _, err = ended(local(tmp_path, "run", "more.py", "--from-run=none"))
    assert (code, "from_run: runs/none: no run there" in " ".join(err.split())) == (4, True)
    code, _, err = ended(local(tmp_path, "run", "more.py", "--with-checkpoints"))
    assert (code, "needs --from-run" in " ".join(err.split())) == (2, True)
    assert not (tmp_path / "runs/more").exists()


def test_a_run_ends_at_its_limits(tmp_path):
    limits = 'task = "romul_workers.tasks.toys:quadratic"\nmax_trials = 6\nmax_hours = 1\n'
    text = TOML.format(steps=400).replace('task = "romul_workers.tasks.toys:quadratic"\n', limits)
    (tmp_path / "bowl.toml").write_text(text)
    code, out, err = ended(local(tmp_path, "run", "bowl.toml", "--json", "--workers=1"))
    assert code == 0, err
    said = json.loads(out)
    assert (said["status"], said["trials"]) == ("finished", 6)
    assert said["reason"] == "after 6 trials (max_trials)"


def test_a_killed_run_takes_its_processes_along(tmp_path):
    (tmp_path / "bowl.toml").write_text(TOML.format(steps=400))
    process = local(tmp_path, "run", "bowl.toml")
    checkpoints = tmp_path / "runs/bowl/checkpoints"
    wait_for(lambda: checkpoints.exists() and len(list(checkpoints.iterdir())) > 2)
    assert len(processes_with(str(tmp_path))) > 2
    process.kill()
    process.wait()
    wait_for(lambda: processes_with(str(tmp_path)) == [])


KILLED = """
import os, signal
from romul_actors.cli import main
from romul_actors.client import Client
Client.submit = lambda self, experiment: os.kill(os.getpid(), signal.SIGKILL)
main()
"""
"""A `romul` that is killed just before it submits an experiment."""


async def declaration_of(folder):
    async with embedded_server(folder) as url, Client.connect(url) as client:
        return await client.spec(folder.name)


def test_a_run_that_was_killed_before_it_had_submitted_its_search_begins_with_it(tmp_path):
    (tmp_path / "bowl.toml").write_text(TOML.format(steps=2))
    command = [sys.executable, "-c", KILLED, "run", "bowl.toml", "--workers=1", "--deadline=+1h"]
    killed = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    wait_for(lambda: processes_with(str(tmp_path)) == [])
    # With its original options and deadline, and with later changes of its file.
    (tmp_path / "bowl.toml").write_text(TOML.format(steps=3))
    for trials in (12, 12):
        code, out, err = ended(local(tmp_path, "run", "--resume=bowl", "--json"))
        assert code == 0, err
        assert (json.loads(out)["status"], json.loads(out)["trials"]) == ("finished", trials)
    run = json.loads((tmp_path / "runs/bowl/run.json").read_text())
    assert (run["workers"], run["unsubmitted"]) == (1, [])
    assert asyncio.run(declaration_of(tmp_path / "runs/bowl")).deadline is not None


def test_a_run_whose_every_trial_fails_says_why(tmp_path):
    (tmp_path / "bad.py").write_text(
        "from romul_actors.protocol.experiment import Experiment, FloatSpec\n"
        "experiment = Experiment(name='bad', task='bad', steps=2, population=4, max_attempts=1,\n"
        "    space={'x': FloatSpec(type='float', min=0.0, max=1.0)})\n"
        "def train(trial):\n"
        "    raise OSError('the disk of ' + 'abcd'[int(trial.id[0])] + ' is upside down')\n"
    )
    code, out, err = ended(local(tmp_path, "run", "bad.py", "--workers=1"))
    assert code == 1
    assert "every trial of step 0 failed" in out
    assert "is upside down" in out
    assert "failed: `romul run --resume bad` retries it\n" in err
    runs = {"ROMUL_RUNS": str(tmp_path / "runs")}
    for said in (out, *(romul(*words, **runs).stdout for words in (["status"], ["show", "bad"]))):
        assert "bad: attempts lost: exception 4 (`romul failures bad` shows why)" in said
    said = romul("failures", "bad", **runs, COLUMNS="60").stdout.splitlines()
    # The message is complete even on a narrow terminal: the cause can be anywhere in it.
    assert re.fullmatch(
        r"exception: OSError: the disk of [a-d] is upside down \(trial \d-0, worker-.*\)", said[1]
    )
    latest = json.loads(romul("failures", "bad", "--json", **runs).stdout)["latest"]
    slot = int(latest["exception"]["trial"].partition("-")[0])
    assert latest["exception"]["message"] == f"OSError: the disk of {'abcd'[slot]} is upside down"
    code, _, err = ended(local(tmp_path, "resume", "bad"))
    assert (code, "`romul run --resume bad` continues it" in " ".join(err.split())) == (3, True)
    file = tmp_path / "bad.py"
    file.write_text(
        file.read_text().replace(
            "raise OSError('the disk of ' + 'abcd'[int(trial.id[0])] + ' is upside down')", WRITES
        )
    )
    code, out, err = ended(local(tmp_path, "run", "--resume=bad", "--json"))
    assert (code, json.loads(out)["status"], "retries it" in err) == (0, "finished", False), err


@pytest.mark.parametrize(
    ("task", "text", "said"),
    [
        (
            "wrong",
            "def train(trial):\n    raise ValueError('no such data set')\n",
            "no such data set",
        ),
        ("wrong:tarin", "def train(trial):\n    return 1.0\n", "tarin"),
        ("wrong", "def train(trial)\n", "SyntaxError"),
        ("wrong", "import no_such_module\n", "no_such_module"),
    ],
)
def test_a_run_whose_task_is_wrong_ends_after_three_trials_alike(tmp_path, task, text, said):
    (tmp_path / "wrong.py").write_text(text)
    file = tmp_path / "wrong.toml"
    file.write_text(
        f'name = "wrong"\ntask = "{task}"\nsteps = 1\npopulation = 6\nmetric = "loss"\n'
        "[space]\nx = { type = 'float', min = 0.0, max = 1.0 }\n"
    )
    code, out, err = ended(local(tmp_path, "run", "wrong.toml", "--workers=1", "--no-broker"))
    assert code == 1
    assert "3 trials with different hyperparameters failed in the same way" in out
    assert said in out
    assert "failed: `romul run --resume wrong` retries it\n" in err
    summary = json.loads((tmp_path / "runs/wrong/summary.json").read_text())
    assert (summary["status"], summary["failed"]) == ("failed", 0)
    assert processes_with(str(tmp_path)) == []


def test_a_run_without_the_declared_device_ends_and_says_so(tmp_path):
    (tmp_path / "needs.py").write_text("import torch\n\ndef train(trial):\n    pass\n")
    (tmp_path / "needs.toml").write_text(
        'name = "needs"\ntask = "needs"\nsteps = 1\npopulation = 4\n'
        'resources = { device = "cuda:99" }\n'
        "[space]\nx = { type = 'float', min = 0.0, max = 1.0 }\n"
    )
    code, out, _ = ended(local(tmp_path, "run", "needs.toml", "--workers=1", "--no-broker"))
    assert code == 1
    assert "there is no device 'cuda:99' here" in " ".join(out.split())


def test_a_stopped_run_is_not_resumed_but_extended(tmp_path):
    (tmp_path / "bowl.toml").write_text(TOML.format(steps=400))
    process = local(tmp_path, "run", "bowl.toml", "--workers=1", "--no-broker")
    checkpoints = tmp_path / "runs/bowl/checkpoints"
    wait_for(lambda: checkpoints.exists() and len(list(checkpoints.iterdir())) > 2, 90)
    assert ended(local(tmp_path, "stop", "bowl"))[0] == 0
    assert ended(process)[0] == 1
    code, _, err = ended(local(tmp_path, "resume", "bowl"))
    advice = "is stopped: `romul extend bowl --steps N` continues it"
    assert (code, advice in " ".join(err.split())) == (3, True), err
    assert "romul run --resume" not in err
    code, _, err = ended(local(tmp_path, "run", "--resume=bowl"))
    assert (code, f"bowl {advice}" in err) == (1, True), err


def test_an_ended_run_is_shown_in_a_browser_by_its_name(tmp_path):
    pytest.importorskip("nicegui")
    folder, port = tmp_path / "runs/bowl", free_port()
    (tmp_path / "bowl.toml").write_text(TOML.format(steps=2))
    code, _, err = ended(local(tmp_path, "run", "bowl.toml", "--workers=1", "--no-broker"))
    assert code == 0, err
    for words in (["bowl"], ["--redis=runs/bowl"]):
        process = local(tmp_path, "dashboard", *words, f"--port={port}")
        wait_for(lambda shown=process: f"http://127.0.0.1:{port}/" in shown.log.read_text(), 90)
        assert (folder / URL_FILE).exists()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/experiment/bowl") as page:
            assert page.status == 200
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
        assert (code, "the run has ended: actions take effect when" in out) == (0, True), err
        assert not (folder / URL_FILE).exists()
    process = local(tmp_path, "serve", "bowl")
    wait_for(lambda: "--redis runs/bowl" in process.log.read_text(), 90)
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 0


def test_a_folder_is_not_shown_instead_of_the_server_that_was_given(tmp_path):
    pytest.importorskip("nicegui")
    (tmp_path / "runs/bowl/redis").mkdir(parents=True)
    (tmp_path / "runs/bowl/run.json").write_text("{}")
    given = local(tmp_path, "dashboard", "runs/bowl", "--redis=redis://127.0.0.1:1/0")
    try:
        code, out, err = ended(given)
    finally:
        given.kill()
    assert (code, out) == (2, ""), err
    assert "runs/bowl is a folder" in err
    assert "ROMUL_REDIS_URL" in err


def test_an_experiment_of_a_server_is_shown_in_a_browser_by_its_name(system):
    pytest.importorskip("nicegui")
    system.submit()
    port = free_port()
    process = system.start("dashboard", "e", f"--port={port}")
    at = f"http://127.0.0.1:{port}/experiment/e "
    wait_for(lambda: at in process.log.read_text() or process.poll() is not None, 90)
    with urllib.request.urlopen(at.strip()) as page:
        assert page.status == 200
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 0
    unknown = system.call("dashboard", "other", f"--port={port}")
    said = " ".join(unknown.stderr.split())
    assert (unknown.returncode, "no experiment 'other' on" in said) == (4, True), said
    assert "there are e" in said


def test_where_a_server_is_named_a_local_run_of_that_name_is_too(system, tmp_path):
    runs = tmp_path / "runs"
    (runs / "bowl" / "redis").mkdir(parents=True)
    (runs / "bowl" / "run.json").write_text("{}")
    shown = system.call("show", "bowl", ROMUL_RUNS=str(runs))
    said = " ".join(shown.stderr.split())
    assert (shown.returncode, "no experiment 'bowl' on" in said) == (4, True), said
    assert (
        f"a local run of that name is in {runs}/: leave out --redis and ROMUL_REDIS_URL to see it"
        in said
    )


def test_a_run_that_cannot_be_decided_ends_and_says_why(tmp_path, monkeypatch):
    install_overflowing(tmp_path, monkeypatch)
    (tmp_path / "bad.toml").write_text(
        'name = "bad"\ntask = "romul_workers.tasks.toys:quadratic"\nsteps = 2\npopulation = 4\n'
        'optimizer = { name = "overflowing", quorum_share = 1e308 }\n'
        "[space]\nrate = { type = 'float', min = 1e-3, max = 1.0, scale = 'log' }\n"
    )
    for arguments in (("run", "bad.toml"), ("run", "--resume", "bad")):
        code, out, _ = ended(local(tmp_path, *arguments, "--workers", "1"))
        assert code == 1
        assert "cannot serve it: the decision failed (OverflowError: " in out


def test_experiments_are_submitted_shown_and_removed(system):
    system.submit()
    system.actor()
    worker = system.worker()
    system.wait_for_status("finished")
    [row] = json.loads(system.call("status", "--json").stdout)
    assert (row["name"], row["status"], row["trials"], row["failed"]) == ("e", "finished", 12, 0)
    shown = json.loads(system.call("show", "e", "--json").stdout)
    assert len(shown["slots"]) == 4
    [slot] = json.loads(system.call("show", "e", "2", "--json").stdout)["slots"]
    assert slot == shown["slots"][2]
    best = json.loads(
        system.call("best", "e", "--copy-to", str(system.folder / "b"), "--json").stdout
    )
    assert best["loss"] == row["best"]
    assert (system.folder / "b" / "state.json").exists()
    shown = system.call("show", "e", "1").stdout
    for label in ("status", "trial", "loss", "ancestors", "hyperparameters", "why", "reports"):
        assert f"\n{label} " in shown
    for command in ("status", ("show", "e"), ("show", "e", "1"), ("best", "e")):
        called = system.call(*([command] if isinstance(command, str) else command))
        assert (called.returncode, called.stderr.count("Traceback")) == (0, 0)
        assert "finished" in called.stdout or "checkpoint" in called.stdout
    [place] = [line for line in called.stdout.splitlines() if line.startswith("checkpoint: ")]
    assert (Path(place.removeprefix("checkpoint: ")) / "state.json").exists()
    # While it asks for trials it has a key of its own, which lives a minute.
    worker.terminate()
    assert worker.wait(30) == 0
    called = system.call("remove", "e")
    assert (called.returncode, "confirm with --yes" in called.stderr) == (2, True)
    called = system.call("remove", "e", "--yes")
    assert called.returncode == 0
    assert f"its checkpoints stay in {system.folder / 'checkpoints'}: to remove" in called.stdout
    assert system.client.keys("romul:{e}*") == []


def test_a_search_is_removed_and_its_checkpoints_are_named_if_there_are_any(system):
    system.submit()
    said = system.call("remove", "e", "--yes")
    assert (said.returncode, said.stdout) == (0, "e: removed\n"), said.stderr
    system.submit()
    assert system.as_json("remove", "e", "--yes") == {"name": "e", "checkpoints": None}
    # One whose data are damaged may have some.
    system.submit()
    system.client.hset("romul:{e}", "slots", "none")
    folder = str(system.folder / "checkpoints")
    assert system.as_json("remove", "e", "--yes") == {"name": "e", "checkpoints": folder}
    assert system.client.keys("romul:{e}*") == []


@pytest.fixture(scope="module")
def decided(redis_url, tmp_path_factory):
    """An experiment with an actor but no worker, for tests that change nothing."""
    # A database of its own, which no other test empties.
    made = System(f"{redis_url.removesuffix('/0')}/1", tmp_path_factory.mktemp("decided"))
    made.submit()
    made.actor()
    wait_for(lambda: made.meta()["slots"] == "4")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "unknown"), 4, "no experiment 'unknown'"),
        (("best", "f"), 4, "; there are e"),
        (("bounds", "e", "rat", "--min=0", "--max=1"), 2, "not in the space: did you mean 'rate'?"),
        (("bounds", "e", "rate"), 2, "give --min, --max or both"),
        (("bounds", "e", "rate", "--min=2"), 2, "rate"),
        (("history", "e", "--event=reslt"), 0, "did you mean 'result'?"),
        (("show", "e", "99"), 4, "e has no slot 99: it has 4"),
        (("best", "e"), 4, "e: no trial has succeeded yet (running)"),
        (("schedule", "export", "e", "--to=s.json"), 4, "e: no trial has succeeded yet"),
        (("submit", "{folder}/e.py"), 5, "or remove it first with `romul remove e`"),
        (("submit", "{folder}/none.toml"), 2, "cannot be read"),
        (("pause", "unknown"), 4, "no experiment 'unknown'"),
        (("status", "--redis", "redis://127.0.0.1:1/0"), 3, "no Redis or Valkey server answers"),
        (("status", "--redis", "http://127.0.0.1"), 3, "http://127.0.0.1"),
        (("explain", "e", "99-1"), 4, "history holds no trial '99-1'"),
        (("logs", "e", "99-1"), 4, "history holds no trial '99-1'"),
        (("logs", "e", "0-0"), 0, "e: trial 0-0 printed nothing"),
        (("status", "--redis", "localhost:6379"), 3, "a URL begins with a scheme"),
        (("status", "--redis", "runs/none"), 3, "neither a URL nor the folder of a local run"),
        (("run",), 2, "give an experiment file or --resume NAME"),
        (("run", "--resume", "never"), 4, "no run there to continue"),
        (("run", "--resume", "never", "--deadline=+1h"), 2, "--deadline is for a new run"),
        (("run", "--resume", "never", "--from-run=e"), 2, "--from-run and"),
        (("check", "{folder}/e.py", "--budget=0"), 2, "--budget"),
        (("export", "e", "--to={folder}/none/x.csv"), 2, "none/x.csv"),
        (("report", "e", "--to={folder}/e.py/x.html"), 2, "e.py/x.html: Not a directory"),
        (("report", "e", "--to={folder}/none/x.html"), 2, "none/x.html: No such file"),
        (("actor", "--mqtt=http://x"), 2, "invalid broker URL"),
        (("acl", "--out={folder}/e.py/x", "--secrets={folder}/s"), 2, "Not a directory"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(decided, arguments, code, said):
    called = decided.call(*(a.format(folder=decided.folder) for a in arguments))
    assert (called.returncode, "Traceback" in called.stderr) == (code, False), called.stderr
    assert said in " ".join(called.stderr.split())


def test_a_relative_folder_for_checkpoints_is_refused_on_a_server(system):
    file = system.folder / "bowl.toml"
    file.write_text('checkpoints = "ck/rel"\n' + TOML.format(steps=2))
    called = system.call("submit", str(file))
    assert (called.returncode, "Traceback" in called.stderr) == (2, False), called.stderr
    assert "checkpoints: 'ck/rel' is relative" in " ".join(called.stderr.split())
    assert system.client.keys("romul:*") == []


def test_a_relative_folder_for_checkpoints_of_a_local_run_is_where_the_run_began(tmp_path):
    (tmp_path / "bowl.toml").write_text('checkpoints = "ck"\n' + TOML.format(steps=1))
    code, _, err = ended(local(tmp_path, "run", "bowl.toml", "--workers=1", "--no-broker"))
    assert code == 0, err
    # Wherever the next command runs.
    done = romul("best", "bowl", "--json", ROMUL_RUNS=str(tmp_path / "runs"))
    best = json.loads(done.stdout)
    assert best["checkpoints"] == str(tmp_path / "ck")
    assert (tmp_path / "ck" / best["checkpoint"] / "state.json").exists()


@pytest.mark.parametrize("command", ["run", "submit"])
def test_an_option_of_the_wrong_type_is_refused_before_anything_is_written(system, command):
    file = system.folder / "bowl.toml"
    option = 'optimizer = { name = "romul", factor = "x" }\n'
    file.write_text(option + TOML.format(steps=2))
    runs = system.folder / "runs"
    called = system.call(command, str(file), *(["--runs", str(runs)] if command == "run" else []))
    assert (called.returncode, "Traceback" in called.stderr) == (2, False), called.stderr
    assert "factor = 'x' is not a float" in " ".join(called.stderr.split())
    assert not runs.exists()
    assert system.client.keys("romul:*") == []


async def test_a_server_that_would_evict_or_wants_a_password_is_refused(system, tmp_path):
    async with embedded_server(tmp_path / "other", durable=False) as url:
        wrong = url.replace(url.split("@")[0], "redis://:secret")
        called = await asyncio.to_thread(system.call, "status", "--redis", wrong)
        assert (called.returncode, "access refused" in called.stderr) == (3, True)
        assert "secret" not in called.stderr
        with Redis.from_url(url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        called = await asyncio.to_thread(system.call, "actor", "--redis", url)
        assert called.returncode == 3
        assert "maxmemory-policy is 'allkeys-lru'" in " ".join(called.stderr.split())


async def test_a_run_under_way_is_not_disturbed_by_a_second_one(tmp_path):
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    async with embedded_server(folder, durable=False):
        for command in (["demo"], ["serve", str(folder)]):
            code, _, err = await asyncio.to_thread(ended, local(tmp_path, *command))
            assert (code, "a run is under way" in " ".join(err.split())) == (3, True)
    assert (folder / "run.json").exists()


def test_the_examples_are_well_formed():
    files = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))
    assert files
    for file in files:
        parse(file.read_text(), str(file))
        assert tomllib.loads(file.read_text())["name"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("romul st", ["status", "stop"]),
        ("romul run --re", ["--resume", "--redis"]),
        ("romul schedule e", ["export"]),
    ],
)
def test_a_shell_completes_commands_and_options(typed, offered):
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = romul_anew(_ROMUL_COMPLETE="complete_bash", **words)
    assert done.stdout.split() == offered
