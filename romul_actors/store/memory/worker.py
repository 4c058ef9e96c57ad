"""The worker's methods of the store in memory."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from romul_actors.store.memory.queues import MemoryQueues, leased
from romul_actors.store.memory.state import Item
from romul_actors.store.roles import WorkerStore
from romul_actors.store.values import MAX_LOG, MAX_LOGS, Beat, Lease, Output


class MemoryWorker(MemoryQueues, WorkerStore):
    """Leases, heartbeats, outputs of tasks, and garbage."""

    async def lease(
        self, names: Sequence[str], worker: str, block_ms: int, holding: Sequence[str] = ()
    ) -> Lease | None:
        lease = self._lease_now(names, worker, holding)
        if lease is None and block_ms:
            await self.memory.arrival("trials", names, block_ms, worker, holding)
            lease = self._lease_now(names, worker, holding)
        return lease

    def _lease_now(self, names: Sequence[str], worker: str, holding: Sequence[str]) -> Lease | None:
        for name in holding:
            found = self.memory.experiments.get(name)
            if found is not None and worker in found.offers:
                offer = found.withdraw(worker, self.memory.now_ms())
                entry_id = self.memory.next_id()
                found.trials.fresh[entry_id] = Item(offer.body, self.memory.now_ms())
                found.trials.take(entry_id, worker, self.memory.now_ms())
                return Lease(name, str(entry_id), worker, offer.body)
        experiments = self.memory.experiments
        for name in names:
            found = experiments.get(name)
            if found is not None and found.trials.fresh:
                entry_id = next(iter(found.trials.fresh))
                item = found.trials.take(entry_id, worker, self.memory.now_ms())
                return Lease(name, str(entry_id), worker, item.body)
        return None

    async def put_back(self, lease: Lease) -> bool:
        if leased(self.memory, lease) is None:
            return False
        self.memory.queue(lease.experiment, "trials").drop(int(lease.id))
        self.memory.add(lease.experiment, "trials", lease.body)
        return True

    async def beat(self, lease: Lease, slot: int, trial: str, presence: Mapping[str, Any]) -> Beat:
        found = self.memory.experiments.get(lease.experiment)
        if found is None:
            return Beat(kept=False, status="")
        now_ms, entry_id = self.memory.now_ms(), int(lease.id)
        _, before = found.workers.get(lease.worker, (0, {}))
        if presence:
            found.workers[lease.worker] = now_ms, presence
        else:
            await self.present([lease.experiment], lease.worker, {})
        item = found.trials.pending.get(entry_id)
        kept = item is not None and item.holder == lease.worker
        if kept:
            found.trials.touch(entry_id, now_ms)
        # Only the last token counts: an earlier one may belong to a result that did not count.
        settled = found.settled.get(slot, "").rpartition("\n")[2]
        outdated = settled.startswith(f"{trial}#") and " result " in settled
        return Beat(kept, found.meta["status"], outdated, before)

    async def write_output(self, name: str, output: Output) -> None:
        found = self.memory.experiments.get(name)
        if found is not None:
            found.outputs.append(replace(output, text=output.text[-MAX_LOG:]))
            del found.outputs[:-MAX_LOGS]

    async def garbage(self, name: str, older_ms: int, count: int) -> list[str]:
        garbage = self.memory.look(name).garbage
        limit = self.memory.now_ms() - older_ms
        # The list is ordered by time.
        old = itertools.takewhile(lambda checkpoint: garbage[checkpoint] <= limit, garbage)
        return list(itertools.islice(old, count))

    async def forget(self, name: str, checkpoints: Sequence[str]) -> None:
        garbage = self.memory.look(name).garbage
        for checkpoint in checkpoints:
            garbage.pop(checkpoint, None)
