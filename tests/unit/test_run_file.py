"""The file of a local run, which the command line and Python both read and write."""

import os
from dataclasses import replace
from errno import ENOSPC
from pathlib import Path

import pytest

from romul_actors.errors import (
    ExperimentError,
    ExperimentExistsError,
    StoreError,
    UnknownExperimentError,
)
from romul_actors.local.redis_server import DATA
from romul_actors.local.run_file import NAME, RunFile, extension, holds_run, resumption

RUN = RunFile(["e"], 2, ["task"], ["/tasks"], "/e.toml", {"name": "e"})


def test_a_run_is_written_into_a_new_folder_and_read_again(tmp_path):
    folder = tmp_path / "runs" / "e"
    assert not holds_run(folder)
    RunFile.check_new(folder)
    RUN.write(folder)
    assert holds_run(folder)
    assert RunFile.read(folder) == RUN
    with pytest.raises(
        ExperimentExistsError, match="already holds a run: continue it with `romul run"
    ):
        RunFile.check_new(folder)


def test_what_is_written_replaces_the_whole_file_or_nothing(tmp_path, monkeypatch):
    RUN.write(tmp_path)

    def full(self, text, *args):
        self.touch()
        raise OSError(ENOSPC, "no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        replace(RUN, workers=9).write(tmp_path)
    assert RunFile.read(tmp_path) == RUN


def test_the_command_that_goes_on_names_what_the_run_was_given(monkeypatch, tmp_path):
    runs = tmp_path / "my runs"
    monkeypatch.delenv("ROMUL_RUNS", raising=False)
    assert resumption(Path("runs/e")) == "romul run --resume e --redis URL"
    with_server = resumption(Path("runs/e"), "redis://u:secret@h:1/3")
    assert with_server == "romul run --resume e --redis 'redis://u:***@h:1/3'"
    # A run with its own server has its search on no other server.
    (runs / "e" / DATA).mkdir(parents=True)
    assert resumption(runs / "e", "unix:///s") == f"romul run --resume e --runs '{runs}'"
    monkeypatch.setenv("ROMUL_RUNS", str(runs))
    assert resumption(runs / "e") == "romul run --resume e"
    assert extension(runs / "e") == "romul extend e --steps N"
    # On a server given by name, the run would have no workers.
    assert extension(runs / "f") == "romul run --resume f --redis URL --steps N"


def test_a_folder_without_a_run_is_unknown(tmp_path):
    with pytest.raises(UnknownExperimentError, match="no run there to continue"):
        RunFile.read(tmp_path)
    RUN.write(tmp_path / "mine")
    with pytest.raises(UnknownExperimentError, match="to continue: did you mean 'mine'"):
        RunFile.read(tmp_path / "mien")


def test_of_many_runs_the_newest_are_named(tmp_path):
    for n in range(8):
        RUN.write(tmp_path / f"run{n}")
        os.utime(tmp_path / f"run{n}" / NAME, (n, n))
    with pytest.raises(UnknownExperimentError) as refused:
        RunFile.read(tmp_path / "other")
    assert str(refused.value).endswith(": there are run7, run6, run5, run4, run3 and 3 more")


@pytest.mark.parametrize(
    "text",
    [
        "",
        pytest.param("[" * 20_000, id="deep"),
        "{",
        "[]",
        "{}",
        '{"experiments": []}',
        '{"odd": 1}',
        "3",
    ],
)
def test_a_file_that_is_none_of_a_runs_is_named(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(ExperimentError, match=r"run\.json: not a run's file"):
        RunFile.read(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/e: the run's folder cannot be created \(Not a dir"):
        RUN.write(tmp_path / "file" / "e")
