"""The server and the broker that a command's options name, and a client of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from romul_actors.actor.timing import collect_rarely
from romul_actors.cli.options import DEFAULT_URL
from romul_actors.cli.printing import Console
from romul_actors.client import Client
from romul_actors.errors import (
    StoreError,
    StoreUnavailableError,
    UnknownExperimentError,
    UnknownSlotError,
    UnknownWorkerError,
)
from romul_actors.local import mqtt_broker
from romul_actors.local.address import resolve
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
"""Most experiments that an error lists."""


def broker(
    url: str | None, ca: Path | None, keepalive_s: int, folder: Path | None = None
) -> Broker | None:
    """The broker that the options name, if any; else that of a local run, if it has one.

    Args:
        url: as the option --mqtt takes it.
        ca: as the option --mqtt-ca takes it.
        keepalive_s: a connection silent for 1.5 times this is lost.
        folder: of the local run.

    Raises:
        BrokerError: the URL is wrong.
    """
    if url is None and folder is not None and (folder / mqtt_broker.URL_FILE).is_file():
        url = (folder / mqtt_broker.URL_FILE).read_text().strip()
    return None if url is None else Broker.parse(url, ca, keepalive_s)


def folder_of(url: str | None) -> Path | None:
    """The folder of a local run that the option --redis names; None: it names none."""
    return Path(url) if url is not None and "://" not in url else None


async def run_of_worker(worker: str) -> Path:
    """The folder of the local run under way that lists a worker.

    Raises:
        UnknownWorkerError: none does; the message names the workers that there are.
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
        f"no local run under way has a worker {worker!r}{hint}; the broker of other searches is "
        "given by --mqtt, or ROMUL_MQTT_URL"
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
        console: where warnings go; standard error if left out.
        by: the user, as history names them; the name of the process's user if left out.
        broker: what workers are drained over.
        warns: whether warnings about the server's settings are printed: where something is begun
            that the server has to keep.

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
async def started(url: str) -> AsyncIterator[str]:
    """The server that the option --redis names; that of an ended local run runs meanwhile.

    Raises:
        StoreError: it cannot be started.
    """
    folder = folder_of(url)
    if folder is None or not _has_server(folder):
        yield url
        return
    async with server_of(folder) as own:
        yield own


@contextlib.asynccontextmanager
async def connected_to(
    name: str, url: str | None, *, changes: bool = False, runs: Path | None = None
) -> AsyncIterator[Client]:
    """A client of the server that holds a search.

    Args:
        name: the search's.
        url: as the option --redis takes it; None: that of the local run of this name, if there is
            one, else the default.
        changes: whether something is asked of the search, which takes an actor. Otherwise the
            server of a local run that has ended is started for as long as the client is used.
        runs: the folder of all local runs; None: `runs_folder()`.

    Raises:
        StoreError: the server cannot be used, or a local run has ended and can change no more.
        UnknownExperimentError: none was named, there are local runs, and none of that name.
    """
    own = run_folder(name, runs)
    where = _where(own, url)
    folder = folder_of(where)
    if changes and folder is not None and _has_server(folder) and not is_up(folder):
        raise StoreError(
            f"{folder}: the run has ended, and nothing decides a request: "
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
    """The folder of the local run that holds a search; None: its server is one that was named.

    Args:
        name: the search's.
        url: as the option --redis takes it.
    """
    return folder_of(_where(run_folder(name), url))


def _where(own: Path, url: str | None) -> str:
    """The server or folder that holds a search; its own run would be in `own`."""
    return url or (str(own) if _has_server(own) else DEFAULT_URL)


@contextlib.asynccontextmanager
async def _client(name: str, where: str, own: Path) -> AsyncIterator[Client]:
    """A client of the server that `connected_to` found; the search's own run would be in `own`."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(started(where))
            client = await stack.enter_async_context(connected(server))
        except StoreUnavailableError as error:
            others = other_runs(own)
            # A run on a server that was named has none of its own.
            if where != DEFAULT_URL or not others or holds_run(own):
                raise
            raise UnknownExperimentError(
                f"no local run {name!r} in {own.parent}: {others}; nor is there a server: {error}"
            ) from None
        yield client


async def _going_on(folder: Path, name: str) -> str:
    """What goes on with a local run that has ended, by how its search ended."""
    async with server_of(folder) as url, connected(url) as client:
        status = (await client.statuses()).get(name)
    if status is None:
        raise UnknownExperimentError(f"{folder} holds no experiment {name!r}")
    if status in OVER:
        return f"the search is {status}: `{extension(folder)}` goes on with it"
    return f"`{resumption(folder)}` goes on with it, `{extension(folder)}` to more steps"


def _hidden(folder: Path) -> str:
    """How to see a local run, where a server was named."""
    where = f"a local run of that name is in {folder.parent}/"
    return f"{where}: it is seen without --redis and ROMUL_REDIS_URL"


def local_run(name: str) -> Path | None:
    """The folder of the local run of that name that has a server of its own, if there is one."""
    folder = run_folder(name)
    return folder if _has_server(folder) else None


def named_run(text: str) -> Path:
    """The folder of a local run that has a server of its own, which its name or folder names.

    Raises:
        UnknownExperimentError: there is no such run.
        StoreError: its search is on a server that was named.
    """
    folder = Path(text)
    if not (holds_run(folder) or has_data(folder)) and folder.name == text:
        folder = run_folder(text)
    if not has_data(folder):
        check_run(folder)
        raise StoreError(
            f"{folder}: the run has no server of its own: --redis URL names the one that it was "
            "begun on"
        )
    return folder


def _has_server(folder: Path) -> bool:
    """Whether a folder holds a local run with a server of its own."""
    return holds_run(folder) and has_data(folder)


async def _names(client: Client) -> str:
    """What to say of the experiments that there are."""
    names = list(await client.statuses())
    if len(names) > MOST_NAMES:
        return "`romul status` lists those that there are"
    return f"there are {', '.join(names)}" if names else "there is none at all"


def snapshot_of(name: str, url: str | None) -> Snapshot:
    """An experiment with all its history, for a command that shows it and ends.

    Raises:
        UnknownExperimentError: there is none of that name.
    """
    collect_rarely()

    async def run() -> Snapshot:
        async with connected_to(name, url) as client:
            return await full_snapshot(client.store, name)

    return asyncio.run(run())
