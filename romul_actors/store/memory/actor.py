"""The actor's methods of the store in memory."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from romul_actors.store.memory.queues import MemoryQueues
from romul_actors.store.memory.reader import MemoryReader
from romul_actors.store.memory.state import Item, Offer
from romul_actors.store.roles import ActorStore
from romul_actors.store.values import Commit, Committed, Entry, Lease

HISTORY_SLACK = 1.1
"""The history is trimmed when it is longer by this factor than it should be."""


class MemoryActor(MemoryReader, MemoryQueues, ActorStore):
    """Reads the inbox, commits decisions, sends ticks, and sweeps lost leases."""

    async def read(
        self, names: Sequence[str], actor: str, count: int, block_ms: int
    ) -> list[Entry]:
        entries = self._read_now(names, actor, count)
        if not entries and block_ms:
            await self.memory.arrival("inbox", names, block_ms)
            entries = self._read_now(names, actor, count)
        return entries

    def _read_now(self, names: Sequence[str], actor: str, count: int) -> list[Entry]:
        entries: list[Entry] = []
        experiments = self.memory.experiments
        for name in names:
            found = experiments.get(name)
            # With many experiments, most have no new entries.
            if found is not None and found.inbox.fresh:
                now = self.memory.now_ms()
                fresh = list(itertools.islice(found.inbox.fresh, count))
                entries += [_entry(name, i, found.inbox.take(i, actor, now)) for i in fresh]
        return entries

    async def pending(self, name: str, actor: str, count: int) -> list[Entry]:
        pending = self.memory.queue(name, "inbox").pending
        mine = sorted((i, item) for i, item in pending.items() if item.holder == actor)
        return [_entry(name, i, item) for i, item in mine[:count]]

    async def take_over(self, name: str, actor: str, idle_ms: int, count: int) -> list[Entry]:
        inbox, now = self.memory.queue(name, "inbox"), self.memory.now_ms()
        idle = sorted(inbox.idle(now - idle_ms))[:count]
        return [_entry(name, i, inbox.take(i, actor, now)) for i in idle]

    async def commit(self, name: str, actor: str, commit: Commit) -> Committed | None:
        memory = self.memory
        found = memory.experiments.get(name)
        if found is None or found.token != commit.version:
            return None
        inbox = found.inbox
        for entry_id in commit.entries:
            item = inbox.pending.get(int(entry_id))
            if item is None or item.holder != actor:
                return None
        found.meta.update(commit.meta)
        found.spec = found.meta.pop("spec", found.spec)
        for index, fields in commit.slots.items():
            found.slots.setdefault(index, {}).update(fields)
        longest: int | None = None
        parents = commit.parents or [""] * len(commit.trials)
        for body, parent in zip(commit.trials, parents, strict=True):
            worker = found.offer_to(parent) if parent else None
            if worker is None:
                memory.add(name, "trials", body)
                continue
            for_ms = found.holds[worker].for_ms
            found.offers[worker] = Offer(body, memory.now_ms(), for_ms)
            found.affinity = replace(found.affinity, offers=found.affinity.offers + 1)
            longest = max(for_ms, longest or 0)
            memory.ring(name, worker)
        found.history += [(memory.next_id(), line) for line in commit.history]
        if len(found.history) > HISTORY_SLACK * commit.history_keep:
            del found.history[: -commit.history_keep]
        for entry_id in commit.entries:
            inbox.drop(int(entry_id))
        for checkpoint in commit.garbage:
            found.garbage.setdefault(checkpoint, memory.now_ms())
        found.version, found.nonce = found.version + 1, commit.nonce
        return Committed(found.token, longest)

    async def release_offers(self, name: str) -> int | None:
        return self._release(name, None)

    def _release(self, name: str, gone: str | None) -> int | None:
        now, offers = self.memory.now_ms(), self.memory.look(name).offers
        for each, offer in list(offers.items()):
            if each == gone or offer.at_ms + offer.for_ms <= now:
                self.release_to_all(name, each)
        left = [offer.at_ms + offer.for_ms - now for offer in offers.values()]
        return min(left, default=None)

    async def tick(self, name: str, body: bytes, every_ms: int) -> bool:
        found, now = self.memory.find(name), self.memory.now_ms()
        if found.ticked_ms is not None and now - found.ticked_ms < every_ms:
            return False
        found.ticked_ms = now
        self.memory.add(name, "inbox", body)
        return True

    async def forget_readers(self, name: str, idle_ms: int, reader: str = "") -> None:
        """Do nothing: readers without pending entries are not listed here."""

    async def set_fault(self, name: str, fault: str) -> None:
        found = self.memory.experiments.get(name)
        if found is not None and fault:
            found.meta["fault"] = fault
        elif found is not None:
            found.meta.pop("fault", None)

    async def sweep(
        self,
        name: str,
        actor: str,
        idle_ms: int,
        count: int,
        worker: str | None = None,
        version: str = "",
    ) -> list[tuple[Lease, str]]:
        self._release(name, worker)
        trials, now = self.memory.queue(name, "trials"), self.memory.now_ms()
        if worker is not None and worker not in trials.holders:
            return []
        if version and version.partition(".")[0] != str(self.memory.look(name).epoch):
            return []
        swept: list[tuple[Lease, str]] = []
        for entry_id in trials.idle(now - idle_ms):
            last = trials.pending[entry_id].holder or ""
            if worker not in (None, last):
                continue
            item = trials.take(entry_id, actor, now)
            swept.append((Lease(name, str(entry_id), actor, item.body), last))
            if len(swept) == count:
                break
        return swept


def _entry(name: str, entry_id: int, item: Item) -> Entry:
    return Entry(name, str(entry_id), item.at_ms, item.body)
