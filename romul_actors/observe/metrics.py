"""Prometheus metrics of an actor or a worker, served over HTTP beside it.

`romul_workers_desired` is what an autoscaler wants: slots that have not ended their last step, and
second copies. The queue swings with each quorum: with one worker and a full quorum it counts down
from the population to 1, again and again, though as many workers would be busy all the time.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, start_http_server
from prometheus_client import Counter as PrometheusCounter

from romul_actors.errors import RomulError, StoreError
from romul_actors.observe.snapshot import read_glance
from romul_actors.store import ReaderStore

log = logging.getLogger("romul.metrics")

LOOK_S = 5.0
"""How often the store is asked."""


class MetricsError(RomulError):
    """The metrics cannot be served."""


class ActorMetrics:
    """What an actor counts, and what it sees of each experiment."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        per = ["experiment"]
        self._events = PrometheusCounter(
            "romul_events",
            "Lines of history that this actor wrote",
            [*per, "event"],
            registry=self.registry,
        )
        self._lost = PrometheusCounter(
            "romul_attempts_lost",
            "Attempts that ended otherwise than well",
            [*per, "reason"],
            registry=self.registry,
        )
        self._gauges = {
            name: Gauge(f"romul_{name}", told, per, registry=self.registry)
            for name, told in (
                ("slots", "Slots of the population"),
                ("trials_queued", "Trials that no worker has yet"),
                ("trials_leased", "Trials with a worker"),
                ("workers_alive", "Workers heard of within the lease"),
                ("workers_desired", "Workers with something to do: slots that go on, and copies"),
                ("inbox", "Events that wait for a decision"),
                ("dead", "Messages that nobody could use"),
                ("best", "Best metric so far, in the experiment's own unit"),
                ("running", "1 while the experiment is running"),
            )
        }

        self._desired = Gauge(
            "romul_fleet_workers_desired",
            "Workers that would have something to do, over all experiments",
            registry=self.registry,
        )

    def tell(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Count what was written to an experiment's history."""
        kinds = Counter(line["event"] for line in lines)
        for kind, n in kinds.items():
            self._events.labels(name, kind).inc(n)
        for line in lines:
            if line["event"] in ("failed", "released"):
                self._lost.labels(name, line["reason"]).inc()

    async def look(self, store: ReaderStore) -> None:
        """Look at all experiments once."""
        statuses, desired = await store.experiments(), 0.0
        for name, status in statuses.items():
            glance = await store.glance(name, ("status",))
            going = sum(slot["status"] != "done" for slot in glance.slots)
            seen = read_glance(replace(glance, slots=()))
            leased = len(await store.leases(name))
            waiting = status in ("submitted", "running")
            told = {
                "slots": float(seen.n_slots),
                "trials_leased": float(leased),
                "trials_queued": float(max(0, seen.depths["trials"] - leased)),
                "workers_alive": float(len(seen.alive)),
                # A new experiment wants its first worker before it has its first trial.
                "workers_desired": float(
                    max(going, seen.depths["trials"], status == "submitted") if waiting else 0
                ),
                "inbox": float(seen.depths["inbox"]),
                "dead": float(seen.depths["dead"]),
                "running": float(status == "running"),
            }
            if seen.best:
                told["best"] = float(seen.best[seen.experiment.metric])
            desired += told["workers_desired"]
            for key, value in told.items():
                self._gauges[key].labels(name).set(value)
        self._desired.set(desired)
        self._forget(set(statuses))

    def _forget(self, names: set[str]) -> None:
        for gauge in self._gauges.values():
            for labels in list(gauge._metrics):  # noqa: SLF001  (there is no other way to list them)
                if labels[0] not in names:
                    gauge.remove(*labels)

    async def keep(self, store: ReaderStore) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look(store)
            except (StoreError, RomulError) as error:
                log.debug("no metrics: %s", error)
            await asyncio.sleep(LOOK_S)


class WorkerMetrics:
    """What a worker counts.

    Args:
        name: the worker's.
    """

    def __init__(self, name: str) -> None:
        self.registry = CollectorRegistry()
        per = ["worker"]
        self._trials = Gauge(
            "romul_worker_trials", "Trials so far", per, registry=self.registry
        ).labels(name)
        self._busy = Gauge(
            "romul_worker_training", "1 while it trains", per, registry=self.registry
        ).labels(name)

    def watch(self, working: Any) -> None:
        """Read a worker's own counters at each scrape."""
        self._trials.set_function(lambda: working.trials)
        self._busy.set_function(lambda: working.state == "training")


@contextlib.asynccontextmanager
async def served(registry: CollectorRegistry, host: str, port: int) -> AsyncIterator[int]:
    """Serve metrics while the context is open; the port, which may have been given as 0.

    Raises:
        MetricsError: the port is taken.
    """
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise MetricsError(f"metrics on {host}:{port}: {error}") from None
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join(5)
