"""The store in memory, for the simulator and for tests: the same guarantees, within one process.

Each role has a class, which works by itself on a `Memory`; `MemoryStore` combines them.
"""

import time
from collections.abc import Callable

from romul_actors.store.memory.actor import MemoryActor
from romul_actors.store.memory.operator import MemoryOperator
from romul_actors.store.memory.state import Memory
from romul_actors.store.memory.worker import MemoryWorker
from romul_actors.store.roles import Store

__all__ = ["MemoryStore"]


class MemoryStore(MemoryOperator, MemoryActor, MemoryWorker, Store):
    """A store in this process; see `Store`.

    Args:
        now_ms: clock, in milliseconds; it may be simulated.
    """

    def __init__(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        super().__init__(Memory(now_ms))
