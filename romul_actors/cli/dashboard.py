"""`romul dashboard`: the population in a browser."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.connection import broker, connected
from romul_actors.cli.options import DEFAULT_URL, MqttCa, MqttUrl, RedisUrl
from romul_actors.cli.printing import echo
from romul_actors.cli.services import stopping
from romul_actors.mqtt.broker import KEEPALIVE_S


def dashboard(
    redis: RedisUrl = DEFAULT_URL,
    host: Annotated[
        str, typer.Option(help="Where to listen; elsewhere than on loopback only with a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port.")] = 8265,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="ROMUL_DASHBOARD_TOKEN", help="What browsers must show, once: ?token=..."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Certificate, PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Its key, PEM.")
    ] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy in front of it brings TLS.")
    ] = False,
    name: Annotated[
        list[str] | None, typer.Option(help="Host name that browsers call it by (repeatable).")
    ] = None,
    mqtt: MqttUrl = None,
    mqtt_ca: MqttCa = None,
) -> None:
    """Show populations in a browser: live, with lineage, schedules, workers and actions."""
    try:
        from romul_actors.dashboard.server import Serving, serving  # noqa: PLC0415
    except ImportError:
        raise typer.BadParameter(
            "the dashboard needs NiceGUI: pip install 'romul[dashboard]'"
        ) from None
    where = Serving(host, port, token, tls_cert, tls_key, behind_proxy, tuple(name or ()))
    where.check()
    at = broker(mqtt, mqtt_ca, KEEPALIVE_S)

    async def run() -> None:
        async with (
            stopping() as stop,
            connected(redis) as client,
            serving(client.store, where, at),
        ):
            scheme = "https" if tls_cert else "http"
            echo(
                f"{scheme}://{host}:{port}/"
                + ("?token=..." if token else "")
                + "  (Ctrl-C ends it)"
            )
            await stop.wait()

    asyncio.run(run())
