"""The store in memory: for the simulator and for tests; the same promises, one process.

Time is the caller's: `now_ms` may be a simulated clock.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from romul_actors.errors import ExperimentExistsError, UnknownExperimentError
from romul_actors.store.base import (
    MAX_DEAD,
    MAX_DEAD_BODY,
    Beat,
    Commit,
    Dead,
    Entry,
    Lease,
    Outstanding,
    Store,
    Stored,
)


@dataclass(slots=True)
class _Item:
    body: bytes
    at_ms: int
    holder: str | None = None
    touched_ms: int = 0


@dataclass(slots=True)
class _Experiment:
    spec: str
    epoch: int
    meta: dict[str, str]
    version: int = 0
    nonce: str = ""
    slots: dict[int, dict[str, str]] = field(default_factory=dict)
    queues: dict[str, dict[int, _Item]] = field(default_factory=lambda: {"inbox": {}, "trials": {}})
    history: list[tuple[int, str]] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    workers: dict[str, dict[str, Any]] = field(default_factory=dict)
    settled: dict[int, str] = field(default_factory=dict)
    garbage: dict[str, int] = field(default_factory=dict)

    @property
    def token(self) -> str:
        """The version as others know it."""
        return f"{self.epoch}.{self.version}.{self.nonce}"

    ticked_ms: int | None = None


class MemoryStore(Store):
    """A store in this process; see `Store` for the promises.

    Args:
        now_ms: the clock, in milliseconds.
    """

    def __init__(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._now_ms = now_ms
        self._all: dict[str, _Experiment] = {}
        self._last_id = 0
        self._arrival = asyncio.Event()

    def _next(self) -> int:
        self._last_id += 1
        return self._last_id

    def _find(self, name: str) -> _Experiment:
        if name not in self._all:
            raise UnknownExperimentError(f"no experiment {name!r} in memory")
        return self._all[name]

    def _queue(self, name: str, queue: str) -> dict[int, _Item]:
        return self._all[name].queues[queue] if name in self._all else {}

    def _add(self, experiment: _Experiment, queue: str, body: bytes) -> None:
        experiment.queues[queue][self._next()] = _Item(body, self._now_ms())
        self._arrival.set()

    async def _arrived(self, block_ms: int) -> None:
        """Wait for the next entry in any queue, at most `block_ms`."""
        self._arrival.clear()
        try:
            async with asyncio.timeout(block_ms / 1000):
                await self._arrival.wait()
        except TimeoutError:
            pass

    async def create(self, name: str, spec: str, submitted: bytes) -> None:
        if name in self._all:
            raise ExperimentExistsError(f"experiment {name!r} exists already")
        meta = {"status": "submitted", "slots": "0"}
        self._all[name] = _Experiment(spec, self._next(), meta)
        self._add(self._all[name], "inbox", submitted)

    async def remove(self, name: str) -> bool:
        return self._all.pop(name, None) is not None

    async def experiments(self) -> dict[str, str]:
        return {name: self._all[name].meta["status"] for name in sorted(self._all)}

    async def spec(self, name: str) -> str:
        return self._find(name).spec

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

    async def dead(self, name: str, after: str = "0", count: int = 1000) -> list[Dead]:
        dead = self._all[name].dead if name in self._all else []
        return [message for message in dead if int(message.id) > int(after)][:count]

    async def revive(self, name: str, dead: Dead) -> bool:
        if not await self.drop(name, [dead.id]):
            return False
        self._add(self._all[name], dead.origin, dead.body)
        return True

    async def drop(self, name: str, ids: Sequence[str]) -> int:
        found = self._find(name)
        before = len(found.dead)
        found.dead = [message for message in found.dead if message.id not in ids]
        return before - len(found.dead)

    async def send(self, name: str, body: bytes) -> None:
        self._add(self._find(name), "inbox", body)

    async def read(
        self, names: Sequence[str], actor: str, count: int, block_ms: int
    ) -> list[Entry]:
        entries = self._take_new(names, actor, count)
        if not entries and block_ms:
            await self._arrived(block_ms)
            entries = self._take_new(names, actor, count)
        return entries

    def _take_new(self, names: Sequence[str], actor: str, count: int) -> list[Entry]:
        taken = []
        for name in names:
            fresh = [(i, x) for i, x in self._queue(name, "inbox").items() if x.holder is None]
            taken += [self._hold(name, i, item, actor) for i, item in fresh[:count]]
        return taken

    def _hold(self, name: str, entry_id: int, item: _Item, holder: str) -> Entry:
        item.holder, item.touched_ms = holder, self._now_ms()
        return Entry(name, str(entry_id), item.at_ms, item.body)

    async def pending(self, name: str, actor: str, count: int) -> list[Entry]:
        mine = [(i, x) for i, x in self._queue(name, "inbox").items() if x.holder == actor]
        return [Entry(name, str(i), item.at_ms, item.body) for i, item in mine[:count]]

    async def take_over(self, name: str, actor: str, idle_ms: int, count: int) -> list[Entry]:
        idle = self._idle(name, "inbox", idle_ms)
        return [self._hold(name, i, item, actor) for i, item in idle[:count]]

    def _idle(self, name: str, queue: str, idle_ms: int) -> list[tuple[int, _Item]]:
        now = self._now_ms()
        return [
            (i, item)
            for i, item in self._queue(name, queue).items()
            if item.holder is not None and now - item.touched_ms >= idle_ms
        ]

    async def commit(self, name: str, actor: str, commit: Commit) -> str | None:
        found = self._all.get(name)
        if found is None or found.token != commit.version:
            return None
        inbox = found.queues["inbox"]
        held = [inbox.get(int(entry_id)) for entry_id in commit.entries]
        if any(item is None or item.holder != actor for item in held):
            return None
        found.meta.update(commit.meta)
        for index, fields in commit.slots.items():
            found.slots.setdefault(index, {}).update(fields)
        for body in commit.trials:
            self._add(found, "trials", body)
        found.history += [(self._next(), line) for line in commit.history]
        del found.history[: -commit.history_keep]
        for entry_id in commit.entries:
            del inbox[int(entry_id)]
        for checkpoint in commit.garbage:
            found.garbage.setdefault(checkpoint, self._now_ms())
        found.version, found.nonce = found.version + 1, commit.nonce
        return found.token

    async def bury(self, name: str, queue: str, unusable: Sequence[tuple[str, str, bytes]]) -> int:
        items, n = self._queue(name, queue), 0
        for entry_id, reason, body in unusable:
            item = items.get(int(entry_id))
            if item is None or item.holder is None:
                continue
            del items[int(entry_id)]
            kept = Dead(str(self._next()), queue, reason, body[:MAX_DEAD_BODY], len(body))
            self._all[name].dead.append(kept)
            del self._all[name].dead[:-MAX_DEAD]
            n += 1
        return n

    async def tick(self, name: str, body: bytes, every_ms: int) -> bool:
        found, now = self._find(name), self._now_ms()
        if found.ticked_ms is not None and now - found.ticked_ms < every_ms:
            return False
        found.ticked_ms = now
        self._add(found, "inbox", body)
        return True

    async def sweep(
        self, name: str, actor: str, idle_ms: int, count: int, worker: str | None = None
    ) -> list[tuple[Lease, str]]:
        swept = []
        idle = self._idle(name, "trials", idle_ms)
        if worker is not None:
            idle = [(i, item) for i, item in idle if item.holder == worker]
        for entry_id, item in idle[:count]:
            last = item.holder or ""
            self._hold(name, entry_id, item, actor)
            swept.append((Lease(name, str(entry_id), actor, item.body), last))
        return swept

    async def outstanding(self, name: str) -> Outstanding:
        found = self._find(name)
        trials, inbox = (
            [item.body for item in found.queues[queue].values()] for queue in ("trials", "inbox")
        )
        return Outstanding(found.token, trials, inbox)

    async def lease(self, names: Sequence[str], worker: str, block_ms: int) -> Lease | None:
        lease = self._take_trial(names, worker)
        if lease is None and block_ms:
            await self._arrived(block_ms)
            lease = self._take_trial(names, worker)
        return lease

    def _take_trial(self, names: Sequence[str], worker: str) -> Lease | None:
        for name in names:
            for entry_id, item in self._queue(name, "trials").items():
                if item.holder is None:
                    self._hold(name, entry_id, item, worker)
                    return Lease(name, str(entry_id), worker, item.body)
        return None

    def _held(self, lease: Lease) -> _Item | None:
        item = self._queue(lease.experiment, "trials").get(int(lease.id))
        return item if item is not None and item.holder == lease.worker else None

    async def beat(self, lease: Lease, slot: int, trial: str, presence: Mapping[str, Any]) -> Beat:
        if lease.experiment not in self._all:
            return Beat(kept=False, status="")
        await self.present([lease.experiment], lease.worker, presence)
        item = self._held(lease)
        if item is not None:
            item.touched_ms = self._now_ms()
        found = self._all[lease.experiment]
        settled = found.settled.get(slot, "")
        outdated = settled.startswith(f"{trial}#") and " result " in settled
        return Beat(item is not None, found.meta["status"], outdated)

    async def settle(self, lease: Lease, slot: int, token: str, body: bytes) -> bool:
        if lease.experiment not in self._all:
            return False
        found = self._all[lease.experiment]
        if self._held(lease) is None:
            return found.settled.get(slot) == token
        self._add(found, "inbox", body)
        found.settled[slot] = token
        del found.queues["trials"][int(lease.id)]
        return True

    async def present(self, names: Sequence[str], worker: str, presence: Mapping[str, Any]) -> None:
        for name in names:
            if name in self._all and presence:
                seen = {**presence, "seen_ms": self._now_ms()}
                self._all[name].workers[worker] = seen
            elif name in self._all:
                self._all[name].workers.pop(worker, None)

    async def garbage(self, name: str, older_ms: int, count: int) -> list[str]:
        garbage = self._all[name].garbage if name in self._all else {}
        limit = self._now_ms() - older_ms
        return [checkpoint for checkpoint, at_ms in garbage.items() if at_ms <= limit][:count]

    async def forget(self, name: str, checkpoints: Sequence[str]) -> None:
        for checkpoint in checkpoints if name in self._all else ():
            self._all[name].garbage.pop(checkpoint, None)

    async def workers(self, name: str) -> dict[str, dict[str, Any]]:
        now = self._now_ms()
        found = self._all[name].workers if name in self._all else {}
        return {
            worker: {
                **{key: value for key, value in presence.items() if key != "seen_ms"},
                "age_ms": max(0, now - presence["seen_ms"]),
            }
            for worker, presence in found.items()
        }

    async def leases(self, name: str) -> dict[str, str]:
        trials = self._queue(name, "trials")
        return {str(i): item.holder for i, item in trials.items() if item.holder is not None}

    async def depths(self, name: str) -> dict[str, int]:
        if name not in self._all:
            return {"inbox": 0, "trials": 0, "history": 0, "dead": 0}
        found = self._all[name]
        return {
            "inbox": len(found.queues["inbox"]),
            "trials": len(found.queues["trials"]),
            "history": len(found.history),
            "dead": len(found.dead),
        }

    async def check(self) -> list[str]:
        return []

    async def close(self) -> None:
        return None
