"""`romul submit`, `status`, `show`, `best` and so on: the population from outside."""

import asyncio
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import from_json

from romul_actors.cli.options import DEFAULT_URL, AsJson, Deadline, RedisUrl, with_deadline
from romul_actors.cli.printing import NARROW, Console, Table, echo, echo_json, shortened
from romul_actors.cli.services import opened
from romul_actors.client import Client
from romul_actors.errors import ExperimentError, StoreError, UnknownExperimentError
from romul_actors.protocol.experiment import Experiment, load
from romul_actors.protocol.experiment import from_json as experiment_from_json

Request = Callable[[Client], Awaitable[None]]
Name = Annotated[str, typer.Argument(help="Name of an experiment.")]


def submit(
    file: Annotated[Path, typer.Argument(help="Experiment: a .toml or .py file.")],
    redis: RedisUrl = DEFAULT_URL,
    deadline: Deadline = None,
) -> None:
    """Put an experiment into the store, for any actor and workers."""

    async def run() -> None:
        experiment = with_deadline(load(file), deadline)
        async with opened(redis) as store:
            await Client(store).submit(experiment)
        echo(f"{experiment.name}: submitted; `romul status` shows it")

    asyncio.run(run())


def progress(meta: Mapping[str, str], experiment: Experiment) -> dict[str, Any]:
    """An experiment in one row, as JSON values."""
    best = from_json(meta["best"]) if meta.get("best") else {}
    # With more slots than at the start there is more to do.
    total = max(experiment.population * experiment.steps, int(meta.get("created", 0)))
    ended = int(meta.get("reported", 0)) + int(meta.get("failed", 0))
    return {
        "name": experiment.name,
        "status": meta["status"],
        "reason": meta.get("reason", ""),
        "population": experiment.population,
        "trials": ended,
        "trials_total": total,
        "failed": int(meta.get("failed", 0)),
        "retried": int(meta.get("retried", 0)),
        "causes": from_json(meta.get("causes") or "{}"),
        "metric": experiment.metric,
        "best": best.get(experiment.metric),
        "best_trial": best.get("trial"),
    }


def unreadable(name: str, status: str, why: str) -> dict[str, Any]:
    """Row of an experiment whose declaration cannot be read."""
    nothing = {"trials": 0, "trials_total": 0, "failed": 0, "retried": 0, "workers": 0, "dead": 0}
    told = {"name": name, "status": status, "reason": why, "population": 0, "causes": {}}
    return {**told, **nothing, "metric": "", "best": None, "best_trial": None}


def status(redis: RedisUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List all experiments with their progress."""

    async def run() -> list[dict[str, Any]]:
        rows = []
        async with opened(redis) as store:
            for name, status in (await store.experiments()).items():
                try:
                    experiment = experiment_from_json(await store.spec(name))
                except ExperimentError as error:
                    # Of another version, or damaged: the others are still worth seeing.
                    rows.append(unreadable(name, status, str(error)))
                    continue
                row = progress((await store.load(name)).meta, experiment)
                workers = await store.workers(name)
                lease_ms = 1000 * experiment.timeouts.lease_s
                row["workers"] = sum(told["age_ms"] < lease_ms for told in workers.values())
                row["dead"] = (await store.depths(name))["dead"]
                rows.append(row)
        return rows

    rows = asyncio.run(run())
    if as_json:
        echo_json(rows)
        return
    table = Table()
    for column in ("experiment", "status", "trials", "failed", "workers", "dead", "best"):
        table.add_column(column, justify="left" if column in ("experiment", "status") else "right")
    for row in rows:
        best = (
            ""
            if row["best"] is None
            else f"{shortened(row['metric'])} {row['best']:.6g} ({row['best_trial']})"
        )
        table.add_row(
            row["name"],
            row["status"],
            f"{row['trials']}/{row['trials_total']}",
            str(row["failed"]),
            str(row["workers"]),
            str(row["dead"]),
            best,
        )
    Console().print(table if rows else "no experiments")
    for row in rows:
        if row["reason"]:
            Console().print(f"{row['name']}: {row['reason']}")
        if row["causes"]:
            told = ", ".join(f"{cause} {n}" for cause, n in sorted(row["causes"].items()))
            Console().print(f"{row['name']}: attempts lost: {told}")


JSON_FIELDS = ("latest", "hyperparameters", "vector", "memory", "outcomes", "live")
NUMBER_FIELDS = ("step", "attempt", "failures", "losses", "since_ms", "seed", "joined", "parking")


def readable(row: Mapping[str, str]) -> dict[str, Any]:
    """A slot's fields as JSON values."""
    values: dict[str, Any] = dict(row)
    for field in JSON_FIELDS:
        values[field] = from_json(row[field]) if row.get(field) else None
    for field in NUMBER_FIELDS:
        values[field] = int(row[field])
    values |= {field: float(row[field]) for field in ("seconds", "position")}
    return values


def figure(value: Any) -> str:
    """A value as it stands in a table."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def slots_table(slots: list[dict[str, Any]], experiment: Experiment) -> Table:
    """The population, a row a slot."""
    table = Table()
    for column in ("slot", "status", "step", experiment.metric, "parent", *experiment.space):
        left = column in ("status", "parent")
        table.add_column(column, justify="left" if left else "right", max_width=NARROW)
    for index, slot in enumerate(slots):
        latest = slot["latest"] or {}
        value = latest.get(experiment.metric)
        shown = slot["status"] + (f" (attempt {slot['attempt']})" if slot["attempt"] > 1 else "")
        table.add_row(
            str(index),
            shown,
            f"{slot['step'] + (slot['status'] == 'done')}/{experiment.steps}",
            "" if not latest else "failed" if value is None else figure(value),
            slot["parent"],
            *(shortened(figure(slot["hyperparameters"][name])) for name in experiment.space),
        )
    return table


def show(
    name: Name,
    slot: Annotated[int | None, typer.Argument(help="One slot in full.")] = None,
    redis: RedisUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show an experiment's population, or one slot in full."""

    async def run() -> tuple[Experiment, dict[str, Any], list[dict[str, Any]]]:
        async with opened(redis) as store:
            experiment = experiment_from_json(await store.spec(name))
            stored = await store.load(name)
            return (
                experiment,
                progress(stored.meta, experiment),
                [readable(s) for s in stored.slots],
            )

    experiment, row, slots = asyncio.run(run())
    if slot is not None:
        if not 0 <= slot < len(slots):
            raise UnknownExperimentError(f"{name} has no slot {slot}: it has {len(slots)}")
        slots = [slots[slot]]
    if as_json:
        echo_json({**row, "slots": slots})
        return
    console = Console()
    if slot is not None:
        table = Table("field", "value")
        for field, value in slots[0].items():
            table.add_row(
                field, json.dumps(value) if isinstance(value, dict | list) else str(value)
            )
        console.print(table)
        return
    console.print(
        f"{name}: {row['status']}, {row['trials']} of {row['trials_total']} trials, best "
        f"{experiment.metric} {row['best']} ({row['best_trial']})  {row['reason']}",
    )
    console.print(slots_table(slots, experiment))


def best(
    name: Name,
    copy_to: Annotated[
        Path | None, typer.Option(help="Copy the best checkpoint into this new folder.")
    ] = None,
    redis: RedisUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show the best trial so far, and copy its checkpoint if asked to."""

    async def run() -> tuple[Experiment, dict[str, Any]]:
        async with opened(redis) as store:
            experiment = experiment_from_json(await store.spec(name))
            meta = (await store.load(name)).meta
            if not meta.get("best"):
                raise StoreError(f"{name}: no trial has ended well yet ({meta['status']})")
            return experiment, from_json(meta["best"])

    experiment, found = asyncio.run(run())
    found["checkpoints"] = experiment.checkpoints
    if copy_to is not None:
        found["copied_to"] = str(copy(experiment, found["checkpoint"], copy_to))
    if as_json:
        echo_json(found)
        return
    table = Table("field", "value")
    for field, value in found.items():
        if field != "vector":
            table.add_row(field, json.dumps(value) if isinstance(value, dict) else str(value))
    Console().print(table)


def copy(experiment: Experiment, checkpoint: str, target: Path) -> Path:
    """Copy a checkpoint into a new folder.

    Raises:
        StoreError: the folder exists.
        CheckpointError: the checkpoint is not there, or damaged.
    """
    from romul_workers.checkpoints import Checkpoints  # noqa: PLC0415
    from romul_workers.trainer import scratch_folder  # noqa: PLC0415

    if target.exists():
        raise StoreError(f"{target} exists already: name a new folder")
    with scratch_folder() as scratch:
        source = Checkpoints(str(experiment.checkpoints), scratch).fetch(checkpoint)
        shutil.copytree(source, target)
    return target


def _request(name: str, redis: str, action: str, request: Request) -> None:
    """Make a request of a client, and say that it was made."""

    async def run() -> None:
        async with opened(redis) as store:
            await request(Client(store))
        echo(f"{name}: asked to {action}")

    asyncio.run(run())


def pause(name: Name, redis: RedisUrl = DEFAULT_URL) -> None:
    """Hand out no more trials; those in training end, and their results are kept."""
    _request(name, redis, "pause", lambda client: client.pause(name))


def resume(name: Name, redis: RedisUrl = DEFAULT_URL) -> None:
    """Go on with a paused experiment, or try a failed one again."""
    _request(name, redis, "resume", lambda client: client.resume(name))


def stop(name: Name, redis: RedisUrl = DEFAULT_URL) -> None:
    """End an experiment for good; what it found stays."""
    _request(name, redis, "stop", lambda client: client.stop(name))


def pin(
    name: Name,
    slot: Annotated[int, typer.Argument(min=0, help="A slot.")],
    release: Annotated[bool, typer.Option("--release", help="Let it go again.")] = False,
    redis: RedisUrl = DEFAULT_URL,
) -> None:
    """Hold a slot: it goes on with its hyperparameters and weights, whatever the others do."""
    if release:
        _request(name, redis, f"unpin slot {slot}", lambda client: client.unpin(name, slot))
    else:
        _request(name, redis, f"pin slot {slot}", lambda client: client.pin(name, slot))


def bounds(
    name: Name,
    parameter: Annotated[str, typer.Argument(help="A hyperparameter that is a number.")],
    low: Annotated[float, typer.Option("--min", help="Its least value from now on.")],
    high: Annotated[float, typer.Option("--max", help="Its greatest.")],
    redis: RedisUrl = DEFAULT_URL,
) -> None:
    """Search a hyperparameter between other bounds; places outside move to the nearest bound."""
    _request(
        name,
        redis,
        f"search {parameter} from {low:g} to {high:g}",
        lambda client: client.bounds(name, parameter, low, high),
    )


def remove(
    name: Name,
    redis: RedisUrl = DEFAULT_URL,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove an experiment from the store; its checkpoints stay where they are."""

    async def run() -> None:
        async with opened(redis) as store:
            await Client(store).remove(name)

    if not yes and not (
        sys.stdin.isatty() and typer.confirm(f"remove {name} with all its history?")
    ):
        raise typer.Exit(2)
    asyncio.run(run())
    echo(f"{name}: removed")
