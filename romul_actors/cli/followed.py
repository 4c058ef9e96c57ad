"""A search that a command follows: its server may hang, come back, or be another one by then."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from romul_actors.cli.connection import connected_to, folder_of_search
from romul_actors.cli.options import DEFAULT_URL
from romul_actors.cli.printing import echo
from romul_actors.errors import StoreUnavailableError
from romul_actors.local.redis_server import URL_FILE, listens
from romul_actors.local.run_file import resumption
from romul_actors.store import Store
from romul_actors.store.redis.urls import hide_password
from romul_actors.waiting import cancel

PATIENCE_S = 3.0
"""A request that takes longer is said to have no answer yet. It goes on."""
FIRST_PATIENCE_S = 1.0
"""A server that takes longer for its first answer is named: nothing is shown yet."""
PAUSE_S = 0.5
"""Pause before a request is made again that has failed."""

T = TypeVar("T")


class Followed:
    """A search on its server.

    Args:
        name: the search's.
        url: as the option --redis takes it.
        stack: what closes the connections.

    Attributes:
        store: where the search is now.
    """

    store: Store

    def __init__(self, name: str, url: str | None, stack: contextlib.AsyncExitStack) -> None:
        self._name = name
        self._url = url
        self._stack = stack
        self._folder = folder_of_search(name, url)
        self._server = ""

    async def connect(self) -> None:
        """Connect to the server as it is now.

        Raises:
            StoreError: it cannot be used.
        """
        client = await self._stack.enter_async_context(connected_to(self._name, self._url))
        self.store = client.store
        self._server = "" if self._folder is None else _stored_url(self._folder)

    def say_it_waits(self) -> None:
        """Name the server that is waited for, on standard error."""
        place = self._folder or hide_password(self._url or DEFAULT_URL)
        echo(f"waiting for the server at {place}", err=True)

    async def look(
        self, request: Callable[[Store], Awaitable[T]], silent: Callable[[str], None]
    ) -> T:
        """What the server answers, however long that takes.

        Args:
            request: what is asked of the store.
            silent: called with the reason where there is no answer yet, maybe more than once.

        Raises:
            StoreUnavailableError: the search's local run has ended; the message names the command
                that goes on with it.
        """
        while True:
            asked = asyncio.ensure_future(request(self.store))
            try:
                if not (await asyncio.wait((asked,), timeout=PATIENCE_S))[0]:
                    silent("the server does not answer")
                return await asked
            except StoreUnavailableError as error:
                if await self._is_elsewhere():
                    continue
                silent(str(error))
                await asyncio.sleep(PAUSE_S)
            finally:
                if not asked.done():
                    await cancel(asked)

    async def _is_elsewhere(self) -> bool:
        """Connect to the server that a local run has since it was resumed, if it was.

        Raises:
            StoreUnavailableError: the run has ended.
        """
        if self._folder is None:
            return False
        server = _stored_url(self._folder)
        # A server that was killed leaves its URL. One that only hangs still listens.
        if not listens(server):
            raise StoreUnavailableError(
                f"{self._folder}: the run has ended, and its server with it: "
                f"`{resumption(self._folder)}` goes on with it"
            )
        if server == self._server:
            return False
        await self.connect()
        return True


def _stored_url(folder: Path) -> str:
    """URL of a local run's server, as its folder has it; "": the run was ended."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / URL_FILE).read_text().strip()
    return ""


@contextlib.asynccontextmanager
async def following(name: str, url: str | None) -> AsyncIterator[Followed]:
    """A search whose server is connected, and has answered; where that takes long, it is named.

    Args:
        name: the search's.
        url: as the option --redis takes it.

    Raises:
        StoreError: the server cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        followed = Followed(name, url, stack)
        # A thread: a local run's server is looked for in calls that hold up the event loop.
        waits = threading.Timer(FIRST_PATIENCE_S, followed.say_it_waits)
        waits.daemon = True
        waits.start()
        try:
            await followed.connect()
        finally:
            waits.cancel()
        yield followed
