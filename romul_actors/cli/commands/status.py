"""`romul status`: a server's experiments, or local runs if there is no server."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from romul_actors.cli.options.shared import DEFAULT_URL, AsJson, StatusUrl
from romul_actors.cli.output.printing import Console, Table, echo_json
from romul_actors.cli.output.rows import best_in_words, lost, progress, unreadable
from romul_actors.cli.servers.connection import connected, opened
from romul_actors.errors import AccessError, ExperimentError, StoreError, StoreUnavailableError
from romul_actors.local.redis_server import DATA, has_data, is_up, server_of
from romul_actors.local.run_file import RunFile, local_runs, runs_folder
from romul_actors.observe.alarms import alarms
from romul_actors.observe.snapshot import read_glance
from romul_actors.store import Store


def status(redis: StatusUrl = None, as_json: AsJson = False) -> None:
    """List all experiments with their progress."""

    async def run() -> list[dict[str, Any]]:
        async with contextlib.AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(opened(redis or DEFAULT_URL))
            except StoreUnavailableError:
                runs = [] if redis is not None else local_runs(runs_folder())
                if not runs:
                    raise
                return [await run_row(folder) for folder in runs]
            statuses, store = await client.statuses(), client.store
            return [await status_row(store, name, status) for name, status in statuses.items()]

    rows = asyncio.run(run())
    if as_json:
        echo_json(rows)
        return
    console = Console()
    if rows and "under_way" in rows[0]:
        console.print(f"no server was given or found: local runs in {runs_folder()}, newest first")
    console.print(_status_table(rows) if rows else "no experiments")
    for row in rows:
        if row["reason"]:
            console.print(f"{row['name']}: {row['reason']}")
        if text := lost(row):
            console.print(text)
        for text in row["alarms"]:
            console.print(f"{row['name']}: {text}")


def _status_table(rows: list[dict[str, Any]]) -> Table:
    figures = ("trials", "failed", "workers", "dead", "best")
    local = ("under way",) if rows and "under_way" in rows[0] else ()
    table = Table("experiment", *local, "status", right=figures)
    for row in rows:
        counts = (str(row[key]) for key in ("failed", "workers", "dead"))
        trials = f"{row['trials']}/{row['trials_total']}"
        under_way = ("yes" if row["under_way"] else "no",) if local else ()
        table.add_row(row["name"], *under_way, row["status"], trials, *counts, best_in_words(row))
    return table


async def status_row(store: Store, name: str, status: str) -> dict[str, Any]:
    """An experiment of a server, as JSON values.

    Raises:
        StoreUnavailableError: the server does not answer.
        AccessError: this user may not read from it.
    """
    try:
        seen = read_glance(await store.glance(name), name)
    except (StoreUnavailableError, AccessError):
        raise
    except (ExperimentError, StoreError) as error:
        # It is of another version, or damaged; the others are still shown.
        return unreadable(name, status, str(error))
    row = progress(seen)
    # An alarm that is part of the reason is not repeated.
    found = [alarm.what for alarm in alarms(seen) if alarm.level != "ok"]
    found = [what for what in found if what not in row["reason"]]
    return {**row, "workers": len(seen.alive), "dead": seen.depths["dead"], "alarms": found}


async def run_row(folder: Path) -> dict[str, Any]:
    """The first search of a local run, as JSON values; `under_way` says whether its server is up.

    For a run that has ended they come from its summary. If that is missing or out of date, the
    run's server is started to read them.
    """
    under_way = is_up(folder)
    row = None if under_way else _summary(folder)
    try:
        row = row or await _stored(folder)
    except (ExperimentError, StoreError) as error:
        row = unreadable(folder.name, "", str(error))
    # A run that is not running has no actor and no worker: that is no alarm.
    return {**row, "alarms": row["alarms"] if under_way else [], "under_way": under_way}


def _summary(folder: Path) -> dict[str, Any] | None:
    """The values of a run's summary; None if there is none, or the stored data are newer."""
    file = folder / "summary.json"
    stored = [data.stat().st_mtime for data in (folder / DATA).rglob("*.aof")]
    try:
        if file.stat().st_mtime < max(stored, default=0.0):
            return None
        values = from_json(file.read_bytes())
        row = unreadable(folder.name, "", "")
        return {key: values.get(key, default) for key, default in row.items()}
    except (OSError, ValueError, AttributeError):
        return None


async def _stored(folder: Path) -> dict[str, Any]:
    """The stored values of the first search of a run.

    Raises:
        ExperimentError, StoreError: they cannot be read.
    """
    name = RunFile.read(folder).experiments[0]
    if not has_data(folder):
        return unreadable(name, "", "its search is on the server that it was started on")
    async with server_of(folder) as url, connected(url) as client:
        status = (await client.statuses()).get(name)
        if status is None:
            return unreadable(name, "", "its search has not started")
        return await status_row(client.store, name, status)
