"""`romul submit`, `status`, `show`, `best` and so on: experiments and their populations."""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import from_json

from romul_actors.cli.checkpoints import copy
from romul_actors.cli.connection import connected, connected_to, folder_of, local_run, started
from romul_actors.cli.deadline import Deadline, with_deadline
from romul_actors.cli.from_run import From, WithCheckpoints, with_origin
from romul_actors.cli.options import DEFAULT_URL, AsJson, Name, RedisUrl, SearchUrl, StatusUrl
from romul_actors.cli.printing import Console, Table, echo, echo_json, shortened
from romul_actors.cli.rows import lost, progress, readable, slots_tables
from romul_actors.cli.slot import slot_in_full
from romul_actors.cli.status_rows import run_row, status_row
from romul_actors.client import Client
from romul_actors.errors import (
    StoreError,
    StoreUnavailableError,
    UnknownSlotError,
    UnknownTrialError,
)
from romul_actors.local.redis_server import is_up
from romul_actors.local.run_file import local_runs, resumption, runs_folder
from romul_actors.observe.alarms import alarms
from romul_actors.observe.former import begun_from
from romul_actors.observe.snapshot import Snapshot, read_glance, snapshot
from romul_actors.observe.stored_history import origin_of, read_descent
from romul_actors.protocol.advice import advice
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import load
from romul_actors.protocol.statuses import ENDED
from romul_workers.checkpoints import place_of
from romul_workers.inheritance import copies

Request = Callable[[Client], Awaitable[str | None]]


def submit(
    file: Annotated[Path, typer.Argument(help="Experiment: a .toml or .py file.")],
    redis: RedisUrl = DEFAULT_URL,
    deadline: Deadline = None,
    from_run: From = None,
    with_checkpoints: WithCheckpoints = False,
) -> None:
    """Put an experiment into the store, for any actor and workers."""

    async def run() -> None:
        experiment = with_origin(with_deadline(load(file), deadline), from_run, with_checkpoints)
        for text in advice(experiment):
            Console(stderr=True).print(f"warning: {text}", soft_wrap=True)
        async with connected(redis, warns=True) as client:
            await client.submit(await begun_from(experiment, client.store, copies))
        echo(f"{experiment.name}: submitted; `romul status` shows it")

    asyncio.run(run())


def status(redis: StatusUrl = None, as_json: AsJson = False) -> None:
    """List all experiments with their progress."""

    async def run() -> list[dict[str, Any]]:
        async with contextlib.AsyncExitStack() as stack:
            try:
                server = await stack.enter_async_context(started(redis or DEFAULT_URL))
                client = await stack.enter_async_context(connected(server))
            except StoreUnavailableError:
                runs = [] if redis is not None else local_runs(runs_folder())
                if not runs:
                    raise
                return [await run_row(folder) for folder in runs]
            statuses, store = await client.statuses(), client.store
            return [await status_row(store, name, status) for name, status in statuses.items()]

    rows = asyncio.run(run())
    if as_json:
        echo_json(rows)
        return
    console = Console()
    if rows and "under_way" in rows[0]:
        console.print(f"no server was named: the local runs in {runs_folder()}, the newest first")
    console.print(_status_table(rows) if rows else "no experiments")
    for row in rows:
        if row["reason"]:
            console.print(f"{row['name']}: {row['reason']}")
        if text := lost(row):
            console.print(text)
        for text in row["alarms"]:
            console.print(f"{row['name']}: {text}")


def _status_table(rows: list[dict[str, Any]]) -> Table:
    figures = ("trials", "failed", "workers", "dead", "best")
    local = ("under way",) if rows and "under_way" in rows[0] else ()
    table = Table("experiment", *local, "status", right=figures)
    for row in rows:
        counts = (str(row[key]) for key in ("failed", "workers", "dead"))
        trials = f"{row['trials']}/{row['trials_total']}"
        under_way = ("yes" if row["under_way"] else "no",) if local else ()
        table.add_row(row["name"], *under_way, row["status"], trials, *counts, _best(row))
    return table


def _best(row: Mapping[str, Any]) -> str:
    """The best trial in words; "": there is none."""
    if row["best"] is None:
        return ""
    return f"{shortened(row['metric'])} {row['best']:.6g} ({row['best_trial']})"


def show(
    name: Name,
    slot: Annotated[int | None, typer.Argument(help="One slot in full.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All hyperparameters, however narrow the terminal is.")
    ] = False,
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show an experiment's population, or one slot in full."""

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
            f"{n} more hyperparameters: `romul show {name} --all`, or of one slot "
            f"`romul show {name} SLOT`"
        )


def _resumption(name: str) -> str | None:
    """The command that goes on with a local run whose server is not up; None: there is none."""
    folder = local_run(name)
    return None if folder is None or is_up(folder) else resumption(folder)


def _print_status(
    console: Console, seen: Snapshot, row: Mapping[str, Any], again: str | None
) -> None:
    """Say how far an experiment has come, and why it does not go on.

    Args:
        console: where.
        seen: the experiment.
        row: the same in a row.
        again: the command that goes on with it, if it is a local run whose server is not up.
    """
    interrupted = again is not None and seen.status in ("submitted", "running")
    console.print(_heading({**row, "status": "interrupted"} if interrupted else row))
    for text in filter(None, (row["reason"], lost(row))):
        console.print(text)
    if again is not None and seen.status not in ENDED:
        console.print(f"interrupted: `{again}` goes on", soft_wrap=True)
        return
    for alarm in alarms(seen):
        # What is part of the reason has just been said.
        if alarm.what not in row["reason"]:
            console.print(str(alarm), soft_wrap=True)


def _heading(row: Mapping[str, Any]) -> str:
    """An experiment's progress in one line."""
    best = f", best {found}" if (found := _best(row)) else ""
    return f"{row['name']}: {row['status']}, {row['trials']} of {row['trials_total']} trials{best}"


def best(
    name: Name,
    copy_to: Annotated[
        Path | None, typer.Option(help="Copy the best checkpoint into this new folder.")
    ] = None,
    redis: SearchUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the best trial so far, and copy its checkpoint on request."""

    async def run() -> tuple[Experiment, dict[str, Any]]:
        async with connected_to(name, redis) as client:
            seen = read_glance(await client.store.glance(name), name)
            if not seen.best:
                raise UnknownTrialError(f"{name}: no trial has succeeded yet ({seen.status})")
            origin = await origin_of(client.store, name, seen.best["trial"])
            return seen.experiment, {**seen.best, "provenance": dict(origin)}

    experiment, found = asyncio.run(run())
    found["checkpoints"] = experiment.checkpoints
    place = place_of(str(experiment.checkpoints), found["checkpoint"])
    if copy_to is not None:
        found["copied_to"] = str(copy(experiment, found["checkpoint"], copy_to))
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


def _request(name: str, redis: str | None, request: Request, action: str = "") -> None:
    """Make a request of a client, and say that it was made: by its own words, if it has any."""

    async def run() -> None:
        async with connected_to(name, redis, changes=True) as client:
            said = await request(client)
        echo(f"{name}: {said or action} requested")

    asyncio.run(run())


def pause(name: Name, redis: SearchUrl = None) -> None:
    """Hand out no more trials; those in training end, and their results are kept."""
    _request(name, redis, lambda client: client.pause(name), "pause")


def resume(name: Name, redis: SearchUrl = None) -> None:
    """Go on with a paused experiment, or try a failed one again."""
    _request(name, redis, lambda client: client.resume(name), "resume")


def stop(name: Name, redis: SearchUrl = None) -> None:
    """End an experiment; what it found stays, and `romul extend` goes on with it."""
    _request(name, redis, lambda client: client.stop(name), "stop")


def pin(
    name: Name,
    slot: Annotated[int, typer.Argument(min=0, help="A slot.")],
    release: Annotated[bool, typer.Option("--release", help="Let it go again.")] = False,
    redis: SearchUrl = None,
) -> None:
    """Hold a slot: it goes on with its hyperparameters and weights, whatever the others do."""
    if release:
        _request(name, redis, lambda client: client.unpin(name, slot), f"unpin slot {slot}")
    else:
        _request(name, redis, lambda client: client.pin(name, slot), f"pin slot {slot}")


def bounds(
    name: Name,
    parameter: Annotated[str, typer.Argument(help="A hyperparameter that is a number.")],
    low: Annotated[
        float | None,
        typer.Option("--min", help="Its least value from now on.", show_default="as before"),
    ] = None,
    high: Annotated[
        float | None, typer.Option("--max", help="Its greatest.", show_default="as before")
    ] = None,
    redis: SearchUrl = None,
) -> None:
    """Search a hyperparameter between other bounds; places outside move to the nearest bound."""
    if low is None and high is None:
        raise typer.BadParameter("give --min, --max, or both")

    async def request(client: Client) -> str:
        least, greatest = await client.bounds(name, parameter, low, high)
        return f"search {parameter} from {least:g} to {greatest:g}"

    _request(name, redis, request)


def change(
    name: Name,
    population: Annotated[
        int | None, typer.Option(min=4, help="Number of slots from now on.")
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A constant of the optimizer."),
    ] = None,
    redis: SearchUrl = None,
) -> None:
    """Change the number of slots, or constants of the optimizer, of a search that goes on.

    Fewer slots: the worst are parked. More: they are forked from good ones, when the search runs.
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
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove an experiment from the store; its checkpoints stay where they are."""

    async def run() -> None:
        async with connected_to(name, redis) as client:
            await client.remove(name)

    folder = local_run(name) if redis is None else folder_of(redis)
    if folder is not None:
        raise StoreError(f"{name} is a local run: it is removed with its folder, {folder}")
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter(f"{name} would go with all its history: --yes says that it may")
    if not yes and not typer.confirm(f"remove {name} with all its history?"):
        raise typer.Exit(2)
    asyncio.run(run())
    echo(f"{name}: removed")
