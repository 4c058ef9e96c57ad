"""How long the store has answered in time: meanwhile heartbeats can have reached it."""

import asyncio
from collections.abc import Awaitable
from math import inf
from typing import TypeVar

from romul_actors.actor.timing import SILENCE_S

T = TypeVar("T")


class Silence:
    """The store's last silence, as one actor has seen it; none so far at first."""

    def __init__(self) -> None:
        self._last_s = -inf

    async def heed(self, call: Awaitable[T], wait_s: float = 0.0) -> T:
        """The result of a call of the store, which may wait for `wait_s`; note a silence of it.

        Its client tries again by itself, some seconds to a minute, and raises nothing then.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            return await call
        finally:
            if loop.time() - began_s >= wait_s + SILENCE_S:
                self.note()

    def note(self) -> None:
        """It did not answer, until now."""
        self._last_s = asyncio.get_running_loop().time()

    def over_s(self) -> float:
        """Seconds since it ended."""
        return asyncio.get_running_loop().time() - self._last_s
