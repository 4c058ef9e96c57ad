"""Warm restores in a child process, and damage to the files of a parent in memory."""

import os
from pathlib import Path

import pytest
import pytest_asyncio

from romul_workers.checkpoints.hashing import Written
from romul_workers.child.trainer import ChildTrainer
from romul_workers.schedule import Schedule, Stretch, train
from romul_workers.torch_support import FILE
from romul_workers.trainer import Failure
from tests.unit.test_trainer import TASKS, experiment, trial

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trainer(tmp_path_factory):
    """One trainer for all tests, since each new child would import torch again.

    Tests share nothing else: each has its own folder of checkpoints.
    """
    made = ChildTrainer(tmp_path_factory.mktemp("scratch"), [TASKS])
    yield made
    await made.close()


def declared(folder, **constants):
    return experiment(folder, "keeping", constants=constants)


async def chain(trainer, e, step, parent):
    return await trainer.train(e, trial(step=step, parent=parent.checkpoint if parent else None))


async def test_a_child_goes_on_from_what_it_saved_last_and_from_the_files_of_all_else(
    trainer, tmp_path
):
    e = declared(tmp_path)
    first = await chain(trainer, e, 0, None)
    second = await chain(trainer, e, 1, first)
    copy = await chain(trainer, e, 1, first)
    again = await chain(trainer, e, 2, copy)
    assert first.restored is None
    assert [x.restored.warm for x in (second, copy, again)] == [True, False, True]
    # The same trial from memory and from the files: the same result, and the same bytes.
    assert second.value == copy.value
    place = tmp_path / "checkpoints"
    files = [Written.of(place / x.checkpoint / FILE).blake3 for x in (second, copy)]
    assert files[0] == files[1]


@pytest.mark.parametrize(("after", "warm"), [("trains on", False), ("writes a file", True)])
async def test_what_a_task_does_after_it_saved_is_seen(trainer, tmp_path, after, warm):
    e = declared(tmp_path, after=after)
    first = await chain(trainer, e, 0, None)
    second = await chain(trainer, e, 1, first)
    assert second.restored.warm is warm
    copy = await chain(trainer, e, 1, first)
    assert (second.value, second.metrics) == (copy.value, copy.metrics)


async def test_a_task_whose_momentum_does_not_count_trains_without_its_parents(trainer, tmp_path):
    numbers = {"type": "float", "min": 0.0, "max": 1.0}
    e = experiment(tmp_path, "conditional", space={"x": numbers, "momentum": numbers})
    first = await trainer.train(e, trial(step=0, momentum=0.9))
    warm = await trainer.train(e, trial(step=1, parent=first.checkpoint))
    cold = await trainer.train(e, trial(step=1, parent=first.checkpoint))
    assert [x.restored.warm for x in (warm, cold)] == [True, False]
    assert [x.metrics["momentum"] for x in (first, warm, cold)] == [0.9, 0.0, 0.0]
    # Also with a schedule.
    stretches = [Stretch(0.0, 1.0, {"x": 0.5, "momentum": 0.9}), Stretch(1.0, 2.0, {"x": 0.5})]
    schedule = Schedule("e", "conditional", "loss", "minimize", "epoch", {}, stretches)
    again = await train(schedule, str(tmp_path / "checkpoints"), trainer)
    assert again.metrics["momentum"] == 0.0


async def test_another_process_starts_from_the_files(trainer, tmp_path):
    e = declared(tmp_path)
    first = await chain(trainer, e, 0, None)
    await trainer.close()
    second = await chain(trainer, e, 1, first)
    assert second.restored.warm is False


async def test_a_parent_that_is_gone_is_lost_though_its_tensors_are_there(trainer, tmp_path):
    e = declared(tmp_path)
    first = await chain(trainer, e, 0, None)
    await trainer.discard(e, first.checkpoint)
    ending = await chain(trainer, e, 1, first)
    assert isinstance(ending, Failure)
    assert ending.reason == "lost_parent"


def damage(file: Path, *, secretly):
    """Change a byte in the middle of a file; `secretly` keeps its modification time."""
    stat = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    if secretly:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("after", "secretly"),
    [
        pytest.param({}, False, id="its-time-of-change-shows-it"),
        pytest.param({"after": "reads its parent"}, True, id="the-task-asks-for-the-files"),
    ],
)
async def test_damage_is_noticed_before_a_task_reads_it(trainer, tmp_path, after, secretly):
    e = declared(tmp_path, **after)
    first = await chain(trainer, e, 0, None)
    damage(tmp_path / "checkpoints" / first.checkpoint / FILE, secretly=secretly)
    ending = await chain(trainer, e, 1, first)
    assert isinstance(ending, Failure)
    assert (ending.reason, "damaged" in ending.message) == ("lost_parent", True)


async def test_damage_is_noticed_where_a_write_makes_the_restore_read_the_files(trainer, tmp_path):
    e = declared(tmp_path, after="trains on")
    first = await chain(trainer, e, 0, None)
    damage(tmp_path / "checkpoints" / first.checkpoint / FILE, secretly=True)
    ending = await chain(trainer, e, 1, first)
    assert isinstance(ending, Failure)
    assert ending.reason == "lost_parent"
