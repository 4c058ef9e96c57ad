"""`romul actor`: a decision actor."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from romul_actors import waiting
from romul_actors.actor.loop import Actor
from romul_actors.actor.timing import collect_rarely
from romul_actors.cli.options.shared import (
    DEFAULT_URL,
    Keepalive,
    LogLevel,
    MetricsHost,
    MetricsPort,
    MqttCa,
    MqttUrl,
    RedisUrl,
    start_log,
)
from romul_actors.cli.processes.services import (
    Probes,
    beside,
    check_again,
    metrics_module,
    serve_until_stopped,
    unique_name,
)
from romul_actors.cli.servers.connection import broker
from romul_actors.core.history import Line
from romul_actors.mqtt.bridge import Bridge
from romul_actors.mqtt.broker import KEEPALIVE_S
from romul_actors.store import Store
from romul_actors.store.redis.urls import hide_password

log = logging.getLogger("romul.actor")

OnLines = Callable[[str, Sequence[Line]], None]
"""Called with an experiment's name and the lines of history that were committed."""


def actor(
    redis: RedisUrl = DEFAULT_URL,
    mqtt: MqttUrl = None,
    mqtt_ca: MqttCa = None,
    keepalive: Keepalive = KEEPALIVE_S,
    experiment: Annotated[
        list[str] | None, typer.Option(help="Serve only this experiment (repeatable).")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(envvar="ROMUL_ACTOR_NAME", help="Unique name. Default: a generated one."),
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    log_level: LogLevel = "info",
) -> None:
    """Run a decision actor. A second actor takes over if the first one fails.

    At the start, the actor waits up to 15 minutes for the server to answer.
    """
    start_log(log_level)
    collect_rarely()
    chosen = name or unique_name("actor")
    at = broker(mqtt, mqtt_ca, keepalive)
    metrics, probes = None, None
    if metrics_port is not None:
        metrics = metrics_module().ActorMetrics()
        probes = Probes(metrics.registry, metrics.refresh, metrics_host, metrics_port)

    async def run(store: Store, stop: asyncio.Event) -> None:
        listeners: list[OnLines] = []
        async with contextlib.AsyncExitStack() as stack:
            bridge = None if at is None else Bridge(at, chosen)
            if bridge is not None:
                listeners.append(bridge.publish)
            if metrics is not None:
                listeners.append(metrics.count)

            def on_lines(name: str, lines: Sequence[Line]) -> None:
                for listener in listeners:
                    listener(name, lines)

            serving = Actor(store, chosen, experiment, on_lines if listeners else None)
            if metrics is not None:
                metrics.watch(serving)
            if bridge is not None:
                await stack.enter_async_context(beside(bridge.run(serving)))
            log.info(
                "actor %s on %s: decides for %s",
                chosen,
                hide_password(redis),
                ", ".join(experiment) if experiment else "all searches",
            )
            await stack.enter_async_context(beside(check_again(store)))
            await serving.run(stop)

    waiting.run(serve_until_stopped(redis, run, probes))
