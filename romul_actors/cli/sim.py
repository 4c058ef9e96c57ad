"""`romul sim`: a population on machines that come and go, years of them in minutes."""

import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from numpy.random import default_rng

from romul_actors.cli.exits import EXPERIMENT_FAILED
from romul_actors.cli.option_groups import with_groups
from romul_actors.cli.options import AsJson
from romul_actors.cli.printing import Console, Table, echo, echo_json
from romul_actors.cli.progress import progress
from romul_actors.core.optimizers import OPTIMIZERS
from romul_actors.errors import ExperimentError
from romul_sim.churn import (
    DAY_S,
    GENERATORS,
    Pool,
    Trace,
    generate,
    most_machines,
    read_trace,
    write_trace,
)
from romul_sim.fakes import Durations
from romul_sim.play import optimizer_spec
from romul_sim.simulation import Policy, Scenario
from romul_sim.sweep import (
    POLICIES,
    SweepJob,
    checkpoint_interval_s,
    choices,
    chosen,
    compare,
    default_population,
    laid_out,
    mean_life_s,
    picture,
    play_all,
    policy,
)
from romul_workers.tasks.toys import TOYS

RECOMMEND_SEEDS = 3


@dataclass(frozen=True)
class Machines:
    """Where the machines come from."""

    trace: Annotated[
        Path | None,
        typer.Option(
            help="Machine counts by time (JSON), or machines' events (JSON lines, also a record "
            "of a real run); else a small one that comes with ROMUL."
        ),
    ] = None
    churn: Annotated[
        str | None, typer.Option(help=f"Generate the machines instead: {', '.join(GENERATORS)}.")
    ] = None
    machines: Annotated[int, typer.Option(min=1, help="With --churn: how many machines.")] = 16
    lifetime_h: Annotated[
        float, typer.Option(min=0.001, help="With --churn: mean lifetime of a machine, hours.")
    ] = 4.0
    zones: Annotated[int, typer.Option(min=1, help="With --churn: zones.")] = 4
    days: Annotated[float, typer.Option(min=0.001, help="With --churn: length, days.")] = 2.0
    save_trace: Annotated[
        Path | None, typer.Option(help="Write the machines' events to this file as well.")
    ] = None

    def make(self, seed: int) -> Trace:
        """Read the trace, or generate one; save it if a file is given.

        Raises:
            typer.BadParameter: both are given, or no machine ever arrives.
        """
        found = self._trace(seed)
        if self.save_trace is not None:
            write_trace(self.save_trace, found.changes)
        return found

    def _trace(self, seed: int) -> Trace:
        if self.trace is not None and self.churn is not None:
            raise typer.BadParameter("--trace and --churn: one of them")
        if self.churn is not None:
            pool = Pool(self.machines, 3600 * self.lifetime_h, DAY_S * self.days, self.zones)
            return generate(self.churn, pool, default_rng(seed))
        shipped = Path(str(files("romul_sim"))) / "traces" / "default.jsonl"
        found = read_trace(self.trace or shipped)
        if not most_machines(found.changes):
            raise typer.BadParameter(f"{self.trace}: no machine ever arrives")
        return found


@dataclass(frozen=True)
class Searches:
    """What is searched on them, and how."""

    problem: Annotated[str, typer.Option(help=f"One of {', '.join(TOYS)}.")] = "misspecified"
    optimizer: Annotated[
        str,
        typer.Option(
            help=f"Some of {', '.join(OPTIMIZERS)}, commas between, with options if need be "
            "(romul:factor=0.5)."
        ),
    ] = "romul"
    policies: Annotated[
        str,
        typer.Option(
            "--policy",
            help=f"Some of {', '.join(POLICIES)}, commas between, with settings if need be "
            "(default:lease_s=60:per_worker=2).",
        ),
    ] = "default"
    population: Annotated[
        int | None,
        typer.Option(min=4, help="Slots; 1.5 for each machine if left out.", show_default=False),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="PBT steps of each slot; as many as the machines' time holds if left out.",
            show_default=False,
        ),
    ] = None
    searches: Annotated[int, typer.Option(min=1, help="Searches on the same machines.")] = 1


@dataclass(frozen=True)
class Costs:
    """How long everything takes, and what a machine costs."""

    trial_s: Annotated[
        float, typer.Option(min=0.001, help="Median duration of a trial, seconds.")
    ] = 1800.0
    spread: Annotated[
        float,
        typer.Option(min=0, help="Standard deviation of the logarithm of a trial's duration."),
    ] = 0.3
    by_hyperparameter: Annotated[
        float,
        typer.Option(min=1, help="Ratio of longest to shortest, by the first hyperparameter."),
    ] = 1.0
    speeds: Annotated[
        float, typer.Option(min=1, help="Ratio of the fastest machine to the slowest.")
    ] = 2.0
    save_s: Annotated[float, typer.Option(min=0, help="Time to save a checkpoint, seconds.")] = 0.0
    load_s: Annotated[float, typer.Option(min=0, help="Time to load a checkpoint, seconds.")] = 0.0
    latency_s: Annotated[
        float, typer.Option(min=0, help="Mean latency to the store, each way, seconds.")
    ] = 0.0
    notice_s: Annotated[
        float,
        typer.Option(
            min=0, help="Notice before a machine goes, seconds, where the trace has none."
        ),
    ] = 0.0
    price: Annotated[float, typer.Option(min=0, help="Dollars for a machine's hour.")] = 1.0


@dataclass(frozen=True)
class Runs:
    """How many simulations, and what they are judged by."""

    seed: Annotated[int, typer.Option(min=0, help="All randomness derives from it.")] = 0
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Compare so many seeds, from --seed on."),
    ] = None
    target: Annotated[
        float | None,
        typer.Option(help="Loss to reach; what half of all runs reach if left out."),
    ] = None
    recommend: Annotated[
        bool,
        typer.Option(
            "--recommend", help="Compare slots for each machine, leases and lengths of a step."
        ),
    ] = False

    def numbers(self, default: int) -> range:
        """All seeds; `default` many if it is not said how many."""
        return range(self.seed, self.seed + (self.seeds or default))


@with_groups
def sim(
    machines: Machines,
    searches: Searches,
    costs: Costs,
    runs: Runs,
    report: Annotated[
        Path | None, typer.Option(help="Write a page with pictures to this HTML file.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes; as many as cores if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a population on machines that come and go.

    The actor, the workers and the decisions are the real ones; time, machines and training are not.
    With several optimizers or policies, or with --seeds, all are compared on the same machines.
    """
    if searches.problem not in TOYS:
        raise typer.BadParameter(f"{searches.problem!r} is not one of {', '.join(TOYS)}")
    trace = machines.make(runs.seed)
    scenario = _scenario(trace, searches, costs, golden=as_json)
    # Every lost machine is a warning in production, and the point of the whole thing here.
    logging.getLogger("romul").setLevel(logging.ERROR)
    began = time.monotonic()
    if runs.recommend:
        optimizer = _only(searches.optimizer)
        recommended = _recommend(scenario, trace, optimizer, runs, processes, shown=not as_json)
        _print(recommended, as_json=as_json)
        return
    jobs = _jobs(scenario, trace, searches, runs)
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    if len(jobs) > 1:
        rows = _sweep(jobs, runs.target, processes, quiet=as_json)
    if len(jobs) == 1 or report is not None:
        figures, ledger = picture(jobs[0].scenario)
        if report is not None:
            _write(report, figures, ledger, rows)
    shown: dict[str, Any] = {"rows": rows} if rows else figures
    shown["wall_s"] = round(time.monotonic() - began, 3)
    _print(shown, as_json=as_json)
    if sum(row["invariants_broken"] for row in rows or [figures]):
        raise typer.Exit(EXPERIMENT_FAILED)


def _scenario(trace: Trace, searches: Searches, costs: Costs, *, golden: bool) -> Scenario:
    return Scenario(
        trace.changes,
        problem=searches.problem,
        population=searches.population or default_population(trace.changes),
        searches=searches.searches,
        durations=Durations(
            costs.trial_s, costs.spread, costs.by_hyperparameter, costs.load_s, costs.save_s
        ),
        speeds=costs.speeds,
        notice_s=costs.notice_s,
        latency_s=costs.latency_s,
        price=costs.price,
        golden=golden,
    )


def _jobs(scenario: Scenario, trace: Trace, searches: Searches, runs: Runs) -> list[SweepJob]:
    """A simulation for each optimizer, policy and seed."""
    jobs = []
    for optimizer, text, seed in product(
        searches.optimizer.split(","), searches.policies.split(","), runs.numbers(1)
    ):
        made = replace(
            scenario,
            optimizer=_spec(optimizer),
            policy=policy(text, scenario.durations.trial_s),
            seed=seed,
        )
        jobs.append(SweepJob(optimizer, text, seed, laid_out(made, trace.span_s, searches.steps)))
    return jobs


def _spec(text: str) -> dict[str, Any]:
    try:
        return optimizer_spec(text)
    except ExperimentError as error:
        raise typer.BadParameter(str(error)) from None


def _only(optimizer: str) -> str:
    if "," in optimizer:
        raise typer.BadParameter("--recommend takes one optimizer")
    return optimizer


def _sweep(
    jobs: Sequence[SweepJob], target: float | None, processes: int | None, *, quiet: bool
) -> list[dict[str, Any]]:
    results = []
    with progress(hidden=quiet) as bar:
        played = play_all(jobs, processes or os.cpu_count())
        for job, ended in bar.track(played, len(jobs), description="simulations"):
            results.append((job, ended))
            if ended.figures["invariants_broken"]:
                bar.console.print(f"{job.policy}, seed {job.seed}: {ended.figures['broken']}")
    return compare(results, target)


def _recommend(
    scenario: Scenario,
    trace: Trace,
    optimizer: str,
    runs: Runs,
    processes: int | None,
    *,
    shown: bool,
) -> dict[str, Any]:
    scenario = replace(scenario, optimizer=_spec(optimizer), policy=Policy())
    jobs = [
        SweepJob(optimizer, choice.name, n, chosen(replace(scenario, seed=n), choice, trace.span_s))
        for choice in choices(scenario.durations.trial_s)
        for n in runs.numbers(RECOMMEND_SEEDS)
    ]
    rows = _sweep(jobs, runs.target, processes, quiet=not shown)
    life_s = mean_life_s(trace.changes, trace.span_s)
    interval_s = checkpoint_interval_s(scenario.durations.save_s, life_s)
    best = next(c for c in choices(scenario.durations.trial_s) if c.name == rows[0]["policy"])
    machines = most_machines(trace.changes)
    return {
        "rows": rows,
        "recommended": {
            "population": max(4, round(best.per_machine * machines)),
            "lease_s": best.lease_s,
            "step_s": best.trial_s,
            "checkpoint_interval_s": None if interval_s is None else round(interval_s, 1),
            "mean_life_s": round(life_s, 1) if life_s < float("inf") else None,
        },
    }


def _write(
    file: Path, figures: dict[str, Any], ledger: Any, rows: Sequence[dict[str, Any]]
) -> None:
    from romul_sim.page import write_page  # noqa: PLC0415

    command = "romul " + shlex.join(sys.argv[1:])
    try:
        write_page(file, "A simulated search", command, figures, ledger, rows)
    except ImportError:
        raise typer.BadParameter(
            "--report needs matplotlib: pip install 'romul[dashboard]'"
        ) from None
    echo(f"written: {file}", err=True)


def _print(figures: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        echo_json(figures)
        return
    console = Console()
    if "rows" not in figures:
        table = Table("figure", "value")
        for name, value in figures.items():
            shown = json.dumps(value) if isinstance(value, dict) else str(value)
            table.add_row(name.replace("_", " "), shown)
        console.print(table)
        return
    right = ("goodput", "best", "hours to target", "dollars to target", "worst waste")
    table = Table("optimizer", "policy", right=right)
    for row in figures["rows"]:
        worst = max(row["waste"].items(), key=lambda item: item[1] or 0.0)
        table.add_row(
            row["optimizer"],
            row["policy"],
            *(
                "-" if row[key] is None else f"{row[key]:.4g}"
                for key in ("goodput", "best", "hours_to_target", "dollars_to_target")
            ),
            f"{worst[0]} {100 * (worst[1] or 0.0):.0f} %",
        )
    console.print(table)
    if figures["rows"]:
        console.print(f"target: {figures['rows'][0]['target']:.6g}")
    for name, value in figures.get("recommended", {}).items():
        console.print(f"recommended {name.replace('_', ' ')}: {'-' if value is None else value}")
