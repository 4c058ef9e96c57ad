"""Options that several commands share. Most can also be set by an environment variable."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.observe.visible import VisibleFormatter

Name = Annotated[str, typer.Argument(help="Name of the experiment.")]

RedisUrl = Annotated[
    str,
    typer.Option(
        "--redis",
        envvar="ROMUL_REDIS_URL",
        help="URL of the server (redis://, rediss://, unix://, redis+sentinel://, "
        "redis+cluster://), or the folder of a local run.",
        show_default=True,
    ),
]
DEFAULT_URL = "redis://127.0.0.1:6379/0"

SearchUrl = Annotated[
    str | None,
    typer.Option(
        "--redis",
        envvar="ROMUL_REDIS_URL",
        help="Server of the experiment: a URL (redis://, rediss://, unix://, redis+sentinel://, "
        "redis+cluster://), or the folder of a local run.",
        show_default=f"the local run NAME if there is one, else {DEFAULT_URL}",
    ),
]
"""For commands that take a search's name, by which they find a local run."""

StatusUrl = Annotated[
    str | None,
    typer.Option(
        "--redis",
        envvar="ROMUL_REDIS_URL",
        help="URL of the server (redis://, rediss://, unix://, redis+sentinel://, "
        "redis+cluster://), or the folder of a local run.",
        show_default=f"{DEFAULT_URL}, else the local runs",
    ),
]
"""For the command that lists searches; if no server answers, it lists the local runs."""

MqttUrl = Annotated[
    str | None,
    typer.Option(
        "--mqtt",
        envvar="ROMUL_MQTT_URL",
        help="URL of an MQTT broker (mqtt:// or mqtts://; add ?protocol=3.1.1 for a broker without "
        "MQTT 5). Without a broker, a lost worker is noticed only when its lease ends, and "
        "`romul control` does not work.",
    ),
]

MqttCa = Annotated[
    Path | None,
    typer.Option(
        "--mqtt-ca",
        envvar="ROMUL_MQTT_CA",
        exists=True,
        dir_okay=False,
        help="File of CA certificates to trust for mqtts://, instead of the system's.",
    ),
]

Keepalive = Annotated[
    int,
    typer.Option(
        "--keepalive",
        envvar="ROMUL_MQTT_KEEPALIVE_S",
        min=1,
        help="MQTT keepalive in seconds. A connection silent for 1.5 times this is lost.",
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print the output as JSON.")]

LogLevel = Annotated[
    str,
    typer.Option(
        "--log-level",
        envvar="ROMUL_LOG_LEVEL",
        help="Log level: debug, info, warning or error.",
    ),
]

MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        envvar="ROMUL_METRICS_PORT",
        min=0,
        max=65_535,
        help="Serve Prometheus metrics on this port (0: any free port).",
    ),
]

MetricsHost = Annotated[
    str,
    typer.Option(
        "--metrics-host", envvar="ROMUL_METRICS_HOST", help="Address that serves the metrics."
    ),
]

RunsFolder = Annotated[
    Path, typer.Option("--runs", envvar="ROMUL_RUNS", help="Folder of the local runs.")
]

WithBroker = Annotated[
    bool,
    typer.Option("--broker/--no-broker", help="Also start a broker, if one is installed."),
]

Allow = Annotated[
    list[str] | None,
    typer.Option(
        envvar="ROMUL_ALLOW",
        help="Task module that may be imported, besides those that come with ROMUL (repeatable).",
    ),
]

TaskPath = Annotated[
    list[Path] | None,
    typer.Option(
        envvar="ROMUL_PATH",
        exists=True,
        file_okay=False,
        help="Folder with task modules (repeatable).",
    ),
]


def start_log(level: str) -> None:
    """Log to standard error.

    Raises:
        typer.BadParameter: an unknown level.
    """
    if level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise typer.BadParameter(f"{level!r} is not debug, info, warning or error")
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
