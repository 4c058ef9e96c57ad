"""The methods of all roles of the store in memory."""

from romul_actors.store.memory.state import Memory
from romul_actors.store.roles import CatalogStore


class MemoryCatalog(CatalogStore):
    """Reads the list of experiments and their declarations.

    Args:
        memory: the data, which all roles share.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    async def experiments(self) -> dict[str, str]:
        return {name: found.meta["status"] for name, found in self.memory.experiments.items()}

    async def spec(self, name: str) -> str:
        return self.memory.find(name).spec

    async def protocol(self, name: str) -> str:
        return self.memory.look(name).meta.get("protocol", "")

    async def reported(self, name: str) -> int:
        return int(self.memory.look(name).meta.get("reported", 0))

    async def check(self) -> list[str]:
        return []

    async def close(self) -> None:
        return None
