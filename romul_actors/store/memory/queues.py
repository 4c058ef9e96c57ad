"""What workers, actors and operators may all do in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from romul_actors.store.memory.catalog import MemoryCatalog
from romul_actors.store.memory.state import Item, Memory
from romul_actors.store.roles import QueueStore
from romul_actors.store.values import MAX_DEAD, MAX_DEAD_BODY, DeadLetter, Lease


def leased(memory: Memory, lease: Lease) -> Item | None:
    """The entry of a lease; None when the lease was lost."""
    item = memory.queue(lease.experiment, "trials").held.get(int(lease.id))
    return item if item is not None and item.holder == lease.worker else None


class MemoryQueues(MemoryCatalog, QueueStore):
    """Messages to the inbox, ends of leases, dead messages and presence."""

    async def send(self, name: str, body: bytes) -> None:
        self.memory.find(name)
        self.memory.add(name, "inbox", body)

    async def settle(self, lease: Lease, slot: int, token: str, body: bytes) -> bool:
        found = self.memory.experiments.get(lease.experiment)
        if found is None:
            return False
        if leased(self.memory, lease) is None:
            return found.settled.get(slot) == token
        self.memory.add(lease.experiment, "inbox", body)
        found.settled[slot] = token
        del found.trials.held[int(lease.id)]
        return True

    async def dead_letter(
        self, name: str, queue: str, unusable: Sequence[tuple[str, str, bytes]]
    ) -> int:
        found = self.memory.experiments.get(name)
        if found is None:
            return 0
        items, n = found.queue(queue).held, 0
        for entry_id, reason, body in unusable:
            if items.pop(int(entry_id), None) is None:
                continue
            dead_id = str(self.memory.next_id())
            found.dead.append(DeadLetter(dead_id, queue, reason, body[:MAX_DEAD_BODY], len(body)))
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
