"""Options of `romul sim`, by what they are about."""

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from numpy.random import default_rng

from romul_actors.core.optimizers import OPTIMIZERS
from romul_sim.churn import (
    DAY_S,
    GENERATORS,
    MOST_MACHINES,
    Pool,
    Trace,
    generate,
    most_machines,
)
from romul_sim.fakes import Durations
from romul_sim.record import Record, is_record, read_record
from romul_sim.sweep import POLICIES
from romul_sim.trace_files import read_trace, write_trace
from romul_workers.tasks.toys import TOYS

TRIAL_S = 1800.0
"""Median duration of a trial, where neither an option nor a record says it."""


@dataclass(frozen=True)
class Machines:
    """Where the machines come from."""

    trace: Annotated[
        Path | None,
        typer.Option(
            help="Machine counts by time (JSON), or machines' events (JSON lines, also a record "
            "of a real run), plain or by gzip; else a small one that comes with ROMUL."
        ),
    ] = None
    churn: Annotated[
        str | None, typer.Option(help=f"Generate the machines instead: {', '.join(GENERATORS)}.")
    ] = None
    machines: Annotated[
        int, typer.Option(min=1, max=MOST_MACHINES, help="With --churn: how many machines.")
    ] = 16
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
            write_trace(self.save_trace, found)
        return found

    def record(self) -> Record | None:
        """The real run whose record the trace is; None: it is another trace."""
        if self.trace is None or not is_record(self.trace):
            return None
        return read_record(self.trace)

    @property
    def source(self) -> str:
        """Where they come from, in words."""
        if self.churn is not None:
            return f"churn {self.churn}"
        return "the trace that comes with ROMUL" if self.trace is None else f"trace {self.trace}"

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
        typer.Option(
            min=4,
            max=100_000,
            help="Slots; if left out, a record's, or else 1.5 for each machine.",
            show_default=False,
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="PBT steps of each slot; if left out, a record's, or else as many as the "
            "machines' time holds.",
            show_default=False,
        ),
    ] = None
    searches: Annotated[int, typer.Option(min=1, help="Searches on the same machines.")] = 1


@dataclass(frozen=True)
class Costs:
    """How long everything takes, and what a machine costs."""

    trial_s: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Median duration of a trial, seconds.",
            show_default=f"that of a record's trials, else {TRIAL_S:g}",
        ),
    ] = None
    spread: Annotated[
        float,
        typer.Option(min=0, help="Standard deviation of the logarithm of a trial's duration."),
    ] = 0.3
    by_hyperparameter: Annotated[
        float,
        typer.Option(min=1, help="Ratio of longest to shortest, by the first hyperparameter."),
    ] = 1.0
    speeds: Annotated[
        float,
        typer.Option(
            min=1,
            help="Ratio of the fastest machine to the slowest, where the trace has no speeds.",
        ),
    ] = 2.0
    save_s: Annotated[
        float,
        typer.Option(
            min=0,
            help="Time to save a checkpoint, seconds, on a machine of speed 1; it trains nothing "
            "meanwhile. With --overlap the same on all machines, beside the next trial.",
        ),
    ] = 0.0
    overlap: Annotated[
        bool,
        typer.Option(
            "--overlap",
            help="Checkpoints are saved while the next trial trains, as workers do it where that "
            "takes 0.2 s or more.",
        ),
    ] = False
    load_s: Annotated[
        float,
        typer.Option(min=0, help="Time to load a checkpoint, seconds, on a machine of speed 1."),
    ] = 0.0
    latency_s: Annotated[
        float, typer.Option(min=0, help="Mean latency to the store, each way, seconds.")
    ] = 0.0
    notice_s: Annotated[
        float,
        typer.Option(
            min=0, help="Notice before a machine goes, seconds, where the trace has none."
        ),
    ] = 0.0
    price: Annotated[
        float,
        typer.Option(min=0, help="Dollars for a machine's hour, where the trace has no price."),
    ] = 1.0

    @property
    def durations(self) -> Durations:
        """How long a trial takes."""
        trial_s = TRIAL_S if self.trial_s is None else self.trial_s
        return Durations(
            trial_s,
            self.spread,
            self.by_hyperparameter,
            self.load_s,
            self.save_s,
            beside=self.overlap and self.save_s > 0,
        )


@dataclass(frozen=True)
class Runs:
    """How many simulations, and what they are judged by."""

    seed: Annotated[int, typer.Option(min=0, help="All randomness derives from it.")] = 0
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Compare so many seeds, from --seed on; if left out 1, with --recommend 3.",
            show_default=False,
        ),
    ] = None
    target: Annotated[
        float | None,
        typer.Option(
            help="Comparisons rank by the time to this loss; what half of all runs reach if left "
            "out."
        ),
    ] = None
    recommend: Annotated[
        bool,
        typer.Option(
            "--recommend", help="Compare slots for each machine and leases, with one policy."
        ),
    ] = False

    def numbers(self, default: int) -> range:
        """All seeds; `default` many if it is not said how many."""
        return range(self.seed, self.seed + (self.seeds or default))


def as_recorded(searches: Searches, costs: Costs, record: Record | None) -> tuple[Searches, Costs]:
    """The options, with what was not given as it was in the recorded run."""
    if record is None:
        return searches, costs
    declared = record.experiment
    given = replace(
        searches,
        population=searches.population or declared.population,
        steps=searches.steps or declared.steps,
    )
    return given, replace(costs, trial_s=costs.trial_s or record.trial_s)
