"""The server and the broker that a command's options name, and a client of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from romul_actors.cli.options import DEFAULT_URL
from romul_actors.cli.printing import Console
from romul_actors.client import Client
from romul_actors.errors import (
    StoreError,
    StoreUnavailableError,
    UnknownExperimentError,
    UnknownSlotError,
)
from romul_actors.local.address import resolve, resolve_broker
from romul_actors.local.redis_server import URL_FILE, embedded_server, has_data, is_up
from romul_actors.local.run_file import holds_run, run_folder
from romul_actors.mqtt.broker import Broker
from romul_actors.observe.snapshot import Snapshot, full_snapshot

MOST_NAMES = 10
"""Most experiments that an error lists."""


def broker(url: str | None, ca: Path | None, keepalive_s: int) -> Broker | None:
    """The broker that the options name, if any.

    Raises:
        BrokerError: the URL is wrong.
    """
    return None if url is None else Broker.parse(resolve_broker(url), ca, keepalive_s)


@contextlib.asynccontextmanager
async def connected(
    url: str,
    console: Console | None = None,
    *,
    by: str | None = None,
    broker: Broker | None = None,
) -> AsyncIterator[Client]:
    """A client of a checked store, whose warnings are printed.

    Args:
        url: as the option --redis takes it.
        console: where warnings go; standard error if left out.
        by: the user, as history names them; the name of the process's user if left out.
        broker: what workers are drained over.

    Raises:
        StoreError: the server cannot be used.
    """
    async with Client.connect(resolve(url), by=by, broker=broker) as client:
        try:
            warnings = await client.check()
        except StoreUnavailableError as error:
            if url != DEFAULT_URL:
                raise
            raise StoreUnavailableError(f"{error}{_local_runs()}") from None
        for warning in warnings:
            (console or Console(stderr=True)).print(f"warning: {warning}")
        try:
            yield client
        except UnknownExperimentError as error:
            if isinstance(error, UnknownSlotError):
                raise
            raise UnknownExperimentError(f"{error}; {await _names(client)}") from None


@contextlib.asynccontextmanager
async def connected_to(
    name: str, url: str | None, *, changes: bool = False
) -> AsyncIterator[Client]:
    """A client of the server that holds a search.

    Args:
        name: the search's.
        url: as the option --redis takes it; None: that of the local run of this name, if there is
            one, else the default.
        changes: whether something is asked of the search, which takes an actor. Otherwise the
            server of a local run that has ended is started for as long as the client is used.

    Raises:
        StoreError: the server cannot be used, or a local run has ended and can change no more.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = None if url is not None else local_run(name)
        if folder is None:
            url = url or DEFAULT_URL
        elif is_up(folder):
            url = str(folder)
        elif changes:
            raise StoreError(
                f"{folder}: the run has ended, and nothing decides a request: `romul run --resume "
                f"{name}` goes on with it, `romul extend {name} --steps N` to more steps"
            )
        else:
            url = await stack.enter_async_context(embedded_server(folder))
        yield await stack.enter_async_context(connected(url))


def local_run(name: str) -> Path | None:
    """The folder of the local run of that name that has a server of its own, if there is one."""
    folder = run_folder(name)
    return folder if holds_run(folder) and has_data(folder) else None


async def _names(client: Client) -> str:
    """What to say of the experiments that there are."""
    names = list(await client.statuses())
    if len(names) > MOST_NAMES:
        return "`romul status` lists those that there are"
    return f"there are {', '.join(names)}" if names else "there is none at all"


def _local_runs() -> str:
    """What to say of local runs, whose servers are their own, where no server was named."""
    runs = [folder for folder in Path("runs").glob("*") if holds_run(folder)]
    if not runs:
        return ""
    up = [folder for folder in runs if (folder / URL_FILE).is_file()]
    latest = max(up or runs, key=lambda folder: folder.stat().st_mtime)
    first = "" if up else f"`romul serve {latest}` starts it again; then "
    return f" A local run has a server of its own: {first}--redis {latest}"


def snapshot_of(name: str, url: str | None) -> Snapshot:
    """An experiment with all its history.

    Raises:
        UnknownExperimentError: there is none of that name.
    """

    async def run() -> Snapshot:
        async with connected_to(name, url) as client:
            return await full_snapshot(client.store, name)

    return asyncio.run(run())
