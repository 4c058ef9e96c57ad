"""`romul dashboard`: the population in a browser."""

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.options.shared import DEFAULT_URL, MqttCa, MqttUrl, SearchUrl
from romul_actors.cli.output.printing import echo
from romul_actors.cli.processes.services import stopping
from romul_actors.cli.servers.connection import broker, connected_to, folder_of, named_run, opened
from romul_actors.errors import StoreUnavailableError, UnknownExperimentError
from romul_actors.local.redis_server import is_up
from romul_actors.local.run_file import local_runs, runs_folder
from romul_actors.mqtt.broker import KEEPALIVE_S


def dashboard(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Experiment to show: its name or, without --redis, the folder of a local run.",
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

    name_there, url = _shown(run, redis)
    folder = folder_of(url)
    ended = folder is not None and not is_up(folder)

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as stack:
            stop = await stack.enter_async_context(stopping())
            if name_there is None:
                client = await stack.enter_async_context(opened(url or DEFAULT_URL))
            else:
                client = await stack.enter_async_context(connected_to(name_there, url))
                await client.store.spec(name_there)  # raises an error if there is none
            await stack.enter_async_context(serving(client.store, where, at))
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


def _shown(run: str | None, redis: str | None) -> tuple[str | None, str | None]:
    """The experiment to show, None for all of the server, and the server.

    A folder is always a local run. A name is an experiment on the given server, if there is one.

    Raises:
        typer.BadParameter: a folder and a server are given.
        UnknownExperimentError: the folder holds no run.
        StoreError: the search of the run is on another server.
    """
    if run is None:
        return None, redis
    is_name = Path(run).name == run
    if redis is not None:
        if not is_name:
            raise typer.BadParameter(
                f"{run} is a folder, and --redis or ROMUL_REDIS_URL gives a server: leave out the "
                "server to show the local run, or give the name of an experiment on the server"
            )
        return run, redis
    try:
        return None, str(named_run(run))
    except UnknownExperimentError:
        if not is_name:
            raise
        return run, None
