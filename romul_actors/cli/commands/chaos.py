"""`romul chaos`: thousands of fault schedules in virtual time, against the invariants."""

import logging
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.exits import EXPERIMENT_FAILED
from romul_actors.cli.options.shared import AsJson
from romul_actors.cli.output.printing import Console, echo, echo_figures, echo_json
from romul_actors.cli.output.progress import progress
from romul_actors.protocol.mistakes import unreadable
from romul_sim.chaos.run import Endured, Totals, play
from romul_sim.chaos.schedule import Chaos, draw, from_json, shrink, to_json
from romul_sim.pool import as_ended

SEEDS, FIRST, FAULTS = 200, 0, 25
"""Defaults of the options that say which schedules are drawn."""


def _one(seed: int, faults: int) -> tuple[int, Endured]:
    # What an actor warns of is what is simulated.
    logging.disable(logging.ERROR)
    return seed, play(draw(seed, faults))


def chaos(
    seeds: Annotated[int, typer.Option(min=1, help="Number of schedules.")] = SEEDS,
    first: Annotated[int, typer.Option(min=0, help="First seed.")] = FIRST,
    faults: Annotated[int, typer.Option(min=0, help="Faults per schedule.")] = FAULTS,
    replay: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Run only this schedule.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for schedules that break an invariant.")] = Path(
        "runs/chaos"
    ),
    processes: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: the number of cores.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate searches under random faults, and check every invariant.

    The actors and workers are the real ones, but time is virtual. A schedule that breaks an
    invariant is shrunk and written to a file, which --replay runs again.
    """
    if replay is not None:
        if (seeds, first, faults) != (SEEDS, FIRST, FAULTS):
            raise typer.BadParameter(
                "--seeds, --first and --faults draw schedules; --replay runs the one in the file, "
                "with its own seed, faults and sizes: leave them out"
            )
        _replay(replay, as_json=as_json)
        return
    console = Console(stderr=True, quiet=as_json)
    totals = Totals()
    with progress(hidden=as_json) as bar, ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        todo = [(seed, faults) for seed in range(first, first + seeds)]
        for _, played in bar.track(as_ended(pool, _one, todo), seeds, description="schedules"):
            totals.add(*played)
    summary = {
        "seeds": totals.runs,
        "trials": totals.trials,
        "faults": totals.runs * faults,
        "hours": round(totals.hours, 2),
        "causes": dict(sorted(totals.causes.items())),
        "invariants_broken": len(totals.broken),
        "broken": [{"seed": seed, "what": what} for seed, what in sorted(totals.broken)],
    }
    if as_json:
        echo_json({**summary, "golden_sha256": dict(sorted(totals.golden.items()))})
    else:
        echo_figures(summary)
    if totals.broken:
        seed, _ = min(totals.broken)
        file = _shrunk(draw(seed, faults), out / f"{seed}.json", console)
        console.print(f"shortest schedule: {file}; to run it again: romul chaos --replay {file}")
        raise typer.Exit(EXPERIMENT_FAILED)


def _shrunk(found: Chaos, file: Path, console: Console) -> Path:
    logging.disable(logging.ERROR)
    with console.status("shrinking"):
        shortest = shrink(found, lambda smaller: bool(play(smaller).violation))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(to_json(shortest))
    return file


def _replay(file: Path, *, as_json: bool) -> None:
    try:
        given = from_json(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file}: cannot be read: {unreadable(error)}") from None
    except ValueError as error:
        raise typer.BadParameter(f"{file}: {error}") from None
    endured = play(given)
    if as_json:
        echo_json({"violation": endured.violation, "sha256": endured.history_sha256})
    else:
        for fault in given.faults:
            echo(f"{fault.at_s:8.1f} s  {fault.kind}, {fault.for_s:g} s")
        echo(endured.violation or "nothing broke")
    if endured.violation:
        raise typer.Exit(EXPERIMENT_FAILED)
