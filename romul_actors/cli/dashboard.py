"""`romul dashboard`: the population in a browser."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.connection import (
    broker,
    connected,
    connected_to,
    folder_of,
    named_run,
    started,
)
from romul_actors.cli.options import DEFAULT_URL, MqttCa, MqttUrl, SearchUrl
from romul_actors.cli.printing import echo
from romul_actors.cli.services import stopping
from romul_actors.client import Client
from romul_actors.errors import StoreUnavailableError, UnknownExperimentError
from romul_actors.local.redis_server import is_up
from romul_actors.local.run_file import local_runs, runs_folder
from romul_actors.mqtt.broker import KEEPALIVE_S


def dashboard(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Experiment to show: its name, or the folder of a local run.",
            show_default=False,
        ),
    ] = None,
    redis: SearchUrl = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Any address but loopback needs a token and TLS."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8265,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="ROMUL_DASHBOARD_TOKEN", help="Token that browsers must send once: ?token=..."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TLS certificate (PEM file).")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TLS key (PEM file).")
    ] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy in front provides TLS.")
    ] = False,
    name: Annotated[
        list[str] | None, typer.Option(help="Host name that browsers may use (repeatable).")
    ] = None,
    mqtt: MqttUrl = None,
    mqtt_ca: MqttCa = None,
) -> None:
    """Serve a live dashboard of populations, lineage, schedules and workers to a browser."""
    try:
        from romul_actors.dashboard.server import Serving, serving  # noqa: PLC0415
    except ImportError:
        raise typer.BadParameter(
            "the dashboard needs NiceGUI: pip install 'romul[dashboard]'"
        ) from None
    where = Serving(host, port, token, tls_cert, tls_key, behind_proxy, tuple(name or ()))
    where.check()
    at = broker(mqtt, mqtt_ca, KEEPALIVE_S)

    local = _local_run(run, redis)
    name_there = run if local is None else None
    url = str(local) if local else redis
    folder = folder_of(url)
    ended = folder is not None and not is_up(folder)

    async def serve() -> None:
        async with (
            stopping() as stop,
            _client(name_there, url) as client,
            serving(client.store, where, at),
        ):
            if ended:
                echo("the run has ended: actions take effect when it is resumed")
            scheme = "https" if tls_cert else "http"
            echo(
                f"{scheme}://{host}:{port}/"
                + (f"experiment/{name_there}" if name_there else "")
                + ("?token=..." if token else "")
                + "  (Ctrl-C stops it)"
            )
            await stop.wait()

    try:
        asyncio.run(serve())
    except StoreUnavailableError as error:
        runs = local_runs(runs_folder())
        if run is not None or (url or DEFAULT_URL) != DEFAULT_URL or not runs:
            raise
        raise StoreUnavailableError(
            f"{error} To show a local run, give its name: `romul dashboard {runs[0].name}`"
        ) from None


def _local_run(run: str | None, redis: str | None) -> Path | None:
    """The folder of the local run to show; None if a server is to be shown.

    A folder is always a local run. A name is an experiment on the given server, if there is one.

    Raises:
        UnknownExperimentError: the folder holds no run.
        StoreError: the search of the run is on another server.
    """
    if run is None:
        return None
    is_name = Path(run).name == run
    if is_name and redis is not None:
        return None
    try:
        return named_run(run)
    except UnknownExperimentError:
        if not is_name:
            raise
        return None


@contextlib.asynccontextmanager
async def _client(name: str | None, url: str | None) -> AsyncIterator[Client]:
    """A client of the server at `url`, or of the one that holds the experiment `name`.

    Raises:
        StoreError: the server cannot be used.
        UnknownExperimentError: the server has no such experiment.
    """
    if name is None:
        async with started(url or DEFAULT_URL) as server, connected(server) as client:
            yield client
        return
    async with connected_to(name, url) as client:
        await client.store.spec(name)  # raises an error if there is none
        yield client
