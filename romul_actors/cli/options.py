"""Options that several commands share; each may come from an environment variable too."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.errors import StoreError
from romul_actors.server import URL_FILE

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

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

LogLevel = Annotated[
    str,
    typer.Option("--log-level", envvar="ROMUL_LOG_LEVEL", help="debug, info, warning or error."),
]

RunsFolder = Annotated[
    Path, typer.Option("--runs", envvar="ROMUL_RUNS", help="Folder for local runs.")
]


def resolve(url: str) -> str:
    """URL of the server that `url` names: itself, or what a local run's folder holds.

    Raises:
        StoreError: a folder without a server.
    """
    if "://" in url:
        return url
    file = Path(url) / URL_FILE
    if not file.is_file():
        raise StoreError(
            f"{url!r} is neither a URL nor the folder of a local run whose server is up "
            f"(no {file}); a finished run's server is started by `romul serve {url}`"
        )
    return file.read_text().strip()


def start_log(level: str) -> None:
    """Log to standard error.

    Raises:
        typer.BadParameter: an unknown level.
    """
    if level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise typer.BadParameter(f"{level!r} is not debug, info, warning or error")
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
