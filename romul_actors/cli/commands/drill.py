"""`romul drill`: break everything on purpose, then check whether anything was lost."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from romul_actors.cli.exits import EXPERIMENT_FAILED
from romul_actors.cli.options.shared import AsJson, RunsFolder
from romul_actors.cli.output.printing import Console, echo_figures, echo_json
from romul_actors.errors import ExperimentError
from romul_actors.local.redis_server import check_idle
from romul_sim.drill.run import Drill
from romul_sim.drill.schedule import draw, read_schedule, write_schedule


def drill(
    faults: Annotated[int, typer.Option(min=1, help="Number of faults.")] = 30,
    every: Annotated[
        float, typer.Option(min=0.05, help="Mean time between faults, in seconds.")
    ] = 0.8,
    workers: Annotated[int, typer.Option(min=2, help="Number of worker processes.")] = 3,
    actors: Annotated[int, typer.Option(min=1, help="Number of actor processes.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the faults and of the search.")] = 0,
    schedule: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Run this schedule instead of a random one."
        ),
    ] = None,
    runs: RunsFolder = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Run a search while workers, actors, server and broker are killed, frozen and restarted.

    The drill also fills the disk (as root, on a small file system of its own), damages checkpoints
    and puts garbage into the queues. Then it audits history and checkpoints: nothing may be lost,
    and nothing counted twice.
    """
    console = Console(stderr=True, quiet=as_json)
    folder = runs / "drill"
    if folder.exists():
        check_idle(folder)
        if not (folder / "schedule.jsonl").exists():
            raise ExperimentError(
                f"{folder} exists and is not an earlier drill: choose another --runs"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    planned = read_schedule(schedule) if schedule else draw(faults, every, seed)
    write_schedule(folder / "schedule.jsonl", planned)
    with Progress(console=console, transient=True) as bars:
        bar = bars.add_task("faults", total=len(planned))
        drilling = Drill(
            folder, planned, workers, actors, seed, lambda n: bars.update(bar, completed=n)
        )
        verdict = asyncio.run(drilling.run())
    (folder / "verdict.json").write_text(json.dumps(verdict, indent=1))
    if as_json:
        echo_json(verdict)
    else:
        echo_figures(verdict)
    if (
        verdict["lost"]
        or verdict["doubled"]
        or verdict["invariants_broken"]
        or not verdict["completed"]
    ):
        raise typer.Exit(EXPERIMENT_FAILED)
