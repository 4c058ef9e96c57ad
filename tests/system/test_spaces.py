"""Search spaces of all kinds, and files that declare them wrongly, as a user runs them."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import romul

TASKS = Path(__file__).parents[1] / "tasks"

KINDS = """
name = "kinds"
task = "kinds"
population = 4
steps = 4
[space]
widths = { type = "int", min = 16, max = 64, step = 16, size = 2 }
share = { type = "float", min = 0.0, max = 1.0, step = 0.1 }
size = { type = "categorical", choices = ["s", "m", "l"], ordinal = true }
odd = { type = "categorical", choices = [true, 1, 1.0, "1", [1, 2], { a = 1 }] }
[space.optimizer]
kind = { type = "categorical", choices = ["sgd", "adam"] }
lr = { type = "float", min = 1e-4, max = 1.0, scale = "log" }
momentum = { type = "float", min = 0.0, max = 0.9, when = { optimizer.kind = "sgd" } }
[initial]
widths = [16, 64]
share = 0.3
size = "l"
odd = [1, 2]
optimizer = { kind = "adam", lr = 0.1 }
"""


def test_every_kind_of_hyperparameter_is_tried_run_and_shown(system, tmp_path):
    file = system.folder / "kinds.toml"
    file.write_text(KINDS)
    checked = system.call("check", str(file), f"--path={TASKS}", "--json")
    found = {check["name"]: check for check in json.loads(checked.stdout)}
    assert found["trains"]["level"] == "ok", found
    assert found["hyperparameters take effect after a restore"]["level"] == "ok", found
    # `odd` has an effect, though not between all choices; the condition is met to try momentum.
    assert "optimizer.momentum" not in str(found.get("hyperparameters have an effect"))

    given = (str(file), f"--runs={system.folder}", "--redis", system.url, "--workers=1", "--json")
    done = system.call("run", *given, PYTHONPATH=f"{TASKS}:{os.environ.get('PYTHONPATH', '')}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == 0
    first = next(line for line in system.history("kinds", "trial") if line["trial"] == "0-0")
    assert first["hyperparameters"] == {
        "widths": [16, 64],
        "share": 0.3,
        "size": "l",
        "odd": [1, 2],
        "optimizer.kind": "adam",
        "optimizer.lr": pytest.approx(0.1),
    }
    explained = system.call("explain", "kinds", "0-0").stdout
    assert "optimizer.momentum is inactive here" in explained
    assert "widths[1] = 64" in explained
    for command in (["show", "kinds"], ["failures", "kinds"], ["best", "kinds"]):
        assert system.call(*command).returncode == 0, command
    page = tmp_path / "kinds.html"
    assert system.call("report", "kinds", f"--to={page}").returncode == 0
    out = tmp_path / "out.parquet"
    assert system.call("export", "kinds", f"--to={out}").returncode == 0
    rows = pq.read_table(out).to_pylist()
    assert {"h.widths[0]", "h.widths[1]", "h.optimizer.lr", "h.optimizer.momentum"} <= set(rows[0])
    assert [json.loads(row["h.odd"]) for row in rows if row["trial"] == "0-0"] == [[1, 2]]
    result = tmp_path / "schedule.json"
    assert system.call("schedule", "export", "kinds", f"--to={result}").returncode == 0
    trained = system.call("schedule", "train", str(result), "--allow=kinds", f"--path={TASKS}")
    assert trained.returncode == 0, trained.stderr
    refused = system.call("bounds", "kinds", "widths", "--min=16", "--max=40")
    assert refused.returncode != 0
    assert "make it 32 or 48" in " ".join(refused.stderr.split())
    near = system.call("bounds", "kinds", "lr", "--min=0.1", "--max=0.2").stderr
    assert "did you mean 'optimizer.lr'?" in " ".join(near.split())


def test_all_mistakes_of_a_file_are_listed_at_once(tmp_path):
    file = tmp_path / "e.toml"
    file.write_text(
        'name = "e"\ntask = "e"\nstep = 3\noptimizer = { name = "romul", facter = 1.0 }\n'
        '[space]\nlr = { type = "float", min = 0.0, max = 1.0, scael = "log" }\n'
    )
    done = romul("check", str(file))
    assert done.returncode == 2
    # One line each, however long the path is: an editor jumps to it.
    for line, text in (
        (3, "step: no such key: did you mean 'steps'?"),
        (4, "optimizer 'romul' has no option 'facter': did you mean 'factor'?"),
        (6, "space.lr.scael: no such key: did you mean 'scale'?"),
    ):
        assert f"{file}:{line}: {text}\n" in done.stderr
