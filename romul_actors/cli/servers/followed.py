"""A search that a command follows, while its server may hang, restart or be replaced."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from romul_actors.cli.options.shared import DEFAULT_URL
from romul_actors.cli.output.printing import echo
from romul_actors.cli.servers.connection import connected_to, folder_of_search
from romul_actors.errors import StoreUnavailableError
from romul_actors.local.redis_server import URL_FILE, listens
from romul_actors.local.run_file import resumption
from romul_actors.store import Store
from romul_actors.store.redis.urls import hide_password
from romul_actors.waiting import cancel

PATIENCE_S = 3.0
"""After this time without an answer a message is shown, and the request continues."""
FIRST_PATIENCE_S = 1.0
"""After this time without a first answer the server is named, since nothing is shown yet."""
PAUSE_S = 0.5
"""Pause before a failed request is repeated."""

LINES = 2_000
"""Maximum number of lines of history read at a time."""

T = TypeVar("T")


class Followed:
    """A search on its server.

    Args:
        name: the search's name.
        url: as the option --redis takes it.
        stack: closes the connections.

    Attributes:
        store: the store that holds the search now.
        ended: says that the local run of the search has ended, once `look_to_the_end` has found
            that out. None before.
    """

    store: Store
    ended: StoreUnavailableError | None

    def __init__(self, name: str, url: str | None, stack: contextlib.AsyncExitStack) -> None:
        self._name = name
        self._url = url
        self._stack = stack
        self._folder = folder_of_search(name, url)
        self._server = ""
        self.ended = None

    async def connect(self) -> None:
        """Connect to the server as it is now.

        Raises:
            StoreError: the server cannot be used.
        """
        client = await self._stack.enter_async_context(connected_to(self._name, self._url))
        self.store = client.store
        self._server = "" if self._folder is None else _stored_url(self._folder)

    def say_it_waits(self) -> None:
        """Print on standard error which server the command waits for."""
        place = self._folder or hide_password(self._url or DEFAULT_URL)
        echo(f"waiting for the server at {place}", err=True)

    async def look(
        self, request: Callable[[Store], Awaitable[T]], silent: Callable[[str], None]
    ) -> T:
        """The server's answer to a request, however long it takes.

        Args:
            request: makes the request of the store.
            silent: called with the reason while there is no answer, possibly more than once.

        Raises:
            StoreUnavailableError: the search's local run has ended; the message names the command
                that continues it.
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

    async def look_to_the_end(
        self, request: Callable[[Store], Awaitable[T]], silent: Callable[[str], None]
    ) -> T:
        """The same for a search that is followed to its end; for the arguments, see `look`.

        A local run may end, and its server with it, between two requests. From then on the server
        is started here, so the answers come from what the run has stored, and `ended` is set.

        Raises:
            StoreError: the server cannot be started.
        """
        try:
            return await self.look(request, silent)
        except StoreUnavailableError as error:
            if self.ended is not None:
                raise
            await self.connect()
            self.ended = error
            return await request(self.store)

    async def _is_elsewhere(self) -> bool:
        """Connect to the new server of a local run that was resumed, if it was.

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
                f"`{resumption(self._folder)}` continues it"
            )
        if server == self._server:
            return False
        await self.connect()
        return True


def _stored_url(folder: Path) -> str:
    """URL of a local run's server, as stored in its folder; "" if the run was ended."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / URL_FILE).read_text().strip()
    return ""


@contextlib.asynccontextmanager
async def following(name: str, url: str | None) -> AsyncIterator[Followed]:
    """A search whose server has answered. If that takes long, a message names the server.

    Args:
        name: the search's name.
        url: as the option --redis takes it.

    Raises:
        StoreError: the server cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        followed = Followed(name, url, stack)
        # A thread, since the search for a local run's server blocks the event loop.
        waits = threading.Timer(FIRST_PATIENCE_S, followed.say_it_waits)
        waits.daemon = True
        waits.start()
        try:
            await followed.connect()
        finally:
            waits.cancel()
        yield followed
