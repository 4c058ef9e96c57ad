"""Processes import nothing from the folder in which they are started."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

import romul_actors
from romul.running import _folders_of
from romul_actors.local.processes import spawn
from romul_workers.child.task_import import TaskImportError, find_task
from romul_workers.child.trainer import ChildTrainer
from romul_workers.trainer import Success
from tests.trials import TRIAL, declare

TASK = """\
def train(trial):
    (trial.checkpoint / "x").touch()
    return 0.5
"""
PACKAGES = Path(romul_actors.__file__).parents[1]


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A current folder with modules named like those that every process imports."""
    folder = tmp_path / "here"
    for package in ("romul", "romul_actors", "romul_workers", "msgpack"):
        (folder / package).mkdir(parents=True)
        text = f"open({str(tmp_path / 'imported')!r}, 'a').write('{package} ')\n"
        (folder / package / "__init__.py").write_text(text)
    monkeypatch.chdir(folder)
    return folder


def trained(place, paths):
    experiment = declare(task="mine", checkpoints=str(place / "checkpoints"))

    async def train():
        trainer = ChildTrainer(place / "scratch", paths)
        try:
            return await trainer.train(experiment, TRIAL)
        finally:
            await trainer.close()

    return asyncio.run(train())


@pytest.mark.parametrize("by", ["--path", "PYTHONPATH"])
def test_a_task_is_found_where_it_is_said_to_be_and_the_current_folder_is_not_looked_at(
    hostile, tmp_path, monkeypatch, by
):
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "mine.py").write_text(TASK)
    if by == "PYTHONPATH":
        # An empty part would be the current folder.
        search = filter(None, [str(tasks), os.environ.get("PYTHONPATH", "")])
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(search))
    ending = trained(tmp_path, [tasks] if by == "--path" else [])
    assert isinstance(ending, Success)
    assert not (tmp_path / "imported").exists()


def test_a_task_of_the_current_folder_is_found_if_that_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(TASK)
    assert isinstance(trained(tmp_path, [Path()]), Success)
    ending = trained(tmp_path, [])
    first = ending.message.partition("\n")[0]
    where = (
        f"there is {tmp_path}/mine.py, but its folder is searched only if it is named (`--path`)"
    )
    assert first.endswith(f"No module named 'mine': {where}")


@pytest.mark.parametrize("name", ["train", "model", "tune"])
def test_the_file_in_the_current_folder_is_named_before_a_similar_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    with pytest.raises(
        TaskImportError, match=f"there is {tmp_path}/{name}/__init__.py, but its folder"
    ):
        find_task(name, "train")


def test_a_task_that_this_process_finds_by_its_name_is_found_by_workers(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(TASK)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    for module in ("mine", "packed", "packed.mine"):
        assert _folders_of(module) == (sys.path[0], str(tmp_path))
    for module in ("pytest", "json", "sys", "nowhere.mine"):
        assert _folders_of(module) == (sys.path[0],)


@pytest.mark.parametrize("module", ["romul_actors.cli", "romul.supervisor"])
def test_a_process_of_a_run_imports_what_is_installed(hostile, tmp_path, module):
    async def started():
        process = await spawn(["--version"], tmp_path / "log", os.environ, module)
        return await process.wait()

    assert asyncio.run(started()) == 0, (tmp_path / "log").read_text()
    assert not (tmp_path / "imported").exists()


def test_every_python_process_that_is_started_is_kept_from_that_folder():
    starts = [
        start
        for part in ("romul", "romul_actors", "workers/romul_workers", "sim/romul_sim")
        for file in (PACKAGES / part).rglob("*.py")
        for start in re.findall(r"sys\.executable,\s*(?:#.*\s*)*([^,\s]+),", file.read_text())
    ]
    assert len(starts) > 4
    # The broker's options are a list of their own, which begins with it.
    assert {*starts} == {'"-P"', "*module"}
