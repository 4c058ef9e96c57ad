"""The second lease: a checkpoint is stored while the next trial trains, and reported afterwards.

These tests use a real server and a real child process. They delay the call that makes a checkpoint
durable: the flush of a local file, or the upload to an object store.
"""

import asyncio
import contextlib
import errno
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from romul_actors.core.events import Expired, Failed, Released, Result, Submitted
from romul_actors.observe.snapshot import snapshot
from romul_actors.protocol.messages import decode_event, decode_trial, encode
from romul_actors.store import Commit
from romul_actors.store.redis import RedisStore
from romul_workers.checkpoints.storage import Checkpoints
from romul_workers.child.trainer import ChildTrainer
from romul_workers.worker.loop import Worker
from romul_workers.worker.settings import WorkerSettings
from tests.trials import TRIAL as FIRST
from tests.trials import declare

TASKS = Path(__file__).parents[1] / "tasks"
EXPIRED = Expired(trial="0-0", slot=0, attempt=1, worker="w")
SECOND, THIRD = replace(FIRST, id="1-0", slot=1), replace(FIRST, id="2-0", slot=2)


class Storage:
    """Delays or fails the call that makes a checkpoint durable: a flush or an upload.

    Args:
        trace: where each call's begin and end is noted, with its trial.
        held: trials whose calls wait for `let_go`.

    Attributes:
        error: what a call that was held up raises in the end.
    """

    def __init__(self, trace, held=("0-0",)):
        self.trace = trace
        self.held = held
        self.error: Exception | None = None
        self._gate = threading.Event()

    def let_go(self, error=None):
        self.error = error
        self._gate.set()

    @contextlib.contextmanager
    def _noted(self, path):
        name = next((part for part in Path(path).parts[::-1] if part[:1].isdigit()), "")
        trial = "-".join(name.split("-")[:2])
        self.trace.append(("storing begins", trial))
        if trial in self.held:
            assert self._gate.wait(60), f"{path} was never let go"
            if self.error is not None:
                raise self.error
        yield
        self.trace.append(("storing ends", trial))

    def install(self, monkeypatch):
        flush, put = os.fsync, MemoryFileSystem.put_file

        def slow_flush(handle):
            with self._noted(Path(f"/proc/self/fd/{handle}").readlink()):
                flush(handle)

        def slow_put(filesystem, source, target, *args, **options):
            with self._noted(target):
                put(filesystem, source, target, *args, **options)

        monkeypatch.setattr(os, "fsync", slow_flush)
        monkeypatch.setattr(MemoryFileSystem, "put_file", slow_put)


class TracedStore(RedisStore):
    """Records leases, heartbeats and reports, and whether a reported checkpoint is complete."""

    def __init__(self, url, place, scratch):
        super().__init__(url)
        self.trace: list[tuple[str, ...]] = []
        self.seen: dict[str, list[dict[str, Any]]] = {}
        self._checkpoints = Checkpoints(place, scratch)

    async def lease(self, *args):
        found = await super().lease(*args)
        if found is not None:
            self.trace.append(("lease", decode_trial(found.body).id))
        return found

    async def beat(self, lease, slot, trial, presence):
        self.seen.setdefault(trial, []).append(dict(presence))
        return await super().beat(lease, slot, trial, presence)

    async def settle(self, lease, slot, token, body, hold=None):
        event = decode_event(body)
        if isinstance(event, Result):
            assert self._checkpoints.exists(event.checkpoint), "reported before it was stored"
        self.trace.append(("report", token.partition("#")[0]))
        return await super().settle(lease, slot, token, body, hold)


class Rig:
    """A worker with its child and storage, on a store with trials."""

    def __init__(self, store, storage, folder, place):
        self.store = store
        self.storage = storage
        self.folder = folder
        self.place = place
        self.trace = store.trace
        self.trainer = ChildTrainer(folder / "scratch", [TASKS])
        self.stop = asyncio.Event()
        self.worker: Worker
        self.working: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(0))

    async def queue(self, *trials, **fields):
        keys = {"constants": {"place": str(self.folder)}, "timeouts": {"lease_s": 1.0}, **fields}
        experiment = declare(task="gated", checkpoints=self.place, **keys)
        await self.store.create("e", experiment.model_dump_json(), encode(Submitted()))
        stored = await self.store.load("e")
        bodies = [encode(trial) for trial in trials]
        await self.store.commit(
            "e", "a", Commit(stored.version, [], {"status": "running"}, trials=bodies)
        )

    def begin(self, *, overlap=True, **settings):
        made = WorkerSettings(
            name="w", allow=("gated",), host="h", pid=1, overlap=overlap, **settings
        )
        self.worker = Worker(self.store, self.trainer, made)
        self.working = asyncio.create_task(self.worker.run(self.stop))

    def mark(self, trial, what):
        path = self.folder / f"{trial} {what}"
        path.touch()
        return path

    async def until(self, condition):
        async with asyncio.timeout(60):
            while not (found := condition()):
                assert not self.working.done() or self.working.result() is None
                await asyncio.sleep(0.01)
        return found

    async def until_second_trains(self):
        """The first trial is being stored, and the second one trains."""
        await self.until(lambda: ("storing begins", "0-0") in self.trace)
        await self.until((self.folder / "1-0 trains").exists)
        self.trace.append(("trains", "1-0"))

    async def until_reported(self, trial):
        await self.until(lambda: ("report", trial) in self.trace)

    async def reports(self):
        """The reports, by trial."""
        entries = await self.store.read(["e"], "a", 10, 1)
        events: list[Any] = [decode_event(entry.body) for entry in entries]
        return {event.trial: event for event in events if not isinstance(event, Submitted)}

    async def end(self):
        self.stop.set()
        await self.working


@pytest.fixture(params=["folder", "object store"])
def place(request, tmp_path):
    return str(tmp_path / "kept") if request.param == "folder" else f"memory://{tmp_path.name}"


@pytest.fixture
async def rig(redis_url, tmp_path, monkeypatch, place):
    store = TracedStore(redis_url, place, tmp_path / "looks")
    for experiment in await store.experiments():
        await store.remove(experiment)
    storage = Storage(store.trace)
    storage.install(monkeypatch)
    made = Rig(store, storage, tmp_path, place)
    yield made
    storage.let_go()
    made.working.cancel()
    await asyncio.gather(made.working, return_exceptions=True)
    await store.close()


def beside(trace):
    """The position in a trace at which storing the first trial finally ends."""
    return max(n for n, event in enumerate(trace) if event == ("storing ends", "0-0"))


async def test_the_next_trial_trains_while_one_is_stored_and_the_report_waits_for_that(rig):
    waits = rig.mark("1-0", "waits")
    await rig.queue(FIRST, SECOND, THIRD)
    rig.begin(max_trials=3)
    await rig.until_second_trains()
    # Each has heartbeats of its own, for longer than its lease.
    await rig.until(lambda: all(len(rig.store.seen.get(t, ())) > 4 for t in ("0-0", "1-0")))
    assert len(await rig.store.leases("e")) == 2
    seen = rig.store.seen["1-0"][-1]
    assert (seen["state"], seen["trial"], seen["storing"]) == ("training", "1-0", "0-0")
    [shown] = (await snapshot(rig.store, "e")).workers
    assert (shown.trial, shown.storing) == ("1-0", "0-0")
    assert ("report", "0-0") not in rig.trace
    rig.storage.let_go()
    await rig.until_reported("0-0")
    waits.unlink()
    await rig.working
    trace = rig.trace
    order = [
        ("lease", "0-0"),
        ("lease", "1-0"),
        ("trains", "1-0"),
        ("storing ends", "0-0"),
        ("report", "0-0"),
        ("storing begins", "1-0"),
        ("report", "1-0"),
    ]
    assert [event for event in dict.fromkeys(trace) if event in order] == order
    assert trace.index(("storing begins", "0-0")) < trace.index(("trains", "1-0"))
    assert trace.index(("trains", "1-0")) < beside(trace) < trace.index(("report", "0-0"))
    reports = await rig.reports()
    assert {trial: type(event) for trial, event in reports.items()} == dict.fromkeys(
        ("0-0", "1-0", "2-0"), Result
    )
    for trial in ("0-0", "1-0", "2-0"):
        [output] = await rig.store.outputs("e", trial)
        assert output.text == f"words of {trial}\n"


async def test_without_it_a_trial_is_reported_before_the_next_one_is_taken(rig):
    await rig.queue(FIRST, SECOND)
    rig.begin(overlap=False, max_trials=2)
    await rig.until(lambda: ("storing begins", "0-0") in rig.trace)
    # Nothing but heartbeats is sent.
    before = len(rig.store.seen.get("0-0", ()))
    await rig.until(lambda: len(rig.store.seen.get("0-0", ())) > before + 2)
    assert not (rig.folder / "1-0 trains").exists()
    assert "storing" not in rig.store.seen["0-0"][-1]
    rig.storage.let_go()
    await rig.working
    calls = [event for event in rig.trace if event[0] in ("lease", "report")]
    assert calls == [(what, trial) for trial in ("0-0", "1-0") for what in ("lease", "report")]


class UnreachableError(Exception):
    """An error as an object store's library raises it; it is not an OSError."""


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no space left"), UnreachableError("down"), ValueError("odd")]
)
async def test_what_cannot_be_stored_is_reported_so_and_the_next_trial_goes_on(rig, error):
    waits = rig.mark("1-0", "waits")
    await rig.queue(FIRST, SECOND)
    rig.begin(max_trials=2)
    await rig.until_second_trains()
    rig.storage.let_go(error)
    await rig.until_reported("0-0")
    assert ("report", "1-0") not in rig.trace
    waits.unlink()
    await rig.working
    reports = await rig.reports()
    # An object store that has never worked may be set up wrong; a folder was made here.
    released = isinstance(error, OSError) or (
        type(error) is not ValueError and "://" not in rig.place
    )
    assert isinstance(reports["0-0"], Released if released else Failed)
    assert reports["0-0"].reason == ("no_room" if released else "storage")
    assert str(error.args[-1]) in reports["0-0"].message
    assert isinstance(reports["1-0"], Result)


async def test_a_process_that_dies_in_the_next_trial_takes_no_checkpoint_along(rig):
    rig.mark("1-0", "dies")
    await rig.queue(FIRST, SECOND)
    rig.begin(max_trials=2)
    await rig.until_second_trains()
    await rig.until_reported("1-0")
    rig.storage.let_go()
    await rig.working
    reports = await rig.reports()
    assert reports["1-0"].reason == "killed"
    assert isinstance(reports["0-0"], Result)
    folder = Checkpoints(rig.place, rig.folder / "other").fetch(reports["0-0"].checkpoint)
    assert (folder / "state").read_text() == "0-0"


async def test_a_worker_that_must_go_ends_both_leases(rig):
    rig.mark("1-0", "waits")
    await rig.queue(FIRST, SECOND, THIRD)
    rig.begin(grace_s=30.0)
    await rig.until_second_trains()
    rig.stop.set()
    # The task pauses at once; what it left is stored beside the first one's.
    await rig.until_reported("1-0")
    rig.storage.let_go()
    await rig.working
    reports = await rig.reports()
    assert isinstance(reports["0-0"], Result)
    assert (reports["1-0"].reason, reports["1-0"].at) == ("preempted", 0.0)
    assert reports["1-0"].checkpoint.startswith("1-0-1")
    assert "2-0" not in reports
    assert await rig.store.leases("e") == {}


async def test_what_is_not_stored_within_the_grace_period_goes_back(rig):
    rig.mark("1-0", "waits")
    await rig.queue(FIRST, SECOND)
    rig.begin(grace_s=0.5)
    await rig.until_second_trains()
    rig.stop.set()
    await rig.until_reported("0-0")
    rig.storage.let_go()
    await rig.working
    reports = await rig.reports()
    assert (reports["0-0"].reason, reports["0-0"].checkpoint) == ("preempted", None)
    assert reports["1-0"].reason == "preempted"


async def test_a_lease_that_is_lost_while_its_checkpoint_is_stored_is_fenced(rig):
    waits = rig.mark("1-0", "waits")
    await rig.queue(FIRST, SECOND)
    rig.begin()
    await rig.until_second_trains()
    [(lost, _)] = await rig.store.sweep("e", "a", 0, 1)
    assert decode_trial(lost.body).id == "0-0"
    assert await rig.store.settle(lost, 0, "0-0#1 expired", encode(EXPIRED))
    # The worker learns of it by the next heartbeat; the other lease is as it was.
    await rig.until(lambda: "storing" not in rig.store.seen.get("1-0", [{"storing": ""}])[-1])
    rig.storage.let_go()
    waits.unlink()
    await rig.until_reported("1-0")
    await rig.end()
    reports = await rig.reports()
    assert isinstance(reports["1-0"], Result)
    assert reports["0-0"] == EXPIRED
    assert rig.trace.count(("report", "0-0")) == 1
