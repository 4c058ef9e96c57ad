"""`romul workers`, `control`: an experiment's workers, and requests to one of them."""

import asyncio
from typing import Annotated, Literal

import typer

from romul_actors.cli.options.shared import AsJson, MqttCa, MqttUrl, Name, SearchUrl
from romul_actors.cli.output.printing import Console, Table, echo, echo_json
from romul_actors.cli.output.rows import worker_row
from romul_actors.cli.servers.connection import (
    broker,
    connected,
    connected_to,
    folder_of,
    run_of_worker,
)
from romul_actors.mqtt.broker import KEEPALIVE_S
from romul_actors.mqtt.topics import ask
from romul_actors.observe.snapshot import Snapshot, refusal_in_words, snapshot
from romul_actors.store import AffinityCounts
from romul_actors.store.redis.urls import hide_password


def workers(name: Name, redis: SearchUrl = None, as_json: AsJson = False) -> None:
    """List an experiment's workers, their states, and the age of their last heartbeats."""

    async def run() -> tuple[Snapshot, AffinityCounts]:
        async with connected_to(name, redis) as client:
            return await snapshot(client.store, name), await client.store.affinity(name)

    seen, counts = asyncio.run(run())
    lease_s = seen.experiment.timeouts.lease_s
    rows = [worker_row(worker, lease_s) for worker in seen.workers]
    if as_json:
        echo_json(rows)
        return
    columns = [key for key in (rows[0] if rows else ()) if key != "why"]
    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if row[key] is None else str(row[key]) for key in columns))
    Console().print(table if rows else f"{name}: no workers")
    for worker in seen.refusing:
        Console().print(f"does not serve it: {refusal_in_words(worker)}")
    if counts.restores or counts.offers:
        Console().print(in_words(counts))


def in_words(counts: AffinityCounts) -> str:
    """How many restores were warm, and how long trials waited for that."""
    return (
        f"{counts.warm} of {counts.restores} restores were warm; {counts.offers} trials waited "
        f"for the worker that has their parent in memory, {counts.waited_ms / 1000:g} s in total, "
        f"{counts.released} of them in vain"
    )


def control(
    worker: Annotated[str, typer.Argument(help="Name of the worker.")],
    action: Annotated[
        Literal["drain", "stop", "debug", "info", "warning", "error"],
        typer.Argument(
            help="drain: end after the trial in training has ended or saved itself; "
            "stop: give the trial back at once and end; otherwise the new log level."
        ),
    ],
    mqtt: MqttUrl = None,
    mqtt_ca: MqttCa = None,
    redis: Annotated[
        str | None,
        typer.Option(
            envvar="ROMUL_REDIS_URL",
            help="Server, or the folder of a local run, whose history then records the request.",
            show_default="the worker's local run, if no broker is given",
        ),
    ] = None,
) -> None:
    """Make a worker drain, stop, or change its log level. This requires a broker.

    For a worker of a running local run, the command finds the broker and the server by the worker's
    name.
    """
    ends = action in ("drain", "stop")

    async def run() -> None:
        where = redis
        if mqtt is None and redis is None:
            where = str(await run_of_worker(worker))
        at = broker(mqtt, mqtt_ca, KEEPALIVE_S, folder_of(where))
        if at is None:
            raise typer.BadParameter(
                f"{hide_password(str(where))} has no broker: give one with --mqtt or ROMUL_MQTT_URL"
            )
        if where is not None and ends:
            async with connected(where, broker=at) as client:
                await client.drain(worker, at_once=action == "stop")
        else:
            await ask(at, worker, {"do": action} if ends else {"do": "log", "level": action})

    asyncio.run(run())
    echo(f"{worker} has received the request: {action if ends else 'log level ' + action}")
