"""The end of a local run: its summary, its picture and the table that is printed."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from romul_actors.cli.exits import EXPERIMENT_FAILED, INTERRUPTED
from romul_actors.cli.output.printing import NARROW, Console, Table, echo_json
from romul_actors.cli.output.rows import figure, lost, progress
from romul_actors.local.run_file import request, resumption
from romul_actors.observe.html import png
from romul_actors.observe.plots import plot
from romul_actors.observe.snapshot import read_glance
from romul_actors.observe.stored_history import read_history
from romul_actors.observe.trial_records import left_out, trials
from romul_actors.protocol.experiment import Experiment
from romul_actors.store import Store
from romul_workers.child.figures import in_words

BEST = ("checkpoint", "hyperparameters", "metrics")
"""Fields of the best trial, besides its metric, in a summary."""
MOST_FIGURES = 4
"""Maximum number of figures, besides the metric, in the printed table."""


@dataclass(frozen=True)
class EndedRun:
    """How a local run ended.

    Attributes:
        summaries: summaries of its experiments by name, as JSON values.
        interrupted: whether a person or the machine ended it.
        wall_s: wall time of the run, in seconds.
    """

    summaries: Mapping[str, dict[str, Any]]
    interrupted: bool
    wall_s: float


async def summarise(
    store: Store,
    experiments: Sequence[Experiment],
    verdicts: Mapping[str, str],
    console: Console,
) -> tuple[dict[str, dict[str, Any]], Callable[[], bytes]]:
    """Summarise a run.

    Args:
        store: holds the experiments.
        experiments: the run's experiments.
        verdicts: by name of each experiment whose task is wrong, why it need not continue; it
            counts as failed.
        console: prints warnings.

    Returns:
        Summaries by name, and a function that draws a picture of the run without the store.
    """
    summaries, found = {}, {}
    for experiment in experiments:
        seen = read_glance(await store.glance(experiment.name), experiment.name)
        history = await read_history(store, experiment.name)
        found[experiment.name] = trials(history)
        if odd := left_out(history):
            console.print(f"warning: {experiment.name}: {in_words(odd)}", soft_wrap=True)
        summaries[experiment.name] = {
            **progress(seen),
            **{f"best_{key}": seen.best.get(key) for key in BEST},
            "steps": seen.experiment.steps,
            "decisions": len(found[experiment.name]),
        }
        if (why := verdicts.get(experiment.name)) is not None:
            summaries[experiment.name] |= {"status": "failed", "reason": why}
    first = experiments[0]
    others = {name: records for name, records in found.items() if name != first.name}
    best = summaries[first.name]["best_trial"]
    return summaries, lambda: png(plot(first, found[first.name], best, others))


def load_plots() -> None:
    """Import matplotlib, if it is installed, which takes long."""
    with contextlib.suppress(ImportError):
        import matplotlib.backends.backend_agg  # noqa: PLC0415
        import matplotlib.figure  # noqa: F401, PLC0415


def write_picture(draw: Callable[[], bytes], folder: Path, console: Console) -> None:
    """Write a picture of a run to its folder, if matplotlib is installed."""
    try:
        (folder / "schedules.png").write_bytes(draw())
    except ImportError:
        console.print("no picture: matplotlib is not installed (pip install 'romul[dashboard]')")


def finish(
    folder: Path,
    ended: EndedRun,
    extra: Mapping[str, Any],
    *,
    as_json: bool,
    server: str | None = None,
) -> None:
    """Write the summary, print it, and exit with the run's exit code.

    Args:
        folder: the run's folder.
        ended: how the run ended.
        extra: values that are added to the summary of the first experiment.
        as_json: whether to print the summary as JSON.
        server: the server that the run was given, see `resumption`.
    """
    rows = list(ended.summaries.values())
    values = {**rows[0], **extra, "wall_s": round(ended.wall_s, 3)}
    (folder / "summary.json").write_text(json.dumps(values, indent=1) + "\n")
    console = Console()
    if as_json:
        echo_json(values)
    else:
        _print_table(console, rows)
        for row in rows:
            if text := lost(row, request("failures", row["name"], folder, server)):
                console.print(text, soft_wrap=True)
        console.print(
            f"{ended.wall_s:.1f} s; written to {folder}: summary.json, schedules.png, "
            "checkpoints/, logs/",
            soft_wrap=True,
        )
    again = resumption(folder, server)
    if ended.interrupted:
        if not as_json:
            console.print(f"interrupted: `{again}` continues it", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    if any(row["status"] == "failed" for row in rows):
        told = Console(stderr=True, quiet=as_json)
        told.print(f"failed: `{again}` retries it", soft_wrap=True)
    empty = [row["name"] for row in rows if row["status"] == "finished" and row["best"] is None]
    if empty:
        told = Console(stderr=True, quiet=as_json)
        told.print(f"{', '.join(empty)}: ended before any trial had a result", soft_wrap=True)
    if empty or any(row["status"] != "finished" for row in rows):
        raise typer.Exit(EXPERIMENT_FAILED)


def _print_table(console: Console, summaries: Sequence[Mapping[str, Any]]) -> None:
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
        console.print(f"{left_out} more figures are in summary.json")
    best = summaries[0]["best_hyperparameters"]
    if best:
        console.print("best: " + ", ".join(f"{name} {figure(v)}" for name, v in best.items()))
    for row in summaries:
        if row["reason"]:
            console.print(f"{row['name']}: {row['reason']}", soft_wrap=True)
