"""The end of `romul run`: its output and its exit code."""

import pytest
import typer
from typer.testing import CliRunner

from romul_actors.cli.app import app
from romul_actors.cli.local_run.summary import EndedRun, finish

ROW = {
    "name": "mine",
    "metric": "loss",
    "status": "finished",
    "reason": "",
    "trials": 1,
    "failed": 0,
    "causes": {},
    "best": 0.5,
    "best_metrics": {},
    "best_checkpoint": "0-0-1-a",
    "best_hyperparameters": {"x": 1.0},
}


def test_a_search_that_ended_without_a_result_is_not_said_to_be_well(tmp_path, capsys):
    finish(tmp_path, EndedRun({"mine": ROW}, interrupted=False, wall_s=1.0), {}, as_json=False)
    nothing = {**ROW, "trials": 0, "best": None, "best_checkpoint": None}
    ended = EndedRun(
        {"mine": {**nothing, "best_hyperparameters": None}}, interrupted=False, wall_s=1.0
    )
    with pytest.raises(typer.Exit) as error:
        finish(tmp_path, ended, {}, as_json=False)
    assert error.value.exit_code == 1
    assert "mine: ended before any trial had a result" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["local", "ssh", "ray"])
def test_only_slurm_has_a_script_to_look_at(engine, monkeypatch):
    monkeypatch.setenv("ROMUL_REDIS", "redis://127.0.0.1:9/0")
    shown = CliRunner().invoke(app, ["launch", "--on", engine, "--host", "gpu1", "--dry-run"])
    assert shown.exit_code == 2
    assert "only with --on slurm" in shown.output
