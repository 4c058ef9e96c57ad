"""Options of `romul sim`, in groups."""

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from numpy.random import default_rng

from romul_actors.core.optimizers import OPTIMIZERS
from romul_sim.churn.sweep import POLICIES
from romul_sim.churn.trace import (
    DAY_S,
    GENERATORS,
    MOST_MACHINES,
    Pool,
    Trace,
    generate,
    most_machines,
)
from romul_sim.churn.trace_files import read_trace, write_trace
from romul_sim.cluster.training import Durations
from romul_sim.records.record import Record, is_record, read_record
from romul_workers.tasks.toys import TOYS

TRIAL_S = 1800.0
"""Default median duration of a trial, if there is no record."""


@dataclass(frozen=True)
class Machines:
    """The source of the machines."""

    trace: Annotated[
        Path | None,
        typer.Option(
            help="File of machine counts by time (JSON), or of machine events (JSON lines, or a "
            "record of a real run), plain or gzipped. Default: a small trace that comes with ROMUL."
        ),
    ] = None
    churn: Annotated[
        str | None, typer.Option(help=f"Generate a trace instead: one of {', '.join(GENERATORS)}.")
    ] = None
    machines: Annotated[
        int, typer.Option(min=1, max=MOST_MACHINES, help="With --churn: number of machines.")
    ] = 16
    lifetime_h: Annotated[
        float, typer.Option(min=0.001, help="With --churn: mean lifetime of a machine, in hours.")
    ] = 4.0
    zones: Annotated[int, typer.Option(min=1, help="With --churn: number of zones.")] = 4
    days: Annotated[float, typer.Option(min=0.001, help="With --churn: length in days.")] = 2.0
    save_trace: Annotated[
        Path | None, typer.Option(help="Also write the machine events to this file.")
    ] = None

    def make(self, seed: int) -> Trace:
        """Read the trace, or generate one; save it if a file is given.

        Raises:
            typer.BadParameter: both options are given, or no machine ever arrives.
        """
        found = self._trace(seed)
        if self.save_trace is not None:
            write_trace(self.save_trace, found)
        return found

    def record(self) -> Record | None:
        """The record of a real run, if the trace is one; None if not."""
        if self.trace is None or not is_record(self.trace):
            return None
        return read_record(self.trace)

    @property
    def source(self) -> str:
        """The source of the machines, in words."""
        if self.churn is not None:
            return f"churn {self.churn}"
        return "the trace that comes with ROMUL" if self.trace is None else f"trace {self.trace}"

    def _trace(self, seed: int) -> Trace:
        if self.trace is not None and self.churn is not None:
            raise typer.BadParameter("give --trace or --churn, not both")
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
    """The searches on the machines."""

    problem: Annotated[str, typer.Option(help=f"Toy problem: one of {', '.join(TOYS)}.")] = (
        "misspecified"
    )
    optimizer: Annotated[
        str,
        typer.Option(
            help=f"Optimizers, separated by commas: {', '.join(OPTIMIZERS)}. Options follow a name "
            "(romul:factor=0.5)."
        ),
    ] = "romul"
    policies: Annotated[
        str,
        typer.Option(
            "--policy",
            help=f"Policies, separated by commas: {', '.join(POLICIES)}. Settings follow a name "
            "(default:lease_s=60:per_worker=2).",
        ),
    ] = "default"
    population: Annotated[
        int | None,
        typer.Option(
            min=4,
            max=100_000,
            help="Number of slots. Default: that of the record, or else 1.5 per machine.",
            show_default=False,
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="PBT steps per slot. Default: those of the record, or else as many as fit into "
            "the trace.",
            show_default=False,
        ),
    ] = None
    searches: Annotated[
        int, typer.Option(min=1, help="Number of searches on the same machines.")
    ] = 1


@dataclass(frozen=True)
class Costs:
    """Durations, and the price of machines."""

    trial_s: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Median duration of a trial, in seconds.",
            show_default=f"that of the record, else {TRIAL_S:g}",
        ),
    ] = None
    spread: Annotated[
        float,
        typer.Option(min=0, help="Standard deviation of the logarithm of a trial's duration."),
    ] = 0.3
    by_hyperparameter: Annotated[
        float,
        typer.Option(
            min=1, help="Ratio of trial durations at the highest and lowest first hyperparameter."
        ),
    ] = 1.0
    speeds: Annotated[
        float,
        typer.Option(
            min=1,
            help="Ratio of the fastest machine to the slowest, if the trace has no speeds.",
        ),
    ] = 2.0
    save_s: Annotated[
        float,
        typer.Option(
            min=0,
            help="Time to save a checkpoint, in seconds, on a machine of speed 1, which does not "
            "train meanwhile. With --overlap: on any machine, while the next trial trains.",
        ),
    ] = 0.0
    overlap: Annotated[
        bool,
        typer.Option(
            "--overlap",
            help="Save checkpoints while the next trial trains, as workers do if saving takes "
            "0.2 s or more.",
        ),
    ] = False
    load_s: Annotated[
        float,
        typer.Option(min=0, help="Time to load a checkpoint, in seconds, on a machine of speed 1."),
    ] = 0.0
    latency_s: Annotated[
        float, typer.Option(min=0, help="Mean one-way latency to the store, in seconds.")
    ] = 0.0
    notice_s: Annotated[
        float,
        typer.Option(min=0, help="Notice before a preemption, in seconds, if the trace has none."),
    ] = 0.0
    price: Annotated[
        float,
        typer.Option(min=0, help="Price of a machine in dollars per hour, if the trace has none."),
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
    """The number of simulations, and how they are compared."""

    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of seeds, starting at --seed. Default: 1; with --recommend, 3.",
            show_default=False,
        ),
    ] = None
    target: Annotated[
        float | None,
        typer.Option(
            help="Rank comparisons by the time to this loss. Default: the loss that half of all "
            "runs reach."
        ),
    ] = None
    recommend: Annotated[
        bool,
        typer.Option(
            "--recommend",
            help="Compare slots per machine and leases under one policy, and recommend the best.",
        ),
    ] = False

    def numbers(self, default: int) -> range:
        """All seeds; `default` is their number if none was given."""
        return range(self.seed, self.seed + (self.seeds or default))


def as_recorded(searches: Searches, costs: Costs, record: Record | None) -> tuple[Searches, Costs]:
    """The options, with those that were not given taken from the recorded run."""
    if record is None:
        return searches, costs
    declared = record.experiment
    given = replace(
        searches,
        population=searches.population or declared.population,
        steps=searches.steps or declared.steps,
    )
    return given, replace(costs, trial_s=costs.trial_s or record.trial_s)
