"""`romul chaos`: thousands of fault schedules in virtual time, against the invariants."""

import json
import logging
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from romul_actors.cli.exits import EXPERIMENT_FAILED
from romul_actors.cli.options import AsJson
from romul_actors.cli.printing import Console, echo, echo_json
from romul_sim.chaos import Chaos, Outcome, Sweep, draw, from_json, play, shrink, to_json


def _one(seed: int, faults: int) -> tuple[int, Outcome]:
    # What an actor warns of is what is simulated.
    logging.disable(logging.ERROR)
    return seed, play(draw(seed, faults))


def chaos(
    seeds: Annotated[int, typer.Option(min=1, help="How many schedules.")] = 200,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    faults: Annotated[int, typer.Option(min=0, help="Faults in each.")] = 25,
    replay: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Play this schedule alone.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for schedules that break something.")] = Path(
        "runs/chaos"
    ),
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes; as many as cores if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate searches on machines where everything breaks, and check every invariant.

    The actors and workers are the real ones, in virtual time. A schedule that breaks an invariant
    is shrunk, written to a file, and can be played again with --replay.
    """
    if replay is not None:
        _replay(replay, as_json=as_json)
        return
    console = Console(stderr=True, quiet=as_json)
    sweep = Sweep()
    bar = Progress(
        TextColumn("schedules"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar, ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        task = bar.add_task("schedules", total=seeds)
        running = [pool.submit(_one, seed, faults) for seed in range(first, first + seeds)]
        for future in as_completed(running):
            sweep.add(*future.result())
            bar.advance(task)
    told = {
        "seeds": sweep.runs,
        "trials": sweep.trials,
        "faults": sweep.runs * faults,
        "hours": round(sweep.hours, 2),
        "causes": dict(sorted(sweep.causes.items())),
        "invariants_broken": len(sweep.broken),
        "broken": [{"seed": seed, "what": what} for seed, what in sorted(sweep.broken)],
    }
    if as_json:
        echo_json({**told, "golden_sha256": dict(sorted(sweep.golden.items()))})
    else:
        for key, value in told.items():
            echo(f"{key:18} {json.dumps(value) if isinstance(value, dict | list) else value}")
    if sweep.broken:
        seed, _ = min(sweep.broken)
        file = _shrunk(draw(seed, faults), out / f"{seed}.json", console)
        console.print(f"shortest schedule: {file}; romul chaos --replay {file}")
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
        given = from_json(file.read_text())
    except ValueError as error:
        raise typer.BadParameter(f"{file}: {error}") from None
    outcome = play(given)
    if as_json:
        echo_json({"violation": outcome.violation, "sha256": outcome.history_sha256})
    else:
        for fault in given.faults:
            echo(f"{fault.at_s:8.1f} s  {fault.kind}, {fault.for_s:g} s")
        echo(outcome.violation or "nothing broke")
    if outcome.violation:
        raise typer.Exit(EXPERIMENT_FAILED)
