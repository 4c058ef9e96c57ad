"""`romul sim`: a population on machines that come and go, in seconds."""

import json
import logging
import time
from pathlib import Path
from typing import Annotated

import typer
from numpy.random import default_rng
from rich import box
from rich.console import Console
from rich.table import Table

from romul_actors.cli.options import AsJson
from romul_actors.optimizers import OPTIMIZERS
from romul_sim.churn import poisson, read_trace
from romul_sim.world import Scenario, simulate
from romul_workers.tasks.toys import TOYS

YEAR_S = 365 * 24 * 3600.0


def sim(
    trace: Annotated[
        Path | None,
        typer.Option(help="Machine counts by time, as JSON; else machines of exponential life."),
    ] = None,
    machines: Annotated[int, typer.Option(min=1, help="Machines, without a trace.")] = 8,
    lifetime_s: Annotated[
        float, typer.Option(min=1, help="Mean life of a machine, without a trace.")
    ] = 1800.0,
    problem: Annotated[str, typer.Option(help=f"One of {', '.join(TOYS)}.")] = "misspecified",
    optimizer: Annotated[str, typer.Option(help=f"One of {', '.join(OPTIMIZERS)}.")] = "romul",
    population: Annotated[int, typer.Option(min=4, help="Slots.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="PBT steps of each slot.")] = 40,
    trial_s: Annotated[float, typer.Option(min=0.001, help="Median duration of a trial.")] = 60.0,
    notice_s: Annotated[float, typer.Option(min=0, help="Warning before a machine goes.")] = 0.0,
    lease_s: Annotated[
        float, typer.Option(min=1, help="Silence after which a trial is lost.")
    ] = 30.0,
    seed: Annotated[int, typer.Option(min=0, help="All randomness derives from it.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate a population on machines that come and go.

    The actor, the workers and the decisions are the real ones; time, machines and training are not.
    """
    if problem not in TOYS:
        raise typer.BadParameter(f"{problem!r} is not one of {', '.join(TOYS)}")
    if optimizer not in OPTIMIZERS:
        raise typer.BadParameter(f"{optimizer!r} is not one of {', '.join(OPTIMIZERS)}")
    span_s = min(YEAR_S, 50 * trial_s * population * steps / machines)
    changes = (
        read_trace(trace)
        if trace is not None
        else poisson(machines, lifetime_s, span_s, default_rng(seed))
    )
    # Every lost machine is a warning in production, and the point of the whole thing here.
    logging.getLogger("romul").setLevel(logging.ERROR)
    began = time.monotonic()
    told = dict(
        simulate(
            Scenario(
                changes=changes,
                problem=problem,
                optimizer=optimizer,
                population=population,
                steps=steps,
                trial_s=trial_s,
                notice_s=notice_s,
                lease_s=lease_s,
                seed=seed,
            )
        )
    )
    del told["history"]
    told["wall_s"] = round(time.monotonic() - began, 3)
    if as_json:
        typer.echo(json.dumps(told))
    else:
        table = Table("figure", "value", box=box.SIMPLE_HEAD)
        for name, value in told.items():
            shown = json.dumps(value) if isinstance(value, dict) else str(value)
            table.add_row(name.replace("_", " "), shown)
        Console(highlight=False).print(table)
    if told["status"] != "finished":
        raise typer.Exit(1)
