"""The server and the broker that a command's options give, and a client of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from romul_actors.actor.timing import collect_rarely
from romul_actors.cli.options.shared import DEFAULT_URL
from romul_actors.cli.output.printing import Console
from romul_actors.client import Client
from romul_actors.errors import (
    StoreError,
    StoreUnavailableError,
    UnknownExperimentError,
    UnknownSlotError,
    UnknownWorkerError,
)
from romul_actors.local.address import broker_url, resolve
from romul_actors.local.redis_server import has_data, is_up, server_of
from romul_actors.local.run_file import (
    check_run,
    extension,
    holds_run,
    local_runs,
    other_runs,
    resumption,
    run_folder,
    runs_folder,
)
from romul_actors.mqtt.broker import Broker
from romul_actors.observe.snapshot import Snapshot, full_snapshot
from romul_actors.protocol.mistakes import did_you_mean
from romul_actors.protocol.statuses import OVER

MOST_NAMES = 10
"""Maximum number of experiments that an error lists."""


def broker(
    url: str | None, ca: Path | None, keepalive_s: int, folder: Path | None = None
) -> Broker | None:
    """The broker that the options give, or else that of a local run, if there is one.

    Args:
        url: as the option --mqtt takes it.
        ca: as the option --mqtt-ca takes it.
        keepalive_s: MQTT keepalive; a connection is lost after 1.5 times this without traffic.
        folder: of the local run.

    Raises:
        BrokerError: the URL is invalid.
    """
    if url is None and folder is not None:
        url = broker_url(str(folder))
    return None if url is None else Broker.parse(url, ca, keepalive_s)


def folder_of(url: str | None) -> Path | None:
    """The folder of a local run that the option --redis gives; None if it gives none."""
    return Path(url) if url is not None and "://" not in url else None


async def run_of_worker(worker: str) -> Path:
    """The folder of the running local run that lists a worker.

    Raises:
        UnknownWorkerError: no run does; the message names existing workers.
    """
    others: list[str] = []
    for folder in filter(is_up, local_runs(runs_folder())):
        async with connected(str(folder)) as client:
            names = await client.statuses()
            there = {worker for name in names for worker in await client.store.workers(name)}
        if worker in there:
            return folder
        others += sorted(there)
    hint = f": {did_you_mean(worker, others)}" if others else ""
    raise UnknownWorkerError(
        f"no running local run has a worker {worker!r}{hint}; for other searches, give the broker "
        "with --mqtt or ROMUL_MQTT_URL"
    )


@contextlib.asynccontextmanager
async def connected(
    url: str,
    console: Console | None = None,
    *,
    by: str | None = None,
    broker: Broker | None = None,
    warns: bool = False,
) -> AsyncIterator[Client]:
    """A client of a checked store.

    Args:
        url: as the option --redis takes it.
        console: prints warnings; default: standard error.
        by: the user that the history records; default: the user of this process.
        broker: the broker through which workers are drained.
        warns: whether to print warnings about the server's settings: for commands that start
            something that the server has to keep.

    Raises:
        StoreError: the server cannot be used.
    """
    async with Client.connect(resolve(url), by=by, broker=broker) as client:
        warnings = await client.check()
        for warning in warnings if warns else ():
            (console or Console(stderr=True)).print(f"warning: {warning}", soft_wrap=True)
        try:
            yield client
        except UnknownExperimentError as error:
            if isinstance(error, UnknownSlotError):
                raise
            raise UnknownExperimentError(f"{error}; {await _names(client)}") from None


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Client]:
    """The same, without warnings; an ended local run's server is started meanwhile.

    Args:
        url: as the option --redis takes it.

    Raises:
        StoreError: the server cannot be used or started.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = folder_of(url)
        if folder is not None and _has_server(folder):
            url = await stack.enter_async_context(server_of(folder))
        yield await stack.enter_async_context(connected(url))


@contextlib.asynccontextmanager
async def connected_to(
    name: str, url: str | None, *, changes: bool = False, runs: Path | None = None
) -> AsyncIterator[Client]:
    """A client of the server that holds a search.

    Args:
        name: the search's name.
        url: as the option --redis takes it; None for the local run of this name, if there is one,
            or else the default server.
        changes: whether a request is made, which needs an actor. Without a request, the server of a
            local run that has ended is started for as long as the client is used.
        runs: the folder of all local runs; None for `runs_folder()`.

    Raises:
        StoreError: the server cannot be used, or a request is made of a local run that has ended.
        UnknownExperimentError: no server was given, there are local runs, but none of that name.
    """
    own = run_folder(name, runs)
    where = _where(own, url)
    folder = folder_of(where)
    if changes and folder is not None and _has_server(folder) and not is_up(folder):
        raise StoreError(
            f"{folder}: the run has ended, so no actor can handle the request: "
            f"{await _going_on(folder, name)}"
        )
    try:
        async with _client(name, where, own) as client:
            yield client
    except UnknownExperimentError as error:
        if isinstance(error, UnknownSlotError) or folder == own or not _has_server(own):
            raise
        raise UnknownExperimentError(f"{error}; {_hidden(own)}") from None


def folder_of_search(name: str, url: str | None) -> Path | None:
    """The folder of the local run that holds a search; None if it is on another server.

    Args:
        name: the search's name.
        url: as the option --redis takes it.
    """
    return folder_of(_where(run_folder(name), url))


def _where(own: Path, url: str | None) -> str:
    """The server or folder that holds a search; `own` is the folder of a local run of its name."""
    return url or (str(own) if _has_server(own) else DEFAULT_URL)


@contextlib.asynccontextmanager
async def _client(name: str, where: str, own: Path) -> AsyncIterator[Client]:
    """A client of the server that `connected_to` found; for `own` see `_where`."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(opened(where))
        except StoreUnavailableError as error:
            others = other_runs(own)
            # A run on a given server has no server of its own.
            if where != DEFAULT_URL or not others or holds_run(own):
                raise
            raise UnknownExperimentError(
                f"no local run {name!r} in {own.parent}: {others}; and no server was found: {error}"
            ) from None
        yield client


async def _going_on(folder: Path, name: str) -> str:
    """The commands that continue a local run that has ended, by how its search ended."""
    async with server_of(folder) as url, connected(url) as client:
        status = (await client.statuses()).get(name)
    if status is None:
        raise UnknownExperimentError(f"{folder} holds no experiment {name!r}")
    if status in OVER:
        return f"the search is {status}: `{extension(folder)}` continues it"
    return f"`{resumption(folder)}` continues it, and `{extension(folder)}` extends it"


def _hidden(folder: Path) -> str:
    """How to see a local run although a server was given."""
    where = f"a local run of that name is in {folder.parent}/"
    return f"{where}: leave out --redis and ROMUL_REDIS_URL to see it"


def local_run(name: str) -> Path | None:
    """The folder of the local run of that name, if there is one with a server of its own."""
    folder = run_folder(name)
    return folder if _has_server(folder) else None


def named_run(text: str) -> Path:
    """The folder of a local run with a server of its own, by the run's name or folder.

    Raises:
        UnknownExperimentError: there is no such run.
        StoreError: its search is on another server.
    """
    folder = Path(text)
    if not (holds_run(folder) or has_data(folder)) and folder.name == text:
        folder = run_folder(text)
    if not has_data(folder):
        check_run(folder)
        raise StoreError(
            f"{folder}: the run has no server of its own: give the server that it was started on "
            "with --redis URL"
        )
    return folder


def _has_server(folder: Path) -> bool:
    """Whether a folder holds a local run with a server of its own."""
    return holds_run(folder) and has_data(folder)


async def _names(client: Client) -> str:
    """A text about the existing experiments."""
    names = list(await client.statuses())
    if len(names) > MOST_NAMES:
        return "`romul status` lists all experiments"
    return f"there are {', '.join(names)}" if names else "there are no experiments"


def snapshot_of(name: str, url: str | None) -> Snapshot:
    """An experiment with its whole history, for a command that shows it once.

    Raises:
        UnknownExperimentError: there is no experiment of that name.
    """
    collect_rarely()

    async def run() -> Snapshot:
        async with connected_to(name, url) as client:
            return await full_snapshot(client.store, name)

    return asyncio.run(run())
