"""The feeds of all experiments that are shown at present, one for each, whatever shows it."""

import asyncio
import contextlib

from romul_actors.dashboard.feed import Feed
from romul_actors.errors import StoreError
from romul_actors.store import Store
from romul_actors.waiting import cancel

REFRESH_S = 2.0
"""How often a feed is refreshed, and the figures of a page are sent."""
FORGET_S = 30.0
"""A feed that no page has requested for so long is dropped."""


class Feeds:
    """Feeds by experiment, each refreshed while a page requests it.

    Args:
        store: where the experiments are stored.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}
        self._requested_s: dict[str, float] = {}

    def request(self, name: str) -> Feed:
        """The feed of an experiment; a page that shows it requests it again and again."""
        self._requested_s[name] = asyncio.get_running_loop().time()
        if name not in self._feeds:
            feed = Feed(self._store, name)
            self._feeds[name] = (feed, asyncio.create_task(self._refresh(feed)))
        return self._feeds[name][0]

    async def _refresh(self, feed: Feed) -> None:
        loop = asyncio.get_running_loop()
        try:
            while loop.time() - self._requested_s[feed.name] < FORGET_S:
                with contextlib.suppress(StoreError):
                    await feed.refresh()
                # A refresh that takes long is done less often.
                await asyncio.sleep(max(REFRESH_S, 20 * feed.took_s))
        finally:
            del self._feeds[feed.name]

    async def close(self) -> None:
        """Stop all refreshes."""
        await cancel(*(task for _, task in self._feeds.values()))
