"""The methods that workers, actors and operators share, of the store in memory."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from romul_actors.store.keys import LEASES
from romul_actors.store.memory.catalog import MemoryCatalog
from romul_actors.store.memory.state import Item, Memory, StoredExperiment
from romul_actors.store.roles import QueueStore
from romul_actors.store.values import MAX_DEAD, MAX_DEAD_BODY, DeadLetter, Hold, Lease


def leased(memory: Memory, lease: Lease) -> Item | None:
    """The entry of a lease; None if the lease was lost."""
    item = memory.queue(lease.experiment, "trials").pending.get(int(lease.id))
    return item if item is not None and item.holder == lease.worker else None


KEPT_ENDS = 8
"""Maximal number of tokens that are kept for the last trial of a slot."""


def _step(token: str) -> int:
    """The step of the trial in a token."""
    found = re.match(r"\d+-(\d+)#", token)
    return int(found[1]) if found else 0


class MemoryQueues(MemoryCatalog, QueueStore):
    """Sends messages to the inbox, ends leases, and stores dead letters and presence."""

    async def send(self, name: str, body: bytes) -> None:
        self.memory.find(name)
        self.memory.add(name, "inbox", body)

    async def settle(
        self, lease: Lease, slot: int, token: str, body: bytes, hold: Hold | None = None
    ) -> bool | None:
        found = self.memory.experiments.get(lease.experiment)
        if found is None:
            return False
        before = found.settled.get(slot, "")
        same = before.partition("#")[0] == token.partition("#")[0]
        if leased(self.memory, lease) is None:
            if same:
                return token in before.split("\n")
            return None if _step(before) > _step(token) else False
        self.memory.add(lease.experiment, "inbox", body)
        kept = before.split("\n")[1 - KEPT_ENDS :] if same else []
        found.settled[slot] = "\n".join([*kept, token])
        found.trials.drop(int(lease.id))
        if hold is not None:
            self._hold(found, lease.worker, hold)
        return True

    def _hold(self, found: StoredExperiment, worker: str, hold: Hold) -> None:
        """Record what a worker has in memory."""
        found.holds.pop(worker, None)
        if hold.checkpoint:
            found.holds[worker] = hold
        if hold.warm is not None:
            counts = found.affinity
            found.affinity = replace(
                counts, restores=counts.restores + 1, warm=counts.warm + int(hold.warm)
            )

    async def dead_letter(
        self, name: str, queue: str, unusable: Sequence[tuple[str, str, bytes]]
    ) -> int:
        found = self.memory.experiments.get(name)
        if found is None:
            return 0
        items, n = found.queue(queue), 0
        for entry_id, reason, body in unusable:
            if items.drop(int(entry_id)) is None:
                continue
            dead_id = str(self.memory.next_id())
            origin = "trials" if queue in LEASES else queue
            found.dead.append(DeadLetter(dead_id, origin, reason, body[:MAX_DEAD_BODY], len(body)))
            del found.dead[:-MAX_DEAD]
            n += 1
        return n

    async def present(self, names: Sequence[str], worker: str, presence: Mapping[str, Any]) -> None:
        for name in names:
            found = self.memory.experiments.get(name)
            if found is None:
                continue
            if presence:
                found.workers[worker] = (self.memory.now_ms(), presence)
            else:
                found.workers.pop(worker, None)
                found.holds.pop(worker, None)
                self.release_to_all(name, worker)

    def release_to_all(self, name: str, worker: str) -> None:
        """Put the trial that is offered to a worker, if any, into the queue."""
        found = self.memory.experiments.get(name)
        if found is not None and worker in found.offers:
            offer = found.withdraw(worker, self.memory.now_ms())
            found.affinity = replace(found.affinity, released=found.affinity.released + 1)
            self.memory.add(name, "trials", offer.body)
