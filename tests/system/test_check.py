"""`romul check`, as a user runs it."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import romul

TASKS = Path(__file__).parents[1] / "tasks"


def examine(folder, mistake, budget=10_000, tried=10):
    file = folder / "experiment.toml"
    file.write_text(
        f"""
name = "planted"
task = "planted"
steps = 30
budget = {budget}
[constants]
mistake = "{mistake}"
[space]
rate = {{ type = "float", min = 1e-3, max = 0.5, scale = "log" }}
"""
    )
    options = (f"--path={TASKS}", f"--budget={tried}", "--grace=1", "--json")
    done = romul("check", str(file), *options)
    return done, {check["name"]: check for check in json.loads(done.stdout)}


def test_a_task_that_is_fit_passes(tmp_path):
    done, checks = examine(tmp_path, "")
    assert done.returncode == 0
    assert {check["level"] for check in checks.values()} == {"ok"}
    assert "paused at" in checks["stops when asked"]["found"]


@pytest.mark.parametrize(
    ("mistake", "check"),
    [
        ("ignores its parent", "reads its parent"),
        ("restored rate wins", "hyperparameters take effect after a restore"),
        ("unseeded", "same seed, same result"),
        ("never stops", "stops when asked"),
    ],
)
def test_each_planted_mistake_is_found(tmp_path, mistake, check):
    done, checks = examine(tmp_path, mistake)
    assert done.returncode == 1
    assert [c["name"] for c in checks.values() if c["level"] == "fault"] == [check]


@pytest.mark.parametrize(
    ("mistake", "faults"), [("", []), ("ignores its parent", ["reads its parent"])]
)
def test_a_time_beside_the_metric_is_no_missing_seed_and_hides_no_mistake(
    tmp_path, mistake, faults
):
    done, checks = examine(tmp_path, f"{mistake}, measures its time")
    assert [c["name"] for c in checks.values() if c["level"] == "fault"] == faults
    assert done.returncode == bool(faults)
    same = checks["same seed, same result"]
    assert (same["level"], "other figures differed: seconds" in same["found"]) == ("warning", True)


def test_a_task_that_needs_its_parent_later_on_is_examined_to_the_end(tmp_path):
    file = tmp_path / "experiment.toml"
    file.write_text(
        """
name = "counts"
task = "romul_workers.tasks.toys:quadratic"
steps = 30
budget = 10
optimizer = { name = "random" }
[space]
rate = { type = "float", min = 1e-3, max = 0.5, scale = "log" }
"""
    )
    done = romul("check", str(file), "--grace=1", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0
    assert [c["name"] for c in checks.values() if c["level"] == "warning"] == [
        "begins anew later on"
    ]
    assert "does not train from 10 on" in checks["begins anew later on"]["found"]
    assert checks.keys() >= {"reads its parent", "stops when asked"}


def test_a_step_of_milliseconds_need_not_stop_when_asked(tmp_path):
    done, checks = examine(tmp_path, "never stops", budget=1, tried=1)
    assert (done.returncode, checks["stops when asked"]["level"]) == (0, "ok")
    assert "a step takes" in checks["stops when asked"]["found"]


def test_what_goes_with_the_checkpoint_is_never_restored_under_another_value(tmp_path):
    (tmp_path / "wide.py").write_text(
        """
import json


def train(trial):
    kind, width, rate = (trial.hyperparameters.get(name) for name in ("kind", "width", "rate"))
    weights = [1.0] * width
    if trial.parent is not None:
        restored, weights = json.loads((trial.parent / "state.json").read_text())
        assert (restored, len(weights)) == (kind, width), "restored under another value"
    for _ in range(int(trial.start), int(trial.stop)):
        weights = [w * (1 - (rate or 0.5)) for w in weights]
        if trial.should_stop:
            break
    (trial.checkpoint / "state.json").write_text(json.dumps([kind, weights]))
    return sum(weights)
"""
    )
    file = tmp_path / "wide.toml"
    file.write_text(
        """
name = "wide"
task = "wide"
steps = 30
[space]
kind = { type = "categorical", choices = ["a", "b", "c"], mutable = false }
width = { type = "int", min = 2, max = 64, scale = "log", mutable = false }
rate = { type = "float", min = 0.1, max = 0.9, when = { kind = "a" } }
"""
    )
    done = romul("check", str(file), "--grace=1", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["reads its parent"]["level"] == "ok"
    assert checks["hyperparameters take effect after a restore"]["level"] == "ok"
    assert checks["hyperparameters have an effect"]["found"].startswith("kind:")
    assert "fault" not in {check["level"] for check in checks.values()}


def test_a_task_that_raises_is_reported_with_its_reason(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(
        "from romul_actors.protocol.experiment import Experiment\n"
        "experiment = Experiment(name='b', task='broken', steps=1,\n"
        "    space={'x': {'type': 'float', 'min': 0, 'max': 1}})\n"
        "def train(trial):\n    raise RuntimeError('no data')\n"
    )
    done = romul("check", str(file))
    assert done.returncode == 1
    assert "RuntimeError: no data" in done.stdout
    assert "Traceback" not in done.stderr


def test_figures_that_are_none_are_left_out_and_every_place_says_so(system):
    file = system.folder / "odd.toml"
    file.write_text(
        """
name = "odd"
task = "figures"
population = 4
steps = 2
constants = { beside = "odd" }
[space]
x = { type = "float", min = 0.0, max = 1.0 }
"""
    )
    given = (str(file), f"--runs={system.folder}", "--redis", system.url, "--workers=1")
    done = system.call("run", *given, PYTHONPATH=f"{TASKS}:{os.environ.get('PYTHONPATH', '')}")
    assert done.returncode == 0, done.stderr
    assert " ".join(done.stderr.split()).count("odd: left out of results: 'text' (str)") == 1
    assert system.meta("odd")["failed"] == "0"
    [line] = [line for line in system.history("odd", "result") if "left_out" in line]
    assert line["left_out"]["nan"] == "nan"
    assert "romul: warning: left out of" in system.call("logs", "odd", line["trial"]).stdout
    log = (system.folder / "odd" / "logs" / "worker-1.log").read_text()
    assert log.count("left out of results") == 1
    checked = system.call("check", str(file), f"--path={TASKS}", "--json")
    [said] = [c for c in json.loads(checked.stdout) if c["name"] == "returns figures"]
    assert said["level"] == "warning"
    assert "'text' (str), 'list' (list), 'none' (None), 'nan' (nan)" in said["found"]
