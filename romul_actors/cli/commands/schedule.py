"""`romul schedule`: export the winner's hyperparameter schedule, and train along it."""

import asyncio
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, ProgressColumn, TextColumn

from romul_actors.cli.options.arguments import checked
from romul_actors.cli.options.shared import Allow, AsJson, Name, SearchUrl, TaskPath
from romul_actors.cli.output.printing import Console, echo, echo_json, shortened
from romul_actors.cli.servers.connection import snapshot_of
from romul_actors.errors import ExperimentError, UnknownTrialError
from romul_actors.local.run_file import RunFile, local_runs, runs_folder
from romul_actors.observe.trial_records import trials
from romul_workers.checkpoints.scratch import scratch_folder
from romul_workers.child.trainer import ChildTrainer
from romul_workers.defaults import SHIPPED_TASKS
from romul_workers.schedule import Schedule, Trained, closeness, of_trial, read_schedule
from romul_workers.schedule import train as train_along

schedule = typer.Typer(
    help="Export the winner's hyperparameter schedule, or train a model along it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@schedule.command("export")
@checked
def export_schedule(
    name: Name,
    to: Annotated[Path, typer.Option("--to", dir_okay=False, help="JSON file to write.")],
    trial: Annotated[
        str | None,
        typer.Option(help="Last trial of the schedule: SLOT-STEP.", show_default="the best trial"),
    ] = None,
    redis: SearchUrl = None,
) -> None:
    """Write the schedule of the winner's line of descent, which may go through several slots."""
    seen = snapshot_of(name, redis)
    chosen = trial or seen.best.get("trial")
    if chosen is None:
        raise UnknownTrialError(f"{name}: no trial has succeeded yet")
    made = of_trial(seen.experiment, trials(seen.history), chosen)
    made.write(to)
    slots = {stretch.trial.partition("-")[0] for stretch in made.stretches}
    echo(
        f"{to}: {len(made.stretches)} stretches through {len(slots)} slots, "
        f"{made.metric} {made.value:.6g}"
    )


@schedule.command("train")
@checked
def train_schedule(
    file: Annotated[Path, typer.Argument(help="Schedule written by `romul schedule export`.")],
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed. Default: the search's own.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="New folder for the checkpoint of the trained model."),
    ] = None,
    allow: Allow = None,
    path: TaskPath = None,
    as_json: AsJson = False,
) -> None:
    """Train one model from scratch along a schedule, and compare it with the search's result."""
    found = read_schedule(file)
    _check_allowed(found.task.partition(":")[0], allow)
    if to is not None and to.exists():
        raise typer.BadParameter(f"{to} exists already: name a new folder")
    console = Console(stderr=True, quiet=as_json)
    with scratch_folder() as scratch:
        trainer, place = ChildTrainer(scratch, path or _found_in(found)), scratch / "checkpoints"
        trained = _train(found, place, trainer, seed, console)
        if to is not None:
            shutil.copytree(place / trained.checkpoint, to)
    apart = None if found.value is None else closeness(trained.value, found.value)
    if as_json:
        echo_json(
            {
                "metric": found.metric,
                "value": trained.value,
                "searched": found.value,
                "apart": apart,
                "values": list(trained.values),
                "metrics": dict(trained.metrics),
            }
        )
        return
    echo(f"{found.metric} {trained.value:.6g} from scratch")
    if apart is not None:
        echo(f"{found.metric} {found.value:.6g} in the search: {100 * apart:.1f} % apart")
    if to is not None:
        echo(f"model: {to}")


def _train(
    along: Schedule, place: Path, trainer: ChildTrainer, seed: int | None, console: Console
) -> Trained:
    """Train along a schedule, with a bar of its stretches."""
    metric = shortened(along.metric)
    with Progress(*_columns(), console=console, transient=True) as bars:
        bar = bars.add_task(metric, total=len(along.stretches))

        def on_stretch(n: int, value: float) -> None:
            bars.update(bar, completed=n + 1, description=f"{metric} {value:.5g}")

        async def run() -> Trained:
            try:
                return await train_along(along, str(place), trainer, seed, on_stretch)
            finally:
                await trainer.close()

        return asyncio.run(run())


def _columns() -> tuple[ProgressColumn, ...]:
    """Rich's default columns, with a description that is not read as markup."""
    _, *others = Progress.get_default_columns()
    return (TextColumn("{task.description}", markup=False), *others)


def _found_in(schedule: Schedule) -> list[Path]:
    """Folders in which the local run with the schedule's name found the same task, if there is one.

    The schedule names only the run: a file must not choose the folder that code is imported from.
    """
    module = schedule.task.partition(":")[0]
    for folder in local_runs(runs_folder()):
        if folder.name == schedule.name:
            run = RunFile.read(folder)
            return [Path(place) for place in run.paths] if module in run.allow else []
    return []


def _check_allowed(module: str, allow: Sequence[str] | None) -> None:
    if not any(fnmatchcase(module, pattern) for pattern in (SHIPPED_TASKS, *(allow or ()))):
        raise ExperimentError(
            f"task module {module!r} is not allowed: if you trust it, add --allow {module}"
        )
