"""`romul extend`: continue a search for more steps, on the server that holds it."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.local_run.play import Servers, play
from romul_actors.cli.local_run.summary import finish
from romul_actors.cli.options.shared import AsJson, Name, RunsFolder, SearchUrl, WithBroker
from romul_actors.cli.output.printing import echo
from romul_actors.cli.servers.connection import connected_to
from romul_actors.local.redis_server import has_data, is_up
from romul_actors.local.run_file import RunFile, holds_run


def extend(
    name: Name,
    steps: Annotated[int, typer.Option(min=1, help="New total number of steps.")],
    redis: SearchUrl = None,
    runs: RunsFolder = Path("runs"),
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of worker processes, for a local run that has ended.",
            show_default="as many as before",
        ),
    ] = None,
    broker: WithBroker = True,
    as_json: AsJson = False,
) -> None:
    """Continue a running, finished or stopped search for more steps.

    A local run that has ended continues on this machine, as with `romul run --resume`. On a server,
    its actors and workers continue the search; there, a paused or failed search takes the new
    number of steps, but continues only when it is resumed.
    """
    folder = runs / name
    if redis is None and holds_run(folder) and has_data(folder):
        if not is_up(folder):
            _go_on(folder, steps, workers, broker=broker, as_json=as_json)
            return
        redis = str(folder)

    async def ask() -> None:
        async with connected_to(name, redis, changes=True, runs=runs) as client:
            await client.extend(name, steps)
        echo(f"{name}: {steps} steps requested")

    asyncio.run(ask())


def _go_on(folder: Path, steps: int, workers: int | None, *, broker: bool, as_json: bool) -> None:
    """Continue a local run to its end."""
    plan, changes = RunFile.read(folder).changes(None)
    plan = replace(plan, workers=workers or plan.workers)
    changes = replace(changes, steps=steps, asked=True)
    ended = play(folder, plan, [], Servers(None, broker), quiet=as_json, changes=changes)
    finish(folder, ended, {}, as_json=as_json)
