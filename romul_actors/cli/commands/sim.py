"""`romul sim`: simulate a population on machines that come and go."""

import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import isinf
from pathlib import Path
from typing import Annotated, Any

import typer

from romul_actors.cli.exits import EXPERIMENT_FAILED
from romul_actors.cli.options.groups import with_groups
from romul_actors.cli.options.shared import AsJson
from romul_actors.cli.options.sim import Costs, Machines, Runs, Searches, as_recorded
from romul_actors.cli.output.printing import echo, echo_json
from romul_actors.cli.output.progress import progress
from romul_actors.cli.output.simulated import seconds, show_comparison, show_figures, title
from romul_actors.errors import ExperimentError
from romul_sim.churn.scenario import Scenario, slots
from romul_sim.churn.sweep import (
    SweepError,
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
from romul_sim.churn.trace import Trace
from romul_sim.play import optimizer_spec
from romul_workers.tasks.toys import TOYS

RECOMMEND_SEEDS = 3


@with_groups
def sim(
    machines: Machines,
    searches: Searches,
    costs: Costs,
    runs: Runs,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report with plots to this file.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: the number of cores.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a population on machines that come and go.

    The actor, the workers and the decisions are real; time, machines and training are simulated.
    Several optimizers, policies or seeds are compared on the same machines. With --recommend,
    combinations of slots and lease are compared, and the best one is recommended.
    """
    if searches.problem not in TOYS:
        raise typer.BadParameter(f"{searches.problem!r} is not one of {', '.join(TOYS)}")
    if runs.recommend:
        _refuse_compared(searches)
    trace = machines.make(runs.seed)
    searches, costs = as_recorded(searches, costs, machines.record())
    scenario = _scenario(trace, searches, costs, golden=as_json)
    # In production every lost machine is a warning; here such losses are simulated on purpose.
    logging.getLogger("romul").setLevel(logging.ERROR)
    began = time.monotonic()
    if runs.recommend:
        jobs = _set_ups(scenario, trace, searches, runs)
        policies = (
            f"policy {searches.policies}, {len({job.policy for job in jobs})} combinations of "
            "slots and lease"
        )
    else:
        jobs = _jobs(scenario, trace, searches, runs)
        policies = f"policy {searches.policies}"
    _say(machines, trace, jobs, policies, scenario.durations.trial_s, as_json=as_json)
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    recommended: dict[str, Any] = {}
    drawn = jobs[0].scenario
    if len(jobs) > 1:
        rows = _sweep(jobs, runs.target, processes, quiet=as_json)
    if runs.recommend:
        drawn = next(job.scenario for job in jobs if job.policy == rows[0]["policy"])
        recommended = {"recommended": _recommended(trace, rows, drawn)}
    if len(jobs) == 1 or report is not None:
        figures, ledger = picture(drawn)
        if report is not None:
            _write(report, figures, ledger, rows)
    shown: dict[str, Any] = {"rows": rows, **recommended} if rows else figures
    shown["wall_s"] = round(time.monotonic() - began, 3)
    _print(shown, as_json=as_json)
    if sum(row["invariants_broken"] for row in rows or [figures]):
        raise typer.Exit(EXPERIMENT_FAILED)


def _say(
    machines: Machines,
    trace: Trace,
    jobs: Sequence[SweepJob],
    policies: str,
    trial_s: float,
    *,
    as_json: bool,
) -> None:
    """Print what is simulated, and a warning if no trial can end."""
    if not as_json:
        echo(title(machines.source, trace, jobs, policies))
    if trial_s > trace.span_s:
        echo(
            f"warning: the trace lasts {seconds(trace.span_s)}, but a trial {seconds(trial_s)}: "
            "give a shorter --trial-s",
            err=True,
        )


def _scenario(trace: Trace, searches: Searches, costs: Costs, *, golden: bool) -> Scenario:
    return Scenario(
        trace.changes,
        problem=searches.problem,
        population=searches.population or default_population(trace.changes),
        searches=searches.searches,
        durations=costs.durations,
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


def _refuse_compared(searches: Searches) -> None:
    """Refuse options that --recommend sets itself."""
    for option, given in (("--population", searches.population), ("--steps", searches.steps)):
        if given is not None:
            raise typer.BadParameter(
                f"--recommend compares numbers of slots, with as many steps as fit into the trace: "
                f"leave out {option}"
            )
    for option, text in (("optimizer", searches.optimizer), ("policy", searches.policies)):
        if "," in text:
            raise typer.BadParameter(f"--recommend takes only one {option}")


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


def _set_ups(scenario: Scenario, trace: Trace, searches: Searches, runs: Runs) -> list[SweepJob]:
    """A simulation for each compared combination of slots and lease, and each seed."""
    trial_s, optimizer = scenario.durations.trial_s, searches.optimizer
    made, default = policy(searches.policies, trial_s), policy("default", trial_s)
    if made != replace(made, per_machine=default.per_machine, lease_s=default.lease_s):
        raise typer.BadParameter(
            "--recommend compares slots per machine and leases, and --policy "
            f"{searches.policies} sets one of them: leave it out"
        )
    scenario = replace(scenario, optimizer=_spec(optimizer), policy=made)
    return [
        SweepJob(optimizer, choice.name, n, chosen(replace(scenario, seed=n), choice, trace.span_s))
        for choice in choices(trial_s)
        for n in runs.numbers(RECOMMEND_SEEDS)
    ]


def _recommended(
    trace: Trace, rows: Sequence[dict[str, Any]], best: Scenario
) -> dict[str, float | None]:
    """The recommended values.

    Args:
        trace: the machines.
        rows: the comparison of all combinations, the best one first.
        best: a simulation of the best one.

    Raises:
        SweepError: no combination reaches the target.
    """
    if why := _why_none(rows):
        raise SweepError(f"nothing can be recommended: {why}")
    life_s, durations = mean_life_s(trace.changes, trace.span_s), best.durations
    # A checkpoint that is saved while the next trial trains takes no time from it.
    held_up_s = 0.0 if durations.beside else durations.save_s
    interval_s = checkpoint_interval_s(held_up_s, life_s)
    return {
        "population": slots(best),
        "lease_s": best.policy.lease_s,
        "checkpoint_interval_s": None if interval_s is None else round(interval_s, 1),
        "mean_life_s": None if isinf(life_s) else round(life_s, 1),
    }


def _why_none(rows: Sequence[dict[str, Any]]) -> str:
    """Why nothing can be recommended; "" if the first row can be."""
    losses = [row["best"] for row in rows if row["best"] is not None]
    target = rows[0]["target"]
    if not losses:
        return "no trial ended in any simulation; give a shorter --trial-s or a longer trace"
    if isinf(target):
        return "no trial ended in most simulations; give a shorter --trial-s or a longer trace"
    if rows[0]["hours_to_target"] is None:
        return (
            f"no combination reaches the target {target:.6g} in most of its simulations; the best "
            f"loss is {min(losses):.6g}; give another --target"
        )
    return ""


def _write(
    file: Path, figures: dict[str, Any], ledger: Any, rows: Sequence[dict[str, Any]]
) -> None:
    from romul_sim.churn.page import write_page  # noqa: PLC0415

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
    if "rows" in figures:
        show_comparison(figures["rows"], figures.get("recommended"))
    else:
        show_figures(figures)
