"""Records when the store last failed to answer in time, and so received no heartbeats."""

import asyncio
from collections.abc import Awaitable
from math import inf
from typing import TypeVar

from romul_actors.actor.timing import SILENCE_S

T = TypeVar("T")


class Silence:
    """The store's last silence, as seen by one actor."""

    def __init__(self) -> None:
        self._last_s = -inf

    async def timed(self, call: Awaitable[T], wait_s: float = 0.0) -> T:
        """Await a call of the store that may block for `wait_s`, and note if the store was silent.

        The duration is measured because the client retries for up to a minute without an error.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            return await call
        finally:
            if loop.time() - began_s >= wait_s + SILENCE_S:
                self.note()

    def note(self) -> None:
        """Record that the store did not answer until now."""
        self._last_s = asyncio.get_running_loop().time()

    def over_s(self) -> float:
        """Seconds since the last silence ended; infinite if there was none."""
        return asyncio.get_running_loop().time() - self._last_s
