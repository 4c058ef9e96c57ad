"""`romul dead`, `failures`, `collect`, `control`: what an operator looks after."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic_core import from_json

from romul_actors.cli.options import (
    DEFAULT_URL,
    AsJson,
    MqttCa,
    MqttUrl,
    RedisUrl,
    broker,
)
from romul_actors.cli.printing import Console, Table, echo, echo_json, shortened
from romul_actors.cli.services import opened
from romul_actors.client import Client, Resubmitted
from romul_actors.errors import StoreError
from romul_actors.mqtt.connection import KEEPALIVE_S, ask
from romul_actors.observe.lineage import read_history
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.experiment import from_json as experiment_from_json
from romul_actors.store import DeadLetter, Store
from romul_workers.checkpoints import Checkpoints
from romul_workers.trainer import scratch_folder

Name = Annotated[str, typer.Argument(help="Name of an experiment.")]
Ids = Annotated[
    list[str] | None, typer.Argument(help="Ids as `list` shows them.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
QUARTERS = 4

dead = typer.Typer(help="Messages that nobody could use.", no_args_is_help=True)


@dead.command("list")
def list_(
    name: Name,
    count: Annotated[int, typer.Option(min=1, help="How many, oldest first.")] = 100,
    redis: RedisUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List them with their reasons."""

    async def run() -> list[DeadLetter]:
        async with opened(redis) as store:
            return await Client(store).dead_letters(name, limit=count)

    found = asyncio.run(run())
    if as_json:
        rows = [
            {
                "id": d.id,
                "queue": d.origin,
                "reason": d.reason,
                "bytes": d.size,
                "body": repr(d.body),
            }
            for d in found
        ]
        echo_json(rows)
        return
    table = Table("id", "queue", "bytes", "reason", "begins with")
    for message in found:
        begin = repr(message.body[:40])
        table.add_row(message.id, message.origin, str(message.size), message.reason, begin)
    Console().print(table if found else f"{name}: none")


def _chosen(ids: Sequence[str] | None, everything: bool) -> Sequence[str]:
    """Ids of the chosen dead letters; none: all of them."""
    if bool(ids) == everything:
        raise typer.BadParameter("give ids, or --all")
    return ids or ()


@dead.command()
def retry(
    name: Name, ids: Ids = None, everything: All = False, redis: RedisUrl = DEFAULT_URL
) -> None:
    """Put them back into the queue that they came from."""

    async def run() -> Resubmitted:
        async with opened(redis) as store:
            return await Client(store).resubmit(name, _chosen(ids, everything))

    done = asyncio.run(run())
    cut = f", {done.cut} too long to have been kept" if done.cut else ""
    echo(f"{name}: {done.back} put back{cut}")


@dead.command()
def drop(
    name: Name, ids: Ids = None, everything: All = False, redis: RedisUrl = DEFAULT_URL
) -> None:
    """Remove them for good."""

    async def run() -> int:
        async with opened(redis) as store:
            return await Client(store).drop(name, _chosen(ids, everything))

    echo(f"{name}: {asyncio.run(run())} dropped")


def failures(name: Name, redis: RedisUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show why attempts ended, and where in the search space."""

    async def run() -> tuple[Experiment, dict[str, int], Sequence[Mapping[str, Any]]]:
        async with opened(redis) as store:
            experiment = experiment_from_json(await store.spec(name))
            meta = (await store.load(name)).meta
            return (
                experiment,
                from_json(meta.get("causes") or "{}"),
                await read_history(store, name),
            )

    experiment, causes, history = asyncio.run(run())
    regions = by_region(experiment, history)
    if as_json:
        echo_json({"causes": causes, "regions": regions})
        return
    console = Console()
    told = ", ".join(f"{cause} {n}" for cause, n in sorted(causes.items()))
    console.print(f"{name}: {told or 'no attempt was lost'}")
    table = Table("hyperparameter", "region", "failed", "of", "why")
    for parameter, rows in regions.items():
        for row in rows:
            if row["failed"]:
                why = ", ".join(f"{reason} {n}" for reason, n in sorted(row["reasons"].items()))
                table.add_row(
                    shortened(parameter),
                    shortened(row["region"]),
                    str(row["failed"]),
                    str(row["attempts"]),
                    why,
                )
    if table.row_count:
        console.print(table)


def by_region(
    experiment: Experiment, history: Sequence[Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Failures by hyperparameter and part of its range: a quarter of it, or a choice.

    An attempt that ended with a result counts as one that went well.
    """
    space = experiment.search_space()
    vectors = {line["trial"]: line["vector"] for line in history if line["event"] == "trial"}
    ended = [line for line in history if line["event"] in ("failed", "result")]
    regions: dict[str, list[dict[str, Any]]] = {}
    for axis, parameter in enumerate(space):
        n = space.n_choices[axis] or QUARTERS
        attempts: Counter[int] = Counter()
        reasons: dict[int, Counter[str]] = defaultdict(Counter)
        for line in ended:
            if line["trial"] not in vectors:
                continue
            part = min(int(vectors[line["trial"]][axis] * n), n - 1)
            attempts[part] += 1
            if line["event"] == "failed":
                reasons[part][line["reason"]] += 1
        rows = []
        for part in range(n):
            low, high = parameter.decode(part / n), parameter.decode((part + 1) / n)
            region = (
                str(parameter.decode((part + 0.5) / n))
                if space.n_choices[axis]
                else f"{low:.4g} to {high:.4g}"
            )
            rows.append(
                {
                    "region": region,
                    "attempts": attempts[part],
                    "failed": sum(reasons[part].values()),
                    "reasons": dict(reasons[part]),
                }
            )
        regions[parameter.name] = rows
    return regions


def collect(
    name: Name,
    older: Annotated[
        float, typer.Option(min=0, help="Seconds for which a checkpoint was not touched.")
    ] = 3600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    redis: RedisUrl = DEFAULT_URL,
) -> None:
    """Remove checkpoints that no decision can ask for: what dead workers left behind.

    Workers remove what becomes garbage by themselves; this finds what nobody knew of.
    """

    async def run(scratch: Path) -> tuple[list[str], Checkpoints]:
        async with opened(redis) as store:
            experiment = experiment_from_json(await store.spec(name))
            if experiment.checkpoints is None:
                raise StoreError(f"{name}: it has no place for checkpoints")
            place = Checkpoints(experiment.checkpoints, scratch)
            # The folder first: what is published meanwhile is not in the list.
            there = place.names(older)
            kept = await needed(store, experiment)
            return [checkpoint for checkpoint in there if checkpoint not in kept], place

    with scratch_folder() as scratch:
        found, place = asyncio.run(run(scratch))
        for checkpoint in found:
            echo(checkpoint)
            if not dry_run:
                place.delete(checkpoint)
        pieces = 0 if dry_run else place.tidy(older)
    echo(
        f"{name}: {len(found)} checkpoints{' would go' if dry_run else ' removed'}, "
        f"{pieces} unfinished ones"
    )


async def needed(store: Store, experiment: Experiment) -> set[str]:
    """Names of all checkpoints that a decision, or a report on its way, may ask for."""
    from romul_actors.protocol.messages import decode_event  # noqa: PLC0415
    from romul_actors.protocol.plan import settings  # noqa: PLC0415
    from romul_actors.protocol.slot_codec import read  # noqa: PLC0415

    on_the_way = await store.outstanding(experiment.name)
    stored = await store.load(experiment.name)
    population = read(settings(experiment), experiment.metric, stored.meta, stored.slots)
    kept = population.needed_checkpoints()
    for body in on_the_way.inbox:
        try:
            kept.add(getattr(decode_event(body), "checkpoint", None) or "")
        except ValueError:
            continue
    return kept


def control(
    worker: Annotated[str, typer.Argument(help="Name of a worker.")],
    action: Annotated[
        Literal["drain", "stop", "debug", "info", "warning", "error"],
        typer.Argument(
            help="drain: end when the trial in training has ended or saved itself; "
            "stop: give it back at once; else the log level."
        ),
    ],
    mqtt: MqttUrl = None,
    mqtt_ca: MqttCa = None,
    redis: Annotated[
        str | None,
        typer.Option(
            envvar="ROMUL_REDIS_URL", help="Server: then history tells who drained the worker."
        ),
    ] = None,
) -> None:
    """Tell a worker to drain, to stop, or how much to log. Needs a broker."""
    at = broker(mqtt, mqtt_ca, KEEPALIVE_S)
    if at is None:
        raise typer.BadParameter("give the broker: --mqtt, or ROMUL_MQTT_URL")
    ends = action in ("drain", "stop")

    async def run() -> None:
        if redis is not None and ends:
            async with opened(redis) as store:
                await Client(store, broker=at).drain(worker, at_once=action == "stop")
        else:
            await ask(at, worker, {"do": action} if ends else {"do": "log", "level": action})

    asyncio.run(run())
    echo(f"{worker}: has heard that it should {action if ends else 'log ' + action}")
