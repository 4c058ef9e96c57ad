"""Options that several commands share; each may come from an environment variable too."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.observe.visible import VisibleFormatter

Name = Annotated[str, typer.Argument(help="Name of an experiment.")]

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
        help="Its server: a URL (redis://, rediss://, unix://, redis+sentinel://, "
        "redis+cluster://), or the folder of a local run.",
        show_default=f"runs/NAME, else {DEFAULT_URL}",
    ),
]
"""Of commands that take a search's name: one that runs here is found by it."""

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
"""Of the command that lists searches: where no server answers, those that run here."""

MqttUrl = Annotated[
    str | None,
    typer.Option(
        "--mqtt",
        envvar="ROMUL_MQTT_URL",
        help="URL of an MQTT broker (mqtt://, mqtts://; ?protocol=3.1.1 for one without MQTT 5). "
        "Without one, a lost worker is noticed when its lease ends, and `romul control` reaches "
        "none.",
    ),
]

MqttCa = Annotated[
    Path | None,
    typer.Option(
        "--mqtt-ca",
        envvar="ROMUL_MQTT_CA",
        exists=True,
        dir_okay=False,
        help="Certificates to trust for mqtts://, in place of the system's.",
    ),
]

Keepalive = Annotated[
    int,
    typer.Option(
        "--keepalive",
        envvar="ROMUL_MQTT_KEEPALIVE_S",
        min=1,
        help="Seconds; a connection silent for 1.5 times this is lost.",
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

LogLevel = Annotated[
    str,
    typer.Option("--log-level", envvar="ROMUL_LOG_LEVEL", help="debug, info, warning or error."),
]

MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        envvar="ROMUL_METRICS_PORT",
        min=0,
        max=65_535,
        help="Serve Prometheus metrics there (0: any free port).",
    ),
]

MetricsHost = Annotated[
    str,
    typer.Option("--metrics-host", envvar="ROMUL_METRICS_HOST", help="Where metrics are served."),
]

RunsFolder = Annotated[
    Path, typer.Option("--runs", envvar="ROMUL_RUNS", help="Folder for local runs.")
]

WithBroker = Annotated[
    bool,
    typer.Option("--broker/--no-broker", help="Run a broker as well, where there is a program."),
]

Allow = Annotated[
    list[str] | None,
    typer.Option(
        envvar="ROMUL_ALLOW", help="Task modules that may be imported, besides the shipped ones."
    ),
]

TaskPath = Annotated[
    list[Path] | None,
    typer.Option(
        envvar="ROMUL_PATH", exists=True, file_okay=False, help="Folder with task modules."
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
