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
    UnknownWorkerError,
)
from romul_actors.local import mqtt_broker
from romul_actors.local.address import resolve, resolve_broker
from romul_actors.local.redis_server import URL_FILE, has_data, is_up, server_of
from romul_actors.local.run_file import holds_run, run_folder, runs_folder
from romul_actors.mqtt.broker import Broker
from romul_actors.observe.snapshot import Snapshot, full_snapshot
from romul_actors.protocol.mistakes import did_you_mean

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
    return None if url is None else Broker.parse(resolve_broker(url), ca, keepalive_s)


def folder_of(url: str | None) -> Path | None:
    """The folder of a local run that the option --redis names; None: it names none."""
    return Path(url) if url is not None and "://" not in url else None


async def run_of_worker(worker: str) -> Path:
    """The folder of the local run under way that lists a worker.

    Raises:
        UnknownWorkerError: none does; the message names the workers that there are.
    """
    others: list[str] = []
    for folder in filter(is_up, _runs()):
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
        try:
            warnings = await client.check()
        except StoreUnavailableError as error:
            if url != DEFAULT_URL:
                raise
            raise StoreUnavailableError(f"{error}{_local_runs()}") from None
        for warning in warnings if warns else ():
            (console or Console(stderr=True)).print(f"warning: {warning}", soft_wrap=True)
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
        UnknownExperimentError: none was named, there are local runs, and none of that name.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = None if url is not None else local_run(name)
        if folder is None:
            url = url or DEFAULT_URL
        elif changes and not is_up(folder):
            raise StoreError(
                f"{folder}: the run has ended, and nothing decides a request: `romul run --resume "
                f"{name}` goes on with it, `romul extend {name} --steps N` to more steps"
            )
        else:
            url = await stack.enter_async_context(server_of(folder))
        try:
            client = await stack.enter_async_context(connected(url))
        except StoreUnavailableError as error:
            runs = [folder.name for folder in _runs()]
            # A run on a server that was named has none of its own.
            if url != DEFAULT_URL or not runs or name in runs:
                raise
            raise UnknownExperimentError(
                f"no local run {name!r} in {runs_folder()}: {did_you_mean(name, runs)}; "
                f"nor is there a server: {error}"
            ) from None
        yield client


def local_run(name: str) -> Path | None:
    """The folder of the local run of that name that has a server of its own, if there is one."""
    folder = run_folder(name)
    return folder if holds_run(folder) and has_data(folder) else None


def _runs() -> list[Path]:
    """The folders of local runs, by their names."""
    return sorted(folder for folder in runs_folder().glob("[!.]*") if holds_run(folder))


async def _names(client: Client) -> str:
    """What to say of the experiments that there are."""
    names = list(await client.statuses())
    if len(names) > MOST_NAMES:
        return "`romul status` lists those that there are"
    return f"there are {', '.join(names)}" if names else "there is none at all"


def _local_runs() -> str:
    """What to say of local runs, whose servers are their own, where no server was named."""
    runs = _runs()
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
