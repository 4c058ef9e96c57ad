"""The operator's methods of the store in memory."""

from collections.abc import Sequence

from romul_actors.errors import ExperimentExistsError
from romul_actors.store.keys import GROUPS
from romul_actors.store.memory.queues import MemoryQueues
from romul_actors.store.memory.reader import MemoryReader
from romul_actors.store.memory.state import StoredExperiment
from romul_actors.store.roles import OperatorStore
from romul_actors.store.values import DeadLetter


class MemoryOperator(MemoryReader, MemoryQueues, OperatorStore):
    """Creates and removes experiments; resubmits and deletes dead letters."""

    async def create(self, name: str, spec: str, submitted: bytes) -> None:
        memory = self.memory
        if name in memory.experiments:
            raise ExperimentExistsError.of(name)
        meta = {"status": "submitted", "slots": "0"}
        memory.experiments[name] = StoredExperiment(spec, memory.next_id(), meta)
        memory.experiments = dict(sorted(memory.experiments.items()))
        memory.add(name, "inbox", submitted)

    async def remove(self, name: str) -> bool:
        return self.memory.experiments.pop(name, None) is not None

    async def resubmit(self, name: str, dead: DeadLetter) -> bool:
        if dead.origin not in GROUPS or not await self.drop(name, [dead.id]):
            return False
        self.memory.add(name, dead.origin, dead.body)
        return True

    async def drop(self, name: str, ids: Sequence[str]) -> int:
        found = self.memory.find(name)
        before = len(found.dead)
        found.dead = [message for message in found.dead if message.id not in ids]
        return before - len(found.dead)
