"""`romul demo` and `romul run`: server, actor and workers on this machine, in one go."""

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from rich.console import Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from romul_actors.cli.exits import EXPERIMENT_FAILED, INTERRUPTED
from romul_actors.cli.experiments import figure, progress, readable, slots_table
from romul_actors.cli.options import (
    AsJson,
    Deadline,
    RunsFolder,
    WithBroker,
    resolve,
    with_deadline,
)
from romul_actors.cli.printing import NARROW, Console, Table, echo_json, shortened
from romul_actors.cli.services import opened, stopping
from romul_actors.client import Client
from romul_actors.errors import ExperimentError, ExperimentExistsError, UnknownExperimentError
from romul_actors.launch.crew import crew
from romul_actors.local.mqtt_broker import embedded_broker, has_broker
from romul_actors.local.processes import running
from romul_actors.local.redis_server import check_idle, embedded_server
from romul_actors.observe.html import png
from romul_actors.observe.lineage import plot, read_history, summary, trials
from romul_actors.protocol.experiment import Experiment, OptimizerSpec, load, parse
from romul_actors.protocol.plan import settings
from romul_actors.store import Store
from romul_actors.waiting import pause
from romul_workers.figures import in_words

ENDED = ("finished", "failed", "stopped")
REFRESH_S = 0.5
MOST_FIGURES = 4
"""Figures beside the metric that the table at the end shows."""
LINE_S = 5.0
"""How often a line is printed where there is no terminal to draw on."""
RANDOM_SEED = 2
"""Seed of the demo's random search: its result is the median of seeds 0 to 20.

By `python benchmarks/digits.py --seeds 21 --steps 40 --optimizers random`, which takes the demo's
task, slots and steps. One seed says little, and seed 0 is the worst of them.
"""


@dataclass(frozen=True)
class LocalRun:
    """What `run --resume` must know again.

    Attributes:
        experiments: names, the one to look at first.
        workers: how many.
        allow: task modules that the workers may import.
        paths: folders that they find them in.
    """

    experiments: Sequence[str]
    workers: int
    allow: Sequence[str]
    paths: Sequence[str]

    @staticmethod
    def read(folder: Path) -> "LocalRun":
        """Read a run's own file.

        Raises:
            UnknownExperimentError: there is no run in `folder`.
        """
        try:
            return LocalRun(**json.loads((folder / "run.json").read_text()))
        except FileNotFoundError:
            raise UnknownExperimentError(f"{folder}: no run there to go on with") from None

    def write(self, folder: Path) -> None:
        """Keep it in `folder`."""
        (folder / "run.json").write_text(json.dumps(vars(self), indent=1))


@dataclass(frozen=True)
class Outcome:
    """How a local run ended."""

    summaries: Mapping[str, dict[str, Any]]
    interrupted: bool
    wall_s: float


async def _run(
    folder: Path,
    plan: LocalRun,
    new: Sequence[Experiment],
    url: str | None,
    *,
    broker: bool,
    quiet: bool,
) -> Outcome:
    """Start everything, watch it to its end, write down what came out."""
    console = Console(stderr=True, quiet=quiet)
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stopping())
        mqtt = None
        if url is None:
            url = await stack.enter_async_context(embedded_server(folder))
            if broker and has_broker():
                mqtt = await stack.enter_async_context(embedded_broker(folder))
        url = resolve(url)
        store = await stack.enter_async_context(opened(url, console))
        client = Client(store, by="run --resume")
        for experiment in new:
            await client.submit(experiment)
        experiments = [await client.spec(name) for name in plan.experiments]
        for experiment in experiments:
            # An older version may have stored what this one cannot decide.
            settings(experiment)
        plan.write(folder)
        statuses = await client.statuses()
        for name in plan.experiments:
            if not new and statuses[name] in ("paused", "failed"):
                await client.resume(name)
        members = await stack.enter_async_context(
            running(crew(url, folder, plan.workers, plan.allow, [*map(Path, plan.paths)], mqtt))
        )
        watcher = _Watcher(store, experiments, console, resumed=not new)
        with watcher:
            while not stop.is_set() and not await watcher.look():
                await members.start()
                await pause(REFRESH_S, stop)
        wall_s = time.monotonic() - began
        summaries = await _write_down(store, folder, experiments, console)
        return Outcome(summaries, stop.is_set(), wall_s)


class _Watcher:
    """The live view: a table on a terminal, else a line now and then."""

    def __init__(
        self, store: Store, experiments: Sequence[Experiment], console: Console, *, resumed: bool
    ) -> None:
        self._store = store
        self._experiments = experiments
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials  {task.fields[best]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._tasks = {
            e.name: self._bars.add_task(e.name, total=e.population * e.steps, best="")
            for e in experiments
        }
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._said = time.monotonic()
        # A run that goes on after a failure says "failed" until the actor has heard of it.
        self._ignore_until = time.monotonic() + (5.0 if resumed else 0.0)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    async def look(self) -> bool:
        """Show how things stand; True when all experiments have ended."""
        rows, first = [], Table()
        for index, experiment in enumerate(self._experiments):
            stored = await self._store.load(experiment.name)
            row = progress(stored.meta, experiment)
            rows.append(row)
            best = "" if row["best"] is None else _best(row)
            self._bars.update(self._tasks[experiment.name], completed=row["trials"], best=best)
            if index == 0 and self._console.is_terminal:
                first = slots_table([readable(slot) for slot in stored.slots], experiment)
        if self._console.is_terminal:
            self._live.update(Group(self._bars, first), refresh=True)
        elif time.monotonic() - self._said >= LINE_S:
            self._said = time.monotonic()
            told = (
                f"{row['name']} {row['trials']}/{row['trials_total']}"
                + ("" if row["best"] is None else f", {_best(row)}")
                for row in rows
            )
            self._console.print("; ".join(told), soft_wrap=True)
        ended = all(row["status"] in ENDED for row in rows)
        failed = any(row["status"] == "failed" for row in rows)
        return ended and not (failed and time.monotonic() < self._ignore_until)


async def _write_down(
    store: Store, folder: Path, experiments: Sequence[Experiment], console: Console
) -> dict[str, dict[str, Any]]:
    """Summaries and pictures of all experiments, into the run's folder."""
    summaries, told = {}, {}
    for experiment in experiments:
        meta = (await store.load(experiment.name)).meta
        history = await read_history(store, experiment.name)
        told[experiment.name] = trials(history)
        left_out: dict[str, str] = {}
        for line in history:
            left_out = {**line.get("left_out", {}), **left_out}
        if left_out:
            console.print(f"warning: {experiment.name}: {in_words(left_out)}", soft_wrap=True)
        summaries[experiment.name] = summary(experiment, meta, told[experiment.name])
    first = experiments[0]
    others = {name: found for name, found in told.items() if name != first.name}
    try:
        best = summaries[first.name]["best_trial"]
        picture = png(plot(first, told[first.name], best, others))
        (folder / "schedules.png").write_bytes(picture)
    except ImportError:
        console.print("no picture: matplotlib is not installed (pip install 'romul[dashboard]')")
    return summaries


def _best(row: Mapping[str, Any]) -> str:
    return f"best {shortened(row['metric'])} {figure(row['best'])}"


def _begin(folder: Path, plan: LocalRun) -> None:
    if (folder / "run.json").exists():
        raise ExperimentExistsError(
            f"{folder} holds a run already: go on with `romul run --resume {folder.name}`, "
            "or choose another name or folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    plan.write(folder)


def _table(console: Console, summaries: Sequence[Mapping[str, Any]]) -> None:
    table = Table()
    metric = summaries[0]["metric"]
    others = sorted({name for row in summaries for name in row["best_metrics"] or {}})
    left_out = len(others) - MOST_FIGURES
    others = others[:MOST_FIGURES]
    for column in ("experiment", "status", "trials", "failed", metric, *others, "checkpoint"):
        table.add_column(
            column,
            justify="left" if column in ("experiment", "status") else "right",
            max_width=NARROW if column in (metric, *others) else None,
        )
    for row in summaries:
        metrics = row["best_metrics"] or {}
        table.add_row(
            row["name"],
            row["status"],
            str(row["trials"]),
            str(row["failed"]),
            "" if row["best"] is None else figure(row["best"]),
            *(figure(metrics[name]) if name in metrics else "" for name in others),
            row["best_checkpoint"] or "",
        )
    console.print(table)
    if left_out > 0:
        console.print(f"{left_out} more figures: summary.json")
    best = summaries[0]["best_hyperparameters"]
    if best:
        console.print("best: " + ", ".join(f"{name} {figure(v)}" for name, v in best.items()))
    for row in summaries:
        if row["reason"]:
            console.print(f"{row['name']}: {row['reason']}", soft_wrap=True)


def _finish(folder: Path, outcome: Outcome, extra: Mapping[str, Any], *, as_json: bool) -> None:
    """Write the summary, print it, and end with the exit code that fits."""
    rows = list(outcome.summaries.values())
    told = {**rows[0], **extra, "wall_s": round(outcome.wall_s, 3)}
    (folder / "summary.json").write_text(json.dumps(told, indent=1) + "\n")
    console = Console()
    if as_json:
        echo_json(told)
    else:
        _table(console, rows)
        console.print(
            f"{outcome.wall_s:.1f} s; written to {folder}: summary.json, schedules.png, "
            "checkpoints/, logs/",
            soft_wrap=True,
        )
    if outcome.interrupted:
        if not as_json:
            console.print(f"interrupted: `romul run --resume {folder.name}` goes on")
        raise typer.Exit(INTERRUPTED)
    if any(row["status"] != "finished" for row in rows):
        raise typer.Exit(EXPERIMENT_FAILED)


def run(
    file: Annotated[
        Path | None, typer.Argument(help="Experiment: a .toml or .py file.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go on with a run that was interrupted.")
    ] = None,
    runs: RunsFolder = Path("runs"),
    redis: Annotated[
        str | None, typer.Option(help="Use this server in place of an embedded one.")
    ] = None,
    deadline: Deadline = None,
    broker: WithBroker = True,
    as_json: AsJson = False,
) -> None:
    """Run an experiment on this machine: server, actor and workers in one go.

    Ctrl-C ends it cleanly; --resume goes on where it was.
    """
    if (file is None) == (resume is None):
        raise typer.BadParameter("give an experiment's file, or --resume NAME")
    if resume is not None:
        folder = runs / resume
        plan, new = LocalRun.read(folder), []
        plan = LocalRun(plan.experiments, workers, plan.allow, plan.paths)
    else:
        file = Path(str(file))
        experiment = with_deadline(load(file), deadline)
        folder = runs / experiment.name
        if experiment.checkpoints is None:
            place = str((folder / "checkpoints").resolve())
            experiment = experiment.model_copy(update={"checkpoints": place})
        settings(experiment)
        # Who runs a file here and now means its task: no --allow is asked for.
        paths = [str(file.parent.resolve())]
        plan, new = LocalRun([experiment.name], workers, [experiment.module], paths), [experiment]
        _begin(folder, plan)
    outcome = asyncio.run(_run(folder, plan, new, redis, broker=broker, quiet=as_json))
    _finish(folder, outcome, {}, as_json=as_json)


def demo(
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    population: Annotated[int, typer.Option(min=4, help="Slots.")] = 8,
    steps: Annotated[int | None, typer.Option(min=1, help="PBT steps of each slot.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the search; random search has one of its own.")
    ] = 0,
    runs: RunsFolder = Path("runs"),
    broker: WithBroker = True,
    as_json: AsJson = False,
) -> None:
    """Train a population on handwritten digits, with random search beside it.

    The random search is the one whose result, with 8 slots and 40 steps, is the median of 21 seeds.
    """
    folder = runs / "demo"
    changes: dict[str, Any] = {
        "population": population,
        "seed": seed,
        "checkpoints": str((folder / "checkpoints").resolve()),
    }
    if steps is not None:
        changes["steps"] = steps
    text = (files("romul_workers.tasks") / "digits.toml").read_text()
    experiment = parse(text, "digits.toml").model_copy(update={**changes, "name": "demo"})
    rival = experiment.model_copy(
        update={
            "name": "demo-random",
            "seed": RANDOM_SEED,
            "optimizer": OptimizerSpec(name="random"),
            "checkpoints": str((folder / "checkpoints-random").resolve()),
        }
    )
    if folder.exists():
        # Only what an earlier demo has left, and only if it is no longer running.
        check_idle(folder)
        if not (folder / "run.json").exists():
            raise ExperimentError(f"{folder} exists and is no earlier demo: choose another --runs")
        shutil.rmtree(folder)
    plan = LocalRun([experiment.name, rival.name], workers, [], [])
    _begin(folder, plan)
    outcome = asyncio.run(
        _run(folder, plan, [experiment, rival], None, broker=broker, quiet=as_json)
    )
    ours, random = (outcome.summaries[name] for name in plan.experiments)
    extra = {
        "best_val_loss": ours["best"],
        "test_accuracy": (ours["best_metrics"] or {}).get("test_accuracy"),
        "random_best_val_loss": random["best"],
        "random_test_accuracy": (random["best_metrics"] or {}).get("test_accuracy"),
    }
    _finish(folder, outcome, extra, as_json=as_json)
