"""The process of `romul worker` after its child has started: the worker and what can end it."""

import asyncio
import logging
import signal

from romul_actors.cli.processes.services import (
    Probes,
    beside,
    metrics_module,
    serve_until_stopped,
    unique_name,
)
from romul_actors.cli.servers.connection import broker as broker_at
from romul_actors.mqtt.broker import Broker
from romul_actors.store import Store
from romul_actors.store.redis.urls import hide_password
from romul_workers.child.trainer import ChildTrainer
from romul_workers.worker.loop import Worker
from romul_workers.worker.notices import Source, source, watch
from romul_workers.worker.presence import Announcer
from romul_workers.worker.settings import WorkerSettings

log = logging.getLogger("romul.worker")

__all__ = ["ChildTrainer", "WorkerSettings", "broker_at", "source", "unique_name", "work"]


async def work(
    url: str,
    trainer: ChildTrainer,
    settings: WorkerSettings,
    broker: Broker | None,
    sources: list[Source],
    notice_s: float,
    metrics: tuple[str, int] | None,
) -> None:
    """Run a worker in this process until SIGTERM or SIGINT, with its presence and metrics.

    SIGUSR1 also ends it: at once while it waits for the server, otherwise after `notice_s`.

    Args:
        url: of the server.
        trainer: what trains; the worker closes it.
        settings: of the worker.
        broker: announces its presence; None for no broker.
        sources: of notices that the machine ends.
        notice_s: seconds from SIGUSR1, or from a notice without a time, to the end of the machine.
        metrics: host and port to serve metrics at; None to serve none.
    """
    figures, probes = None, None
    if metrics is not None:
        figures = metrics_module().WorkerMetrics(settings.name)
        probes = Probes(figures.registry, lambda store: store.experiments(), *metrics)

    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def end_the_wait() -> None:
        log.warning("this machine ends in %.0f s; no server has answered yet", notice_s)
        stop.set()

    async def run(store: Store, stop: asyncio.Event) -> None:
        working = Worker(store, trainer, settings)
        announcer = None if broker is None else Announcer(broker, settings.name, working)

        def announce(seconds: float) -> None:
            working.announce(seconds)
            if announcer is not None:
                announcer.notice(seconds)

        loop.add_signal_handler(signal.SIGUSR1, announce, notice_s)
        ours = [] if announcer is None else [announcer.run()]
        if figures is not None:
            figures.watch(working)
        log.info(
            "worker %s on %s, task modules %s: waits for trials",
            settings.name,
            hide_password(url),
            ", ".join(settings.allow),
        )
        async with beside(*ours, *([watch(sources, announce)] if sources else [])):
            await working.run(stop)

    # While the server is waited for, there is nothing to finish.
    loop.add_signal_handler(signal.SIGUSR1, end_the_wait)
    try:
        await serve_until_stopped(url, run, probes, stop)
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)
