"""Local runs as rows of `romul status`."""

import json
import os

from romul_actors.cli.commands.status import run_row
from romul_actors.local.redis_server import DATA
from romul_actors.local.run_file import RunFile

SUMMARY = {"name": "e", "status": "finished", "trials": 4, "wall_s": 1.0, "best": 0.5}


async def test_an_ended_run_has_its_row_in_its_summary(tmp_path):
    RunFile(["e"], 1, [], []).write(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    row = await run_row(tmp_path)
    said = (row["name"], row["status"], row["trials"], row["best"], row["under_way"])
    assert said == ("e", "finished", 4, 0.5, False)
    # A row has the same keys as that of a server.
    assert (row["workers"], row["dead"], row["causes"], "wall_s" in row) == (0, 0, {}, False)


async def test_a_run_without_a_summary_of_its_end_is_read_from_its_server(tmp_path):
    RunFile(["e"], 1, [], []).write(tmp_path)
    row = await run_row(tmp_path)
    assert row["reason"] == "its search is on the server that it was started on"
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    os.utime(tmp_path / "summary.json", (0, 0))
    (tmp_path / DATA).mkdir()
    (tmp_path / DATA / "later.aof").write_text("")
    row = await run_row(tmp_path)
    assert (row["status"], row["reason"]) == ("", "its search has not started")


async def test_a_run_that_cannot_be_read_hides_no_other(tmp_path):
    (tmp_path / "run.json").write_text("{")
    row = await run_row(tmp_path)
    assert (row["name"], "not a run's file" in row["reason"]) == (tmp_path.name, True)
