"""`romul submit`, `show`, `best` and others: experiments and their populations."""

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import from_json

from romul_actors.cli.options.declaration import (
    Deadline,
    From,
    WithCheckpoints,
    with_deadline,
    with_origin,
)
from romul_actors.cli.options.shared import DEFAULT_URL, AsJson, Name, RedisUrl, SearchUrl
from romul_actors.cli.output.printing import Console, echo, echo_json
from romul_actors.cli.output.rows import best_in_words, lost, progress, readable, slots_tables
from romul_actors.cli.output.slot import slot_in_full
from romul_actors.cli.servers.connection import connected, connected_to, folder_of, local_run
from romul_actors.client import Client
from romul_actors.errors import RomulError, StoreError, UnknownSlotError, UnknownTrialError
from romul_actors.local.redis_server import is_up
from romul_actors.local.run_file import resumption
from romul_actors.observe.alarms import alarms
from romul_actors.observe.former import begun_from
from romul_actors.observe.snapshot import Snapshot, read_glance, snapshot
from romul_actors.observe.stored_history import origin_of, read_descent, read_history
from romul_actors.observe.stored_population import needed_checkpoints
from romul_actors.observe.trial_records import best_of_last_step, trials
from romul_actors.protocol.advice import advice
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import load
from romul_actors.protocol.statuses import ENDED
from romul_workers.checkpoints.inheritance import copies
from romul_workers.checkpoints.scratch import scratch_folder
from romul_workers.checkpoints.storage import Checkpoints, place_of

Request = Callable[[Client], Awaitable[str | None]]


def submit(
    file: Annotated[Path, typer.Argument(help="Experiment file (.toml or .py).")],
    redis: RedisUrl = DEFAULT_URL,
    deadline: Deadline = None,
    from_run: From = None,
    with_checkpoints: WithCheckpoints = False,
) -> None:
    """Submit an experiment to a server, for its actors and workers."""

    async def run() -> None:
        experiment = with_origin(with_deadline(load(file), deadline), from_run, with_checkpoints)
        for text in advice(experiment):
            Console(stderr=True).print(f"warning: {text}", soft_wrap=True)
        async with connected(redis, warns=True) as client:
            await client.submit(await begun_from(experiment, client.store, copies))
        echo(f"{experiment.name}: submitted; `romul status` shows it")

    asyncio.run(run())


def show(
    name: Name,
    slot: Annotated[int | None, typer.Argument(help="Slot to show in detail.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show all hyperparameters, in several tables if needed.")
    ] = False,
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show an experiment's population, or one slot in detail."""

    async def run() -> tuple[Snapshot, list[dict[str, Any]]]:
        async with connected_to(name, redis) as client:
            seen = await snapshot(client.store, name)
            if slot is not None and 0 <= slot < len(seen.slots) and not as_json:
                # A slot's ancestors and reasons.
                lines = await read_descent(client.store, name, seen.slots[slot].trial)
                seen = replace(seen, history=lines)
            stored = await client.store.load(name)
            return seen, [readable(name, i, fields) for i, fields in enumerate(stored.slots)]

    again = _resumption(name) if redis is None else None
    seen, slots = asyncio.run(run())
    row = progress(seen)
    if slot is not None and not 0 <= slot < len(slots):
        raise UnknownSlotError(f"{name} has no slot {slot}: it has {len(slots)}")
    if as_json:
        echo_json({**row, "slots": slots if slot is None else [slots[slot]]})
        return
    console = Console()
    _print_status(console, seen, row, again)
    if slot is not None:
        console.print(f"slot {slot}")
        console.print(slot_in_full(seen, slot, slots[slot]))
        return
    first, *more = slots_tables(slots, seen.experiment, console.width, seen.in_hand)
    console.print(first)
    if everything:
        console.print(*more, sep="")
    elif n := sum(len(table.columns) - 1 for table in more):
        console.print(
            f"{n} more hyperparameters: see `romul show {name} --all`, or `romul show {name} SLOT` "
            "for one slot"
        )


def _resumption(name: str) -> str | None:
    """The command that continues a local run whose server is not up; None if there is none."""
    folder = local_run(name)
    return None if folder is None or is_up(folder) else resumption(folder)


def _print_status(
    console: Console, seen: Snapshot, row: Mapping[str, Any], again: str | None
) -> None:
    """Print the progress of an experiment, and why it does not continue.

    Args:
        console: where.
        seen: the experiment.
        row: the same in a row.
        again: the command that continues it, if it is a local run whose server is not up.
    """
    interrupted = again is not None and seen.status in ("submitted", "running")
    console.print(_heading({**row, "status": "interrupted"} if interrupted else row))
    for text in filter(None, (row["reason"], lost(row))):
        console.print(text)
    if again is not None and seen.status not in ENDED:
        console.print(f"interrupted: `{again}` continues it", soft_wrap=True)
        return
    for alarm in alarms(seen):
        # An alarm that is part of the reason was just printed.
        if alarm.what not in row["reason"]:
            console.print(str(alarm), soft_wrap=True)


def _heading(row: Mapping[str, Any]) -> str:
    """An experiment's progress in one line."""
    best = f", best {found}" if (found := best_in_words(row)) else ""
    return f"{row['name']}: {row['status']}, {row['trials']} of {row['trials_total']} trials{best}"


def best(
    name: Name,
    copy_to: Annotated[
        Path | None, typer.Option(help="Copy the best checkpoint to this new folder.")
    ] = None,
    last_step: Annotated[
        bool, typer.Option("--last-step", help="The best trial of the last step, not of all steps.")
    ] = False,
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the best trial so far, and optionally copy its checkpoint."""

    async def run() -> tuple[Experiment, dict[str, Any]]:
        async with connected_to(name, redis) as client:
            seen = read_glance(await client.store.glance(name), name)
            if not seen.best:
                raise UnknownTrialError(f"{name}: no trial has succeeded yet ({seen.status})")
            if last_step and (last := await _best_of_last_step(client, seen.experiment)):
                return seen.experiment, last
            origin = await origin_of(client.store, name, seen.best["trial"])
            return seen.experiment, {**seen.best, "provenance": dict(origin)}

    experiment, found = asyncio.run(run())
    found["checkpoints"] = experiment.checkpoints
    place = place_of(str(experiment.checkpoints), found["checkpoint"])
    if copy_to is not None:
        found["copied_to"] = str(_copy(experiment, found["checkpoint"], copy_to))
    if as_json:
        echo_json(found)
        return
    found["checkpoint"] = place
    for field, value in found.items():
        if isinstance(value, dict):
            for key, part in value.items():
                echo(f"{field}.{key}: {part}")
        elif field not in ("vector", "checkpoints"):
            echo(f"{field}: {value}")


async def _best_of_last_step(client: Client, experiment: Experiment) -> dict[str, Any] | None:
    history = await read_history(client.store, experiment.name)
    record = best_of_last_step(trials(history).values(), experiment.direction)
    if record is None:
        return None
    return {
        experiment.metric: record.value,
        "trial": record.id,
        "checkpoint": record.checkpoint,
        "hyperparameters": record.hyperparameters,
        "metrics": record.metrics,
        "provenance": dict(record.provenance),
    }


def _copy(experiment: Experiment, checkpoint: str, target: Path) -> Path:
    """Copy a checkpoint into a new folder.

    Raises:
        StoreError: the folder exists.
        CheckpointError: the checkpoint is missing or damaged.
    """
    if target.exists():
        raise StoreError(f"{target} already exists: give a new folder")
    with scratch_folder() as scratch:
        source = Checkpoints(str(experiment.checkpoints), scratch).fetch(checkpoint)
        shutil.copytree(source, target)
    return target


def _request(name: str, redis: str | None, request: Request, action: str = "") -> None:
    """Make a request, and print that it was made, in the words that it returns or as `action`."""

    async def run() -> None:
        async with connected_to(name, redis, changes=True) as client:
            said = await request(client)
        echo(f"{name}: {said or action} requested")

    asyncio.run(run())


def pause(name: Name, redis: SearchUrl = None) -> None:
    """Pause an experiment. Trials in training finish, and their results are kept."""
    _request(name, redis, lambda client: client.pause(name), "pause")


def resume(name: Name, redis: SearchUrl = None) -> None:
    """Resume a paused experiment, or retry a failed one."""
    _request(name, redis, lambda client: client.resume(name), "resume")


def stop(name: Name, redis: SearchUrl = None) -> None:
    """Stop an experiment. Its results are kept, and `romul extend` can continue it."""
    _request(name, redis, lambda client: client.stop(name), "stop")


def pin(
    name: Name,
    slot: Annotated[int, typer.Argument(min=0, help="Number of the slot.")],
    release: Annotated[bool, typer.Option("--release", help="Unpin the slot.")] = False,
    redis: SearchUrl = None,
) -> None:
    """Pin a slot: it continues with its own hyperparameters and weights, and copies no other."""
    if release:
        _request(name, redis, lambda client: client.unpin(name, slot), f"unpin slot {slot}")
    else:
        _request(name, redis, lambda client: client.pin(name, slot), f"pin slot {slot}")


def bounds(
    name: Name,
    parameter: Annotated[str, typer.Argument(help="Name of a numeric hyperparameter.")],
    low: Annotated[
        float | None,
        typer.Option("--min", help="New lower bound.", show_default="unchanged"),
    ] = None,
    high: Annotated[
        float | None, typer.Option("--max", help="New upper bound.", show_default="unchanged")
    ] = None,
    redis: SearchUrl = None,
) -> None:
    """Change the bounds of a hyperparameter. Values outside move to the nearest bound."""
    if low is None and high is None:
        raise typer.BadParameter("give --min, --max or both")

    async def request(client: Client) -> str:
        least, greatest = await client.bounds(name, parameter, low, high)
        return f"bounds of {parameter} from {least:g} to {greatest:g}"

    _request(name, redis, request)


def change(
    name: Name,
    population: Annotated[int | None, typer.Option(min=4, help="New number of slots.")] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Constant of the optimizer to change (repeatable)."
        ),
    ] = None,
    redis: SearchUrl = None,
) -> None:
    """Change the slots of a search that has not ended, or constants of its optimizer.

    With fewer slots, the worst ones are parked. With more, new slots are forked from good ones as
    soon as the search is running.
    """
    changed = dict(_constant(text) for text in constants or [])
    _request(
        name,
        redis,
        lambda client: client.change(name, population=population, optimizer=changed),
        "change",
    )


def _constant(text: str) -> tuple[str, Any]:
    """A constant's name and value from "name=value"."""
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set {text!r}: not of the form name=value")
    try:
        return name, from_json(value)
    except ValueError:
        return name, value


def remove(
    name: Name,
    redis: SearchUrl = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove an experiment from the server. Its checkpoints stay where they are."""

    async def run() -> str | None:
        async with connected_to(name, redis) as client:
            folder = await folder_with_some(client, name)
            await client.remove(name)
            return folder

    folder = local_run(name) if redis is None else folder_of(redis)
    if folder is not None:
        first = "end it, then " if is_up(folder) else ""
        raise StoreError(f"{name} is a local run: to remove it, {first}delete its folder {folder}")
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter(f"{name} and all its history would be removed: confirm with --yes")
    if not yes and not typer.confirm(f"remove {name} with all its history?", err=as_json):
        raise typer.Exit(2)
    checkpoints = asyncio.run(run())
    if as_json:
        echo_json({"name": name, "checkpoints": checkpoints})
        return
    echo(f"{name}: removed")
    if checkpoints is not None:
        echo(
            f"its checkpoints stay in {checkpoints}: to remove them, delete that folder, unless "
            "another search has checkpoints there"
        )


async def folder_with_some(client: Client, name: str) -> str | None:
    """Path or URL of the folder in which an experiment has checkpoints; None: there are none.

    If the experiment's data are damaged, the folder counts as one that has some, where it is known.
    """
    try:
        folder = (await client.spec(name)).checkpoints
    except RomulError:
        return None
    try:
        return folder if any(await needed_checkpoints(client.store, name)) else None
    except RomulError:
        return folder
