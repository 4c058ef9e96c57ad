"""`romul lab`: optimizers compared on toy problems."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from romul_actors.cli.exits import EXPERIMENT_FAILED
from romul_actors.cli.options import optimizers as choosing
from romul_actors.cli.options.shared import AsJson
from romul_actors.cli.output.printing import Console, Table, echo, echo_json
from romul_actors.cli.output.progress import progress
from romul_actors.core.optimizers import OPTIMIZERS
from romul_sim.baselines import PEERS
from romul_sim.lab import LabJob, Row, compare, jobs, play_all
from romul_sim.play import ASYNCHRONOUS, SYNCHRONOUS, Played
from romul_sim.run_error import RunError
from romul_workers.tasks.toys import TOYS


def lab(
    problems: Annotated[
        str | None,
        typer.Option(
            help=f"Toy problems, separated by commas: {', '.join(TOYS)}. Default: all of them."
        ),
    ] = None,
    optimizers: Annotated[
        str | None,
        typer.Option(
            help=f"Optimizers, separated by commas: {', '.join(OPTIMIZERS)}. Options follow a name "
            "(romul:factor=0.5:donors=0.2). Default: all of these that are installed. Other "
            "libraries need the extra `peers` and run only without --asynchronous: "
            f"{', '.join(PEERS)}."
        ),
    ] = None,
    population: Annotated[
        str, typer.Option(help="Number of slots, or several numbers separated by commas.")
    ] = "24",
    seeds: Annotated[
        int,
        typer.Option(min=1, help="Runs of each optimizer on each problem. Few runs can mislead."),
    ] = 21,
    asynchronous: Annotated[
        bool,
        typer.Option(
            "--asynchronous",
            help="Workers differ in speed by up to 4x, and 20 % of attempts are preempted.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for lab.json and a page of plots for each number of slots."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare optimizers on toy problems, over many seeds, on all cores."""
    if not all(part.isdigit() and int(part) >= 4 for part in population.split(",")):  # noqa: PLR2004
        raise typer.BadParameter(f"--population {population!r}: give whole numbers of 4 or more")
    sizes = [int(part) for part in population.split(",")]
    conditions = ASYNCHRONOUS if asynchronous else SYNCHRONOUS
    todo = jobs(
        choosing.names(problems, list(TOYS), "problem"),
        choosing.optimizers(optimizers, conditions),
        sizes,
        seeds,
        conditions,
        golden=as_json,
    )
    rows, failed = _rows(todo, hidden=as_json)
    values = {"rows": [row.as_json() for row in rows]}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "lab.json").write_text(json.dumps(values, indent=1) + "\n")
        for size in sorted({row.population for row in rows}, key=sizes.index):
            _plot([row for row in rows if row.population == size], out / f"lab-{size}.png")
    if as_json:
        echo_json(values)
    elif rows:
        Console().print(_table(values["rows"]))
    if failed:
        echo(failed, err=True)
        raise typer.Exit(EXPERIMENT_FAILED)


def _rows(todo: Sequence[LabJob], *, hidden: bool) -> tuple[list[Row], str]:
    """The rows whose runs have all ended well; in words, why there are no others."""
    played: dict[LabJob, Played] = {}
    failed = ""
    with progress(hidden=hidden) as bar:
        try:
            # Pair by pair: if one cannot be had, those before it stay.
            played.update(bar.track(play_all(todo), len(todo), description="runs"))
        except RunError as error:
            failed = f"{error}: the rows that they belong to are left out."

    def row(job: LabJob) -> tuple[str, str, int]:
        return job.problem, job.optimizer, job.population

    # The other seeds of a row would be a selection.
    lacking = {row(job) for job in todo if job not in played}
    return compare({job: run for job, run in played.items() if row(job) not in lacking}), failed


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    figures = ("median", "quartiles", "to best", "rank", "P(beats romul)")
    table = Table("problem", "slots", "optimizer", right=figures)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        low, high = row["quartiles"]
        ratio, chance = row["ratio_to_best"], row["beats"].get("romul")
        table.add_row(
            row["problem"],
            str(row["population"]),
            row["optimizer"],
            f"{row['median']:.3g}",
            f"{low:.2g} - {high:.2g}",
            "" if ratio is None else f"{ratio:.3g}",
            str(row["rank"]),
            "" if chance is None else f"{chance:.2f}",
            end_section=following is None or following["problem"] != row["problem"],
        )
    return table


def _plot(rows: Sequence[Row], file: Path) -> None:
    """Plot the median true loss of each optimizer by step, and the schedules of one of them."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        echo("no plots: matplotlib is not installed (pip install 'romul[dashboard]')", err=True)
        return
    problems = list(dict.fromkeys(row.problem for row in rows))
    figure = Figure(figsize=(12, 3 * len(problems)), layout="constrained")
    axes = figure.subplots(len(problems), 2, squeeze=False)
    for (left, right), problem in zip(axes, problems, strict=True):
        group = [row for row in rows if row.problem == problem]
        for row in group:
            medians = [median(step) for step in zip(*row.curves, strict=True)]
            left.plot(medians, label=row.optimizer)
        if min(min(row.finals) for row in group) > 0:
            left.set_yscale("log")
        left.set_title(f"{problem}: median true loss by step")
        left.legend(fontsize=7)
        shown = next((row for row in group if row.optimizer == "romul"), group[0])
        name = next(iter(TOYS[problem].space))
        for schedule in shown.schedules:
            right.plot(schedule[name], lw=0.7, alpha=0.7)
        if (known := TOYS[problem].best_schedule) is not None:
            right.plot(known()[name], "k--", lw=2, label="best known")
            right.legend(fontsize=7)
        if TOYS[problem].space[name].get("scale") == "log":
            right.set_yscale("log")
        right.set_title(f"{shown.optimizer}: {name} along each winner's line")
    figure.savefig(file, dpi=90)
