"""`romul worker`: a worker."""

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.connection import broker
from romul_actors.cli.options import (
    DEFAULT_URL,
    Keepalive,
    LogLevel,
    MetricsHost,
    MetricsPort,
    MqttCa,
    MqttUrl,
    RedisUrl,
    TaskPath,
    start_log,
)
from romul_actors.cli.services import (
    beside,
    metrics_module,
    serve_metrics,
    serve_until_stopped,
    unique_name,
)
from romul_actors.mqtt.broker import KEEPALIVE_S, Broker
from romul_actors.store import Store
from romul_workers.announce import Announcer
from romul_workers.child_trainer import ChildTrainer
from romul_workers.notices import Source, source, watch
from romul_workers.scratch import scratch_folder
from romul_workers.worker import GARBAGE_MS, SHIPPED_TASKS, Worker, WorkerSettings


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
    path: TaskPath = None,
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
            help="Source of notices that the machine ends: aws, gcp, azure, a URL that answers "
            "200, or a file that appears (repeatable).",
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
            envvar="ROMUL_GARBAGE_S", min=0, help="Seconds to keep checkpoints that no trial needs."
        ),
    ] = GARBAGE_MS / 1000,
    affinity_s: Annotated[
        float | None,
        typer.Option(
            envvar="ROMUL_AFFINITY_S",
            min=0,
            max=9,
            help="Longest time that a trial waits for the worker that holds its parent in memory; "
            "0: never; if left out, as long as a restore from files takes here, 1 s at most.",
        ),
    ] = None,
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
    """Run a worker: it trains whatever trials there are, until it is stopped.

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
        affinity_s=affinity_s,
    )
    at = broker(mqtt, mqtt_ca, keepalive)
    sources = [source(text, notice_s) for text in notice or []]
    quota = None if quota_gb is None else int(1e9 * quota_gb)

    async def run(store: Store, stop: asyncio.Event) -> None:
        trainer = ChildTrainer(scratch, path or [], task_log, device, quota)
        working = Worker(store, trainer, settings)
        async with contextlib.AsyncExitStack() as stack:
            if metrics_port is not None:
                metrics = metrics_module().WorkerMetrics(settings.name)
                metrics.watch(working)
                await serve_metrics(stack, metrics.registry, metrics_host, metrics_port)
            await _work(working, settings.name, stop, at, sources, notice_s)

    with scratch_folder() as scratch:
        asyncio.run(serve_until_stopped(redis, run))


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
