"""`romul actor`, `romul worker`, `romul serve`: the long-running parts, each alone."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from romul_actors.actor.loop import Actor
from romul_actors.cli.options import (
    DEFAULT_URL,
    Keepalive,
    LogLevel,
    MetricsHost,
    MetricsPort,
    MqttCa,
    MqttUrl,
    RedisUrl,
    broker,
    resolve,
    start_log,
)
from romul_actors.cli.printing import Console, echo
from romul_actors.local.redis_server import embedded_server
from romul_actors.mqtt.bridge import Bridge
from romul_actors.mqtt.connection import KEEPALIVE_S, Broker
from romul_actors.store import Store
from romul_actors.store.opening import open_store
from romul_actors.waiting import cancel
from romul_workers.announce import Announcer
from romul_workers.notices import Source, source, watch
from romul_workers.trainer import ChildTrainer, scratch_folder
from romul_workers.worker import GARBAGE_MS, SHIPPED_TASKS, Worker, WorkerSettings

Tell = Callable[[str, Sequence[Mapping[str, Any]]], None]


def unique_name(kind: str) -> str:
    """A name that no other process has: host, process, and a few random letters."""
    host = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname())[:40]
    return f"{kind}-{host}-{os.getpid()}-{secrets.token_hex(2)}"


@contextlib.asynccontextmanager
async def stopping() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def opened(url: str, console: Console | None = None) -> AsyncIterator[Store]:
    """A store that was checked, with its warnings told."""
    store = open_store(resolve(url))
    try:
        for warning in await store.check():
            (console or Console(stderr=True)).print(f"warning: {warning}")
        yield store
    finally:
        await store.close()


async def _serve(url: str, run: Callable[[Store, asyncio.Event], Awaitable[None]]) -> None:
    async with stopping() as stop, opened(url) as store:
        await run(store, stop)


@contextlib.asynccontextmanager
async def beside(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run something beside the main thing, and end it in order."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        await cancel(*tasks)


def actor(
    redis: RedisUrl = DEFAULT_URL,
    mqtt: MqttUrl = None,
    mqtt_ca: MqttCa = None,
    keepalive: Keepalive = KEEPALIVE_S,
    experiment: Annotated[
        list[str] | None, typer.Option(help="Serve this experiment only (repeatable).")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(envvar="ROMUL_ACTOR_NAME", help="Unique name; made up if left out."),
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    log_level: LogLevel = "info",
) -> None:
    """Run a decision actor. A second one takes over when the first is gone."""
    start_log(log_level)
    chosen = name or unique_name("actor")
    at = broker(mqtt, mqtt_ca, keepalive)

    async def run(store: Store, stop: asyncio.Event) -> None:
        tellers: list[Tell] = []
        async with contextlib.AsyncExitStack() as stack:
            bridge = None if at is None else Bridge(at, chosen)
            if bridge is not None:
                tellers.append(bridge.tell)
            if metrics_port is not None:
                metrics = _metrics().ActorMetrics()
                tellers.append(metrics.tell)
                await stack.enter_async_context(beside(metrics.keep(store)))
                await _serve_metrics(stack, metrics.registry, metrics_host, metrics_port)

            def tell(name: str, lines: Sequence[Mapping[str, Any]]) -> None:
                for teller in tellers:
                    teller(name, lines)

            serving = Actor(store, chosen, experiment, tell if tellers else None)
            if bridge is not None:
                await stack.enter_async_context(beside(bridge.run(serving)))
            await serving.run(stop)

    asyncio.run(_serve(redis, run))


def _metrics() -> Any:
    """The module of metrics, which needs a library of its own."""
    try:
        from romul_actors.observe import metrics  # noqa: PLC0415
    except ImportError:
        raise typer.BadParameter(
            "--metrics-port needs prometheus-client: pip install 'romul[metrics]'"
        ) from None
    return metrics


async def _serve_metrics(
    stack: contextlib.AsyncExitStack, registry: Any, host: str, port: int
) -> None:
    served = await stack.enter_async_context(_metrics().served(registry, host, port))
    logging.getLogger("romul").info("metrics: http://%s:%d/metrics", host, served)


def worker(
    redis: RedisUrl = DEFAULT_URL,
    mqtt: MqttUrl = None,
    mqtt_ca: MqttCa = None,
    keepalive: Keepalive = KEEPALIVE_S,
    experiment: Annotated[
        list[str] | None,
        typer.Option(help="Serve experiments whose name fits this pattern only (repeatable)."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            envvar="ROMUL_ALLOW",
            help="Task modules that may be imported, besides the shipped ones "
            "(repeatable; * fits all names).",
        ),
    ] = None,
    path: Annotated[
        list[Path] | None,
        typer.Option(
            envvar="ROMUL_PATH", exists=True, file_okay=False, help="Folder with task modules."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            envvar="ROMUL_DEVICE", help="cpu, cuda, cuda:1 ...; else the experiment's own."
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            envvar="ROMUL_GRACE_S", min=0, help="Seconds a trial may go on after SIGTERM or Ctrl-C."
        ),
    ] = 10.0,
    notice: Annotated[
        list[str] | None,
        typer.Option(
            envvar="ROMUL_NOTICE",
            help="Who announces the machine's end: aws, gcp, azure, a URL that answers 200, or a "
            "file that appears (repeatable).",
        ),
    ] = None,
    notice_s: Annotated[
        float,
        typer.Option(
            envvar="ROMUL_NOTICE_S",
            min=0,
            help="Seconds between SIGUSR1, or a notice that does not say, and the end.",
        ),
    ] = 60.0,
    quota_gb: Annotated[
        float | None,
        typer.Option(
            envvar="ROMUL_QUOTA_GB",
            min=0,
            help="Most that an experiment's checkpoints may take, in 10^9 bytes.",
        ),
    ] = None,
    garbage_s: Annotated[
        float,
        typer.Option(
            envvar="ROMUL_GARBAGE_S", min=0, help="Seconds to keep checkpoints nobody needs."
        ),
    ] = GARBAGE_MS / 1000,
    name: Annotated[
        str | None,
        typer.Option(envvar="ROMUL_WORKER_NAME", help="Unique name; made up if left out."),
    ] = None,
    task_log: Annotated[
        Path | None, typer.Option(help="File for what tasks print; else a temporary one.")
    ] = None,
    max_trials: Annotated[
        int | None, typer.Option(min=1, help="End after this many trials.")
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    log_level: LogLevel = "info",
) -> None:
    """Run a worker: it trains whatever trials there are, until it is told to end.

    SIGTERM or Ctrl-C: the trial in training has the grace period, saves itself if its task can,
    and goes back. SIGUSR1: the machine goes soon; only what can be finished is still taken.
    """
    start_log(log_level)
    settings = WorkerSettings(
        name=name or unique_name("worker"),
        experiments=experiment or ["*"],
        allow=[SHIPPED_TASKS, *(allow or [])],
        grace_s=grace,
        max_trials=max_trials,
        garbage_ms=int(1000 * garbage_s),
    )
    at = broker(mqtt, mqtt_ca, keepalive)
    sources = [source(text, notice_s) for text in notice or []]
    quota = None if quota_gb is None else int(1e9 * quota_gb)

    async def run(store: Store, stop: asyncio.Event) -> None:
        trainer = ChildTrainer(scratch, path or [], task_log, device, quota)
        working = Worker(store, trainer, settings)
        async with contextlib.AsyncExitStack() as stack:
            if metrics_port is not None:
                metrics = _metrics().WorkerMetrics(settings.name)
                metrics.watch(working)
                await _serve_metrics(stack, metrics.registry, metrics_host, metrics_port)
            await _work(working, settings.name, stop, at, sources, notice_s)

    with scratch_folder() as scratch:
        asyncio.run(_serve(redis, run))


async def _work(
    working: Worker,
    name: str,
    stop: asyncio.Event,
    at: Broker | None,
    sources: list[Source],
    notice_s: float,
) -> None:
    """Run a worker with all that may end it."""
    announcer = None if at is None else Announcer(at, name, working)

    def announce(seconds: float) -> None:
        working.announce(seconds)
        if announcer is not None:
            announcer.notice(seconds)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, announce, notice_s)
    ours = [] if announcer is None else [announcer.run()]
    async with beside(*ours, *([watch(sources, announce)] if sources else [])):
        await working.run(stop)
    loop.remove_signal_handler(signal.SIGUSR1)


def serve(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
) -> None:
    """Start the embedded server of a local run that has ended, to look into it."""

    async def run() -> None:
        async with stopping() as stop, embedded_server(folder) as url:
            echo(f"{url}\n(romul status --redis {folder}; Ctrl-C ends the server)")
            await stop.wait()

    asyncio.run(run())
