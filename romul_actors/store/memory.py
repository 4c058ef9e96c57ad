"""The store in memory: for the simulator and for tests; the same promises, one process.

Time is the caller's: `now_ms` may be a simulated clock.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from romul_actors.errors import ExperimentExistsError, UnknownExperimentError
from romul_actors.store.base import (
    MAX_DEAD,
    MAX_DEAD_BODY,
    MAX_LOG,
    MAX_LOGS,
    Beat,
    Commit,
    DeadLetter,
    Entry,
    Glance,
    Lease,
    Output,
    Outstanding,
    Store,
    Stored,
)

HISTORY_SLACK = 1.1
"""History is cut to what is to be kept when it is longer by this factor."""


@dataclass(slots=True)
class _Item:
    body: bytes
    at_ms: int
    holder: str | None = None
    touched_ms: int = 0


@dataclass(slots=True)
class _Queue:
    """Entries by id: those that nobody has yet, and those in somebody's hands."""

    fresh: dict[int, _Item] = field(default_factory=dict)
    held: dict[int, _Item] = field(default_factory=dict)
    """Longest untouched first."""

    def __len__(self) -> int:
        return len(self.fresh) + len(self.held)

    def all(self) -> list[_Item]:
        """Every entry, oldest first."""
        return [item for _, item in sorted((self.fresh | self.held).items())]

    def copy(self) -> "_Queue":
        """The queue as it stands, for good."""
        fresh = {entry_id: replace(item) for entry_id, item in self.fresh.items()}
        return _Queue(fresh, {entry_id: replace(item) for entry_id, item in self.held.items()})

    def touch(self, entry_id: int, now_ms: int) -> None:
        """Say that a held entry is not forgotten."""
        item = self.held.pop(entry_id)
        item.touched_ms = now_ms
        self.held[entry_id] = item


@dataclass(slots=True)
class _Experiment:
    spec: str
    epoch: int
    meta: dict[str, str]
    version: int = 0
    nonce: str = ""
    slots: dict[int, dict[str, str]] = field(default_factory=dict)
    inbox: _Queue = field(default_factory=_Queue)
    trials: _Queue = field(default_factory=_Queue)
    history: list[tuple[int, str]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    workers: dict[str, tuple[int, Mapping[str, Any]]] = field(default_factory=dict)
    settled: dict[int, str] = field(default_factory=dict)
    garbage: dict[str, int] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)

    ticked_ms: int | None = None

    @property
    def token(self) -> str:
        """The version as others know it."""
        return f"{self.epoch}.{self.version}.{self.nonce}"

    def copy(self) -> "_Experiment":
        """The experiment as it stands, for good; what never changes is shared."""
        return replace(
            self,
            meta=dict(self.meta),
            slots={index: dict(slot) for index, slot in self.slots.items()},
            inbox=self.inbox.copy(),
            trials=self.trials.copy(),
            history=list(self.history),
            dead=list(self.dead),
            workers=dict(self.workers),
            settled=dict(self.settled),
            garbage=dict(self.garbage),
            outputs=list(self.outputs),
        )

    def queue(self, name: str) -> _Queue:
        """The queue of that name."""
        return self.inbox if name == "inbox" else self.trials


class MemoryStore(Store):
    """A store in this process; see `Store` for the promises.

    Args:
        now_ms: the clock, in milliseconds.
    """

    def __init__(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._now_ms = now_ms
        self._all: dict[str, _Experiment] = {}
        self._last_id = 0
        self._waiting: dict[str, dict[asyncio.Future[None], Sequence[str]]]
        self._waiting = {"inbox": {}, "trials": {}}

    def _next(self) -> int:
        self._last_id += 1
        return self._last_id

    def _find(self, name: str) -> _Experiment:
        if name not in self._all:
            raise UnknownExperimentError(f"no experiment {name!r} in memory")
        return self._all[name]

    def _queue(self, name: str, queue: str) -> _Queue:
        return self._all[name].queue(queue) if name in self._all else _Queue()

    def _add(self, name: str, queue: str, body: bytes) -> None:
        self._all[name].queue(queue).fresh[self._next()] = _Item(body, self._now_ms())
        # Each entry wakes one of those who wait for it, the first to come.
        for future, names in self._waiting[queue].items():
            if name in names and not future.done():
                future.set_result(None)
                return

    async def _arrived(self, queue: str, names: Sequence[str], block_ms: int) -> None:
        """Wait for an entry of one of the experiments, at most `block_ms`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        limit = loop.call_later(block_ms / 1000, _wake, future)
        self._waiting[queue][future] = names
        try:
            await future
        finally:
            limit.cancel()
            del self._waiting[queue][future]

    async def create(self, name: str, spec: str, submitted: bytes) -> None:
        if name in self._all:
            raise ExperimentExistsError(f"experiment {name!r} exists already")
        meta = {"status": "submitted", "slots": "0"}
        self._all[name] = _Experiment(spec, self._next(), meta)
        self._all = dict(sorted(self._all.items()))
        self._add(name, "inbox", submitted)

    async def remove(self, name: str) -> bool:
        return self._all.pop(name, None) is not None

    async def experiments(self) -> dict[str, str]:
        return {name: found.meta["status"] for name, found in self._all.items()}

    async def spec(self, name: str) -> str:
        return self._find(name).spec

    async def reported(self, name: str) -> int:
        return int(self._all[name].meta.get("reported", 0)) if name in self._all else 0

    async def load(self, name: str) -> Stored:
        found = self._find(name)
        slots = [dict(found.slots.get(i, {})) for i in range(int(found.meta["slots"]))]
        return Stored(found.token, dict(found.meta), slots)

    async def history(
        self, name: str, after: str = "0", count: int = 1000
    ) -> list[tuple[str, str]]:
        history = self._all[name].history if name in self._all else []
        later = [(str(i), line) for i, line in history if i > int(after)]
        return later[:count]

    async def glance(
        self, name: str, fields: Sequence[str] = (), after: str = "", count: int = 0
    ) -> Glance:
        found = self._find(name)
        slots = range(int(found.meta["slots"])) if fields else ()
        lines = [(str(i), line) for i, line in found.history]
        if after:
            lines = [(i, line) for i, line in lines if int(i) > int(after)][:count]
        return Glance(
            self._now_ms(),
            {**found.meta, "spec": found.spec},
            [{f: found.slots.get(i, {}).get(f, "") for f in fields} for i in slots],
            await self.workers(name),
            await self.depths(name),
            lines if after else lines[len(lines) - min(count, len(lines)) :],
        )

    async def dead(self, name: str, after: str = "0", count: int = 1000) -> list[DeadLetter]:
        dead = self._all[name].dead if name in self._all else []
        return [message for message in dead if int(message.id) > int(after)][:count]

    async def resubmit(self, name: str, dead: DeadLetter) -> bool:
        if not await self.drop(name, [dead.id]):
            return False
        self._add(name, dead.origin, dead.body)
        return True

    async def drop(self, name: str, ids: Sequence[str]) -> int:
        found = self._find(name)
        before = len(found.dead)
        found.dead = [message for message in found.dead if message.id not in ids]
        return before - len(found.dead)

    async def send(self, name: str, body: bytes) -> None:
        self._find(name)
        self._add(name, "inbox", body)

    async def read(
        self, names: Sequence[str], actor: str, count: int, block_ms: int
    ) -> list[Entry]:
        entries = self._take_new(names, actor, count)
        if not entries and block_ms:
            await self._arrived("inbox", names, block_ms)
            entries = self._take_new(names, actor, count)
        return entries

    def _take_new(self, names: Sequence[str], actor: str, count: int) -> list[Entry]:
        taken = []
        for name in names:
            found = self._all.get(name)
            if found is None or not found.inbox.fresh:
                continue
            taken += [
                self._entry(name, entry_id, self._take(found.inbox, entry_id, actor))
                for entry_id in list(found.inbox.fresh)[:count]
            ]
        return taken

    def _take(self, queue: _Queue, entry_id: int, holder: str) -> _Item:
        """Put an entry into somebody's hands."""
        item = queue.fresh.pop(entry_id, None) or queue.held.pop(entry_id)
        item.holder, item.touched_ms = holder, self._now_ms()
        queue.held[entry_id] = item
        return item

    def _entry(self, name: str, entry_id: int, item: _Item) -> Entry:
        return Entry(name, str(entry_id), item.at_ms, item.body)

    async def pending(self, name: str, actor: str, count: int) -> list[Entry]:
        held = self._queue(name, "inbox").held
        mine = sorted((i, x) for i, x in held.items() if x.holder == actor)
        return [self._entry(name, i, item) for i, item in mine[:count]]

    async def take_over(self, name: str, actor: str, idle_ms: int, count: int) -> list[Entry]:
        inbox = self._queue(name, "inbox")
        idle = sorted(self._idle(inbox, idle_ms))[:count]
        return [self._entry(name, i, self._take(inbox, i, actor)) for i in idle]

    def _idle(self, queue: _Queue, idle_ms: int) -> list[int]:
        """Entries that were not touched for so long, the longest untouched first."""
        limit_ms = self._now_ms() - idle_ms
        return list(itertools.takewhile(lambda i: queue.held[i].touched_ms <= limit_ms, queue.held))

    async def commit(self, name: str, actor: str, commit: Commit) -> str | None:
        found = self._all.get(name)
        if found is None or found.token != commit.version:
            return None
        inbox = found.inbox.held
        held = [inbox.get(int(entry_id)) for entry_id in commit.entries]
        if any(item is None or item.holder != actor for item in held):
            return None
        found.meta.update(commit.meta)
        found.spec = found.meta.pop("spec", found.spec)
        for index, fields in commit.slots.items():
            found.slots.setdefault(index, {}).update(fields)
        for body in commit.trials:
            self._add(name, "trials", body)
        found.history += [(self._next(), line) for line in commit.history]
        if len(found.history) > HISTORY_SLACK * commit.history_keep:
            del found.history[: -commit.history_keep]
        for entry_id in commit.entries:
            del inbox[int(entry_id)]
        for checkpoint in commit.garbage:
            found.garbage.setdefault(checkpoint, self._now_ms())
        found.version, found.nonce = found.version + 1, commit.nonce
        return found.token

    async def dead_letter(
        self, name: str, queue: str, unusable: Sequence[tuple[str, str, bytes]]
    ) -> int:
        items, n = self._queue(name, queue).held, 0
        for entry_id, reason, body in unusable:
            item = items.get(int(entry_id))
            if item is None:
                continue
            del items[int(entry_id)]
            kept = DeadLetter(str(self._next()), queue, reason, body[:MAX_DEAD_BODY], len(body))
            self._all[name].dead.append(kept)
            del self._all[name].dead[:-MAX_DEAD]
            n += 1
        return n

    async def tick(self, name: str, body: bytes, every_ms: int) -> bool:
        found, now = self._find(name), self._now_ms()
        if found.ticked_ms is not None and now - found.ticked_ms < every_ms:
            return False
        found.ticked_ms = now
        self._add(name, "inbox", body)
        return True

    async def sweep(
        self, name: str, actor: str, idle_ms: int, count: int, worker: str | None = None
    ) -> list[tuple[Lease, str]]:
        trials, swept = self._queue(name, "trials"), []
        for entry_id in self._idle(trials, idle_ms):
            last = trials.held[entry_id].holder or ""
            if worker not in (None, last):
                continue
            item = self._take(trials, entry_id, actor)
            swept.append((Lease(name, str(entry_id), actor, item.body), last))
            if len(swept) == count:
                break
        return swept

    async def outstanding(self, name: str) -> Outstanding:
        found = self._find(name)
        trials, inbox = ([x.body for x in queue.all()] for queue in (found.trials, found.inbox))
        return Outstanding(found.token, trials, inbox)

    async def lease(self, names: Sequence[str], worker: str, block_ms: int) -> Lease | None:
        lease = self._take_trial(names, worker)
        if lease is None and block_ms:
            await self._arrived("trials", names, block_ms)
            lease = self._take_trial(names, worker)
        return lease

    def _take_trial(self, names: Sequence[str], worker: str) -> Lease | None:
        for name in names:
            trials = self._queue(name, "trials")
            for entry_id in trials.fresh:
                item = self._take(trials, entry_id, worker)
                return Lease(name, str(entry_id), worker, item.body)
        return None

    def _held(self, lease: Lease) -> _Item | None:
        item = self._queue(lease.experiment, "trials").held.get(int(lease.id))
        return item if item is not None and item.holder == lease.worker else None

    async def beat(self, lease: Lease, slot: int, trial: str, presence: Mapping[str, Any]) -> Beat:
        if lease.experiment not in self._all:
            return Beat(kept=False, status="")
        await self.present([lease.experiment], lease.worker, presence)
        item = self._held(lease)
        found = self._all[lease.experiment]
        if item is not None:
            found.trials.touch(int(lease.id), self._now_ms())
        settled = found.settled.get(slot, "")
        outdated = settled.startswith(f"{trial}#") and " result " in settled
        return Beat(item is not None, found.meta["status"], outdated)

    async def settle(self, lease: Lease, slot: int, token: str, body: bytes) -> bool:
        if lease.experiment not in self._all:
            return False
        found = self._all[lease.experiment]
        if self._held(lease) is None:
            return found.settled.get(slot) == token
        self._add(lease.experiment, "inbox", body)
        found.settled[slot] = token
        del found.trials.held[int(lease.id)]
        return True

    async def present(self, names: Sequence[str], worker: str, presence: Mapping[str, Any]) -> None:
        for name in names:
            if name in self._all and presence:
                self._all[name].workers[worker] = (self._now_ms(), presence)
            elif name in self._all:
                self._all[name].workers.pop(worker, None)

    async def write_output(self, name: str, output: Output) -> None:
        if name in self._all:
            kept = replace(output, text=output.text[-MAX_LOG:])
            self._all[name].outputs.append(kept)
            del self._all[name].outputs[:-MAX_LOGS]

    async def outputs(self, name: str, trial: str) -> list[Output]:
        kept = self._all[name].outputs if name in self._all else []
        return [output for output in kept if output.trial == trial]

    async def garbage(self, name: str, older_ms: int, count: int) -> list[str]:
        garbage = self._all[name].garbage if name in self._all else {}
        limit = self._now_ms() - older_ms
        # In order of their times.
        old = itertools.takewhile(lambda name: garbage[name] <= limit, garbage)
        return list(itertools.islice(old, count))

    async def forget(self, name: str, checkpoints: Sequence[str]) -> None:
        for checkpoint in checkpoints if name in self._all else ():
            self._all[name].garbage.pop(checkpoint, None)

    async def workers(self, name: str) -> dict[str, dict[str, Any]]:
        now = self._now_ms()
        found = self._all[name].workers if name in self._all else {}
        return {
            worker: {**presence, "age_ms": max(0, now - seen_ms)}
            for worker, (seen_ms, presence) in found.items()
        }

    async def ages(self, name: str) -> dict[str, int]:
        now = self._now_ms()
        found = self._all[name].workers if name in self._all else {}
        return {worker: max(0, now - seen_ms) for worker, (seen_ms, _) in found.items()}

    async def leases(self, name: str) -> dict[str, str]:
        held = self._queue(name, "trials").held
        return {str(i): item.holder or "" for i, item in sorted(held.items())}

    async def depths(self, name: str) -> dict[str, int]:
        if name not in self._all:
            return {"inbox": 0, "trials": 0, "history": 0, "dead": 0}
        found = self._all[name]
        return {
            "inbox": len(found.inbox),
            "trials": len(found.trials),
            "history": len(found.history),
            "dead": len(found.dead),
        }

    async def check(self) -> list[str]:
        return []

    async def close(self) -> None:
        return None


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
