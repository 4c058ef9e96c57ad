"""The process of `romul worker` once its child starts: the worker, with all that may end it."""

import asyncio
import contextlib
import signal
from dataclasses import dataclass

from romul_actors.cli.connection import broker
from romul_actors.cli.services import (
    beside,
    metrics_module,
    serve_metrics,
    serve_until_stopped,
    unique_name,
)
from romul_actors.mqtt.broker import Broker
from romul_actors.store import Store
from romul_workers.announce import Announcer
from romul_workers.child_trainer import ChildTrainer
from romul_workers.notices import Source, source, watch
from romul_workers.worker import Worker, WorkerSettings

__all__ = [
    "ChildTrainer",
    "Notices",
    "WorkerProcess",
    "WorkerSettings",
    "broker",
    "source",
    "unique_name",
]


@dataclass(frozen=True, slots=True)
class Notices:
    """How the process learns that its machine ends.

    Attributes:
        sources: of notices.
        seconds: between SIGUSR1, or a notice that does not say, and the end.
    """

    sources: list[Source]
    seconds: float


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A worker with what surrounds it in a process of its own.

    Attributes:
        trainer: what trains; the worker closes it.
        settings: of the worker.
        broker: where its presence is announced; None: nowhere.
        notices: of the machine's end.
        metrics: host and port to serve metrics at; None: none are served.
    """

    trainer: ChildTrainer
    settings: WorkerSettings
    broker: Broker | None
    notices: Notices
    metrics: tuple[str, int] | None

    async def run(self, url: str) -> None:
        """Work until SIGTERM or SIGINT.

        Args:
            url: of the server.
        """
        await serve_until_stopped(url, self._serve)

    async def _serve(self, store: Store, stop: asyncio.Event) -> None:
        working = Worker(store, self.trainer, self.settings)
        async with contextlib.AsyncExitStack() as stack:
            if self.metrics is not None:
                metrics = metrics_module().WorkerMetrics(self.settings.name)
                metrics.watch(working)
                await serve_metrics(stack, metrics.registry, *self.metrics)
            await self._work(working, stop)

    async def _work(self, working: Worker, stop: asyncio.Event) -> None:
        """Run a worker with all that may end it."""
        announcer = (
            None if self.broker is None else Announcer(self.broker, self.settings.name, working)
        )

        def announce(seconds: float) -> None:
            working.announce(seconds)
            if announcer is not None:
                announcer.notice(seconds)

        loop = asyncio.get_running_loop()
        sources = self.notices.sources
        loop.add_signal_handler(signal.SIGUSR1, announce, self.notices.seconds)
        ours = [] if announcer is None else [announcer.run()]
        async with beside(*ours, *([watch(sources, announce)] if sources else [])):
            await working.run(stop)
        loop.remove_signal_handler(signal.SIGUSR1)
