"""The feeds of all experiments that pages show at present, one for each experiment."""

import asyncio

from romul_actors.dashboard.feed import Feed
from romul_actors.errors import RomulError, UnknownExperimentError
from romul_actors.store import Store
from romul_actors.waiting import cancel

REFRESH_S = 2.0
"""Interval of a feed's refreshes, and at which a page's figures are sent."""
FORGET_S = 30.0
"""A feed that no page has requested for this time is dropped."""


class Feeds:
    """Feeds by experiment, each refreshed as long as pages request it.

    Args:
        store: the store that holds the experiments.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._feeds: dict[str, Feed] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._requested_s: dict[str, float] = {}

    def request(self, name: str) -> Feed:
        """The feed of an experiment; a page that shows it must call this repeatedly."""
        self._requested_s[name] = asyncio.get_running_loop().time()
        if name not in self._feeds:
            self._feeds[name] = Feed(self._store, name)
            self._tasks[name] = asyncio.create_task(self._refresh(name))
        return self._feeds[name]

    async def _refresh(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            while loop.time() - self._requested_s[name] < FORGET_S:
                await self._refresh_once(name)
                # A slow refresh is done less often.
                await asyncio.sleep(max(REFRESH_S, 20 * self._feeds[name].took_s))
        finally:
            del self._feeds[name], self._tasks[name], self._requested_s[name]

    async def _refresh_once(self, name: str) -> None:
        """Refresh a feed, or record in it why that failed."""
        error = ""
        try:
            await self._feeds[name].refresh()
        except UnknownExperimentError as unknown:
            # It no longer exists; another one of its name has its own history.
            error, self._feeds[name] = str(unknown), Feed(self._store, name)
        except RomulError as failure:
            error = str(failure)
        self._feeds[name].error = error

    async def close(self) -> None:
        """Stop all refreshes."""
        await cancel(*self._tasks.values())
