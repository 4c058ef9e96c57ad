"""Options that several commands share; each may come from an environment variable too."""

import logging
import os
from datetime import datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from romul_actors.errors import StoreError
from romul_actors.local.redis_server import URL_FILE
from romul_actors.mqtt.broker import Broker
from romul_actors.observe.visible import VisibleFormatter
from romul_actors.protocol.experiment import Experiment

RedisUrl = Annotated[
    str,
    typer.Option(
        "--redis",
        envvar="ROMUL_REDIS_URL",
        help="URL of the server (redis://, rediss://, unix://), or the folder of a local run.",
        show_default=True,
    ),
]
DEFAULT_URL = "redis://127.0.0.1:6379/0"

MqttUrl = Annotated[
    str | None,
    typer.Option(
        "--mqtt",
        envvar="ROMUL_MQTT_URL",
        help="Broker (mqtt://, mqtts://): lost workers are noticed sooner. Without: by the lease.",
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

Deadline = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="End with the best found by then: 18:00, +90m, +2h, or a date with its time.",
    ),
]


def with_deadline(experiment: Experiment, when: str | None) -> Experiment:
    """The experiment, with a deadline if one is given.

    Raises:
        typer.BadParameter: it cannot be read, or has passed.
    """
    if when is None:
        return experiment
    now = datetime.now().astimezone()
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        if when.startswith("+"):
            moment = now + timedelta(seconds=float(when[1:-1]) * units[when[-1]])
        elif len(when) <= len("18:00:00"):
            moment = datetime.combine(now.date(), clock.fromisoformat(when), now.tzinfo)
            moment += timedelta(days=moment <= now)
        else:
            moment = datetime.fromisoformat(when).astimezone()
    except (ValueError, KeyError):
        raise typer.BadParameter(
            f"{when!r} is not of the form 18:00, +90m, +2h or a date"
        ) from None
    if moment <= now:
        raise typer.BadParameter(f"{when!r} has passed")
    return experiment.model_copy(update={"deadline": moment})


def resolve(url: str) -> str:
    """URL of the server that `url` names: itself, or what a local run's folder holds.

    A URL with a user and no password gets the one in the file that ROMUL_REDIS_PASSWORD_FILE names,
    as containers are given secrets.

    Raises:
        StoreError: a folder without a server, or a password that cannot be read.
    """
    if "://" in url:
        return _with_password(url, "ROMUL_REDIS_PASSWORD_FILE")
    file = Path(url) / URL_FILE
    if not file.is_file():
        raise StoreError(
            f"{url!r} is neither a URL nor the folder of a local run whose server is up "
            f"(no {file}); a finished run's server is started by `romul serve {url}`"
        )
    return file.read_text().strip()


def _with_password(url: str, variable: str) -> str:
    """The URL, with the password in the file that the variable names where it lacks one."""
    scheme, _, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    secret = os.environ.get(variable)
    if secret is None or not at or ":" in user:
        return url
    try:
        password = Path(secret).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StoreError(f"{variable}: {error}") from None
    return f"{scheme}://{user}:{quote(password, safe='')}@{place}"


def resolve_broker(url: str) -> str:
    """URL of the broker, with the password in the file that ROMUL_MQTT_PASSWORD_FILE names.

    Raises:
        StoreError: the file cannot be read.
    """
    return _with_password(url, "ROMUL_MQTT_PASSWORD_FILE")


def broker(url: str | None, ca: Path | None, keepalive_s: int) -> Broker | None:
    """The broker that the options name, if any.

    Raises:
        BrokerError: the URL is wrong.
    """
    return None if url is None else Broker.parse(resolve_broker(url), ca, keepalive_s)


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
