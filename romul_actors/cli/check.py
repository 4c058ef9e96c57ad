"""`romul schedule`, `check`, `export`: what a search leaves, and what a task must do."""

import asyncio
import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, ProgressColumn, TextColumn

from romul_actors.cli.exits import EXPERIMENT_FAILED
from romul_actors.cli.options import DEFAULT_URL, AsJson, RedisUrl
from romul_actors.cli.printing import Console, echo, echo_json, shortened
from romul_actors.cli.services import opened
from romul_actors.errors import ExperimentError
from romul_actors.observe import html as page
from romul_actors.observe.explain import waste
from romul_actors.observe.export import to_mlflow, to_tensorboard
from romul_actors.observe.lineage import plot, plot_lineage, plot_workers, trials
from romul_actors.observe.snapshot import Snapshot, full_snapshot, trial_rows
from romul_actors.protocol.plan import load
from romul_workers.conformance import Check, Examination
from romul_workers.schedule import ScheduleError, closeness, of_trial, read_schedule
from romul_workers.schedule import train as train_along
from romul_workers.trainer import ChildTrainer, scratch_folder
from romul_workers.worker import SHIPPED_TASKS

Name = Annotated[str, typer.Argument(help="Name of an experiment.")]
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

schedule = typer.Typer(
    help="The winner's hyperparameters, to train with again.", no_args_is_help=True
)


def _all_of(name: str, redis: str) -> Snapshot:
    async def run() -> Snapshot:
        async with opened(redis) as store:
            return await full_snapshot(store, name)

    return asyncio.run(run())


@schedule.command("export")
def export_schedule(
    name: Name,
    to: Annotated[Path, typer.Option("--to", dir_okay=False, help="JSON file.")],
    best: Annotated[bool, typer.Option("--best", help="The winner's (the default).")] = False,
    trial: Annotated[str | None, typer.Option(help="Another trial's: SLOT-STEP.")] = None,
    redis: RedisUrl = DEFAULT_URL,
) -> None:
    """Write the schedule along the winner's line of descent, which may lead through many slots."""
    if best and trial is not None:
        raise typer.BadParameter("--best and --trial: one of them")
    seen = _all_of(name, redis)
    chosen = trial or seen.best.get("trial")
    if chosen is None:
        raise ScheduleError(f"{name}: no trial has ended well yet")
    made = of_trial(seen.experiment, trials(seen.history), chosen)
    made.write(to)
    slots = {stretch.trial.partition("-")[0] for stretch in made.stretches}
    echo(
        f"{to}: {len(made.stretches)} stretches through {len(slots)} slots, "
        f"{made.metric} {made.value:.6g}"
    )


@schedule.command("train")
def train_schedule(
    file: Annotated[Path, typer.Argument(help="A schedule, made by `romul schedule export`.")],
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed; the search's own if left out.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="New folder for the trained model's checkpoint.")
    ] = None,
    allow: Allow = None,
    path: TaskPath = None,
    as_json: AsJson = False,
) -> None:
    """Train one model from scratch along a schedule, and say how close it comes."""
    found = read_schedule(file)
    _check_allowed(found.task.partition(":")[0], allow)
    if to is not None and to.exists():
        raise typer.BadParameter(f"{to} exists already: name a new folder")
    console = Console(stderr=True, quiet=as_json)
    with scratch_folder() as scratch:
        trainer, place = ChildTrainer(scratch, path or []), scratch / "checkpoints"
        metric = shortened(found.metric)
        with Progress(*_columns(), console=console, transient=True) as bars:
            bar = bars.add_task(metric, total=len(found.stretches))

            async def run() -> Any:
                try:
                    return await train_along(
                        found,
                        str(place),
                        trainer,
                        seed,
                        lambda n, value: bars.update(
                            bar, completed=n + 1, description=f"{metric} {value:.5g}"
                        ),
                    )
                finally:
                    await trainer.close()

            trained = asyncio.run(run())
        if to is not None:
            shutil.copytree(place / trained.checkpoint, to)
    told = {
        "metric": found.metric,
        "value": trained.value,
        "searched": found.value,
        "apart": None if found.value is None else closeness(trained.value, found.value),
        "values": list(trained.values),
        "metrics": dict(trained.metrics),
    }
    if as_json:
        echo_json(told)
        return
    echo(f"{found.metric} {trained.value:.6g} from scratch")
    if found.value is not None:
        echo(f"{found.metric} {found.value:.6g} in the search: {100 * told['apart']:.1f} % apart")
    if to is not None:
        echo(f"the model: {to}")


def _columns() -> tuple[ProgressColumn, ...]:
    """Rich's own, but for a description that is no markup."""
    _, *others = Progress.get_default_columns()
    return (TextColumn("{task.description}", markup=False), *others)


def _check_allowed(module: str, allow: Sequence[str] | None) -> None:
    if not any(fnmatchcase(module, pattern) for pattern in (SHIPPED_TASKS, *(allow or ()))):
        raise ExperimentError(f"task module {module!r} is not allowed: see --allow")


def check(
    file: Annotated[Path, typer.Argument(help="Experiment: a .toml or .py file.")],
    budget: Annotated[
        float | None, typer.Option(min=0, help="Length of a step to try; else the experiment's.")
    ] = None,
    grace: Annotated[float, typer.Option(min=0.1, help="Seconds to stop in.")] = 10.0,
    path: TaskPath = None,
    as_json: AsJson = False,
) -> None:
    """Try a task out: does it restore, seed, apply hyperparameters and stop as it should?

    Trains a handful of single steps with it, and four for each hyperparameter. Like `romul run`,
    it runs the file's own task.
    """
    experiment = load(file)
    marks = {"ok": "ok ", "warning": "!  ", "fault": "!! "}

    def tell(check: Check) -> None:
        if not as_json:
            echo(f"{marks[check.level]} {check.name}: {check.found}")

    async def run(scratch: Path) -> list[Check]:
        changes: dict[str, Any] = {"checkpoints": str(scratch / "checkpoints")}
        if budget is not None:
            changes["budget"] = budget
        trainer = ChildTrainer(scratch, [file.resolve().parent, *(path or [])])
        examination = Examination(experiment.model_copy(update=changes), trainer, grace, tell)
        try:
            return await examination.run()
        finally:
            await trainer.close()

    with scratch_folder() as scratch:
        checks = asyncio.run(run(scratch))
    if as_json:
        echo_json([check.as_json() for check in checks])
    if any(check.level == "fault" for check in checks):
        raise typer.Exit(EXPERIMENT_FAILED)


def export(
    name: Name,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="File: .parquet, .csv or .jsonl.", dir_okay=False),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard's event files.", file_okay=False)
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Tracking URI of an MLflow server or store.")
    ] = None,
    redis: RedisUrl = DEFAULT_URL,
) -> None:
    """Write all trials to a file: hyperparameters as h.NAME, metrics as m.NAME, never rescaled.

    A .jsonl file holds the whole history instead, line by line. For TensorBoard and MLflow each
    slot is a run, and hyperparameters are metrics by step.
    """
    if to is None and tensorboard is None and mlflow is None:
        raise typer.BadParameter("give --to, --tensorboard or --mlflow")
    seen = _all_of(name, redis)
    if to is not None:
        _write(seen, to)
    try:
        if tensorboard is not None:
            n = to_tensorboard(seen.experiment, seen.history, tensorboard)
            echo(f"{tensorboard}: {n} trials")
        if mlflow is not None:
            echo(f"{mlflow}: {to_mlflow(seen.experiment, seen.history, mlflow)} trials")
    except ImportError as error:
        raise typer.BadParameter(f"{error}: pip install 'romul[metrics]'") from None


def _write(seen: Snapshot, to: Path) -> None:
    if to.suffix not in (".parquet", ".csv", ".jsonl"):
        raise typer.BadParameter(f"{to}: .parquet, .csv or .jsonl")
    if to.suffix == ".jsonl":
        to.write_text("".join(json.dumps(line) + "\n" for line in seen.history))
        echo(f"{to}: {len(seen.history)} lines of history")
        return
    rows = trial_rows(seen.history)
    if to.suffix == ".csv":
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with to.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, columns)
            writer.writeheader()
            writer.writerows(rows)
    else:
        try:
            import pyarrow as pa  # noqa: PLC0415
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ImportError:
            raise typer.BadParameter("parquet needs pyarrow: pip install 'romul[frames]'") from None
        pq.write_table(pa.Table.from_pylist(rows), to)
    echo(f"{to}: {len(rows)} trials")


def report(
    name: Name,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="HTML file; NAME.html if left out.", dir_okay=False),
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for the pictures, as PNG files.", file_okay=False)
    ] = None,
    redis: RedisUrl = DEFAULT_URL,
) -> None:
    """Write a finished or running search as one HTML page that needs nothing else."""
    seen = _all_of(name, redis)
    found = trials(seen.history)
    best = seen.best.get("trial")
    try:
        drawn = {
            "Metric and hyperparameters by step": plot(seen.experiment, found, best, {}),
            "Who was copied from whom": plot_lineage(found, best),
            "Workers by time": plot_workers(seen.history),
        }
    except ImportError:
        raise typer.BadParameter(
            "pictures need matplotlib: pip install 'romul[dashboard]'"
        ) from None
    images = {title: page.png(figure) for title, figure in drawn.items()}
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for title, image in images.items():
            (pictures / f"{title.lower().replace(' ', '-')}.png").write_bytes(image)
    failed = [
        {"trial": x["trial"], "worker": x["worker"], "reason": x["reason"], "message": _end(x)}
        for x in seen.history
        if x["event"] == "failed" and x["reason"] != "lost"
    ]
    shown = {key: value for key, value in seen.best.items() if key != "vector"}
    parts = [
        page.figures({"status": seen.status, "reason": seen.reason, "best": shown}),
        *(page.image(title, image) for title, image in images.items()),
        "<h2>Trials</h2>",
        page.figures(
            {"trials": dict(seen.counts), "machine seconds": waste(seen.history).as_json()}
        ),
        "<h2>Failures, the latest 50</h2>",
        page.table(failed[-50:]),
        "<h2>The experiment</h2>",
        page.code(seen.experiment.model_dump_json(exclude_defaults=True)),
    ]
    file = to or Path(f"{name}.html")
    page.write(file, f"{name}: {seen.status}", parts)
    echo(f"written: {file}")


def _end(line: Mapping[str, Any]) -> str:
    """The last line of a failure's message, which names it."""
    return str(line.get("message", "")).strip().rpartition("\n")[2][:300]
