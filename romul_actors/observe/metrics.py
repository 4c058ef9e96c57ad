"""Prometheus metrics of an actor or a worker, served over HTTP beside it.

`romul_workers_desired` is the metric for an autoscaler: slots that have not ended their last step,
and second copies. The length of the queue varies with each quorum: with one worker and a full
quorum, it falls from the population to 1 again and again, although more workers would always be
busy.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, make_wsgi_app, start_http_server
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.metrics_core import Metric

from romul_actors.core.history import Line, TrialFailed, TrialReleased, Unknown
from romul_actors.errors import RomulError, StoreUnavailableError
from romul_actors.observe.health import Health, is_recent
from romul_actors.observe.snapshot import read_glance
from romul_actors.store import ReaderStore

log = logging.getLogger("romul.metrics")


class MetricsError(RomulError):
    """The metrics cannot be served."""


class _WhileRecent:
    """Metrics that are served only while they are recent, since an autoscaler would trust them.

    Args:
        registry: the registry of these metrics.
        read_s: returns when they were last read, by the process's monotonic clock.
    """

    def __init__(self, registry: CollectorRegistry, read_s: Callable[[], float]) -> None:
        self._registry = registry
        self._read_s = read_s

    def describe(self) -> Iterable[Metric]:
        return self._registry.collect()

    def collect(self) -> Iterable[Metric]:
        return self._registry.collect() if is_recent(self._read_s()) else ()


class ActorMetrics:
    """Lines of history that one actor wrote, and the state of each experiment."""

    def __init__(self) -> None:
        self.registry, read = CollectorRegistry(), CollectorRegistry()
        self._read_s = float("-inf")
        per = ["experiment"]
        self._events = PrometheusCounter(
            "romul_events",
            "Lines of history that this actor wrote",
            [*per, "event"],
            registry=self.registry,
        )
        self._lost = PrometheusCounter(
            "romul_attempts_lost",
            "Attempts that did not succeed",
            [*per, "reason"],
            registry=self.registry,
        )
        self._counters = (self._events, self._lost)
        self._gauges = {
            name: Gauge(f"romul_{name}", description, per, registry=read)
            for name, description in (
                ("slots", "Slots of the population"),
                ("trials_queued", "Trials that wait for a worker"),
                ("trials_leased", "Trials that a worker has"),
                ("workers_alive", "Workers with a heartbeat within the lease"),
                ("workers_desired", "Workers that would have work: unfinished slots and copies"),
                ("inbox", "Events that wait for a decision"),
                ("dead", "Messages that could not be read"),
                ("best", "Best metric so far, in the experiment's own unit"),
                ("running", "1 while the experiment is running"),
                ("restores", "Trials that restored a parent, as reported by workers"),
                ("restores_warm", "Restores from the worker's memory"),
                ("offers", "Trials offered first to the worker that has their parent in memory"),
                ("offers_released", "Offers that this worker did not take in time"),
                ("offers_waited_seconds", "Total time that trials waited in offers"),
            )
        }

        self._desired = Gauge(
            "romul_fleet_workers_desired",
            "Workers that would have work, over all experiments",
            registry=read,
        )
        self.registry.register(_WhileRecent(read, lambda: self._read_s))
        self._refreshed = Gauge(
            "romul_last_refresh_timestamp_seconds",
            "Time of the last read of the experiments, in seconds since the epoch",
            registry=self.registry,
        )

    def watch(self, actor: Any) -> None:
        """Read an actor's own counter at each scrape."""
        Gauge(
            "romul_commits_outrun",
            "Batches that were decided again because another actor was faster",
            registry=self.registry,
        ).set_function(lambda: actor.outrun)

    def count(self, name: str, lines: Sequence[Line]) -> None:
        """Count lines that were written to an experiment's history."""
        kinds = Counter(x.name if isinstance(x, Unknown) else x.event for x in lines)
        for kind, n in kinds.items():
            self._events.labels(name, kind).inc(n)
        for line in lines:
            if isinstance(line, TrialFailed | TrialReleased):
                self._lost.labels(name, line.reason).inc()

    async def refresh(self, store: ReaderStore) -> None:
        """Read all experiments once."""
        # First, since an experiment that is counted after the listing may be new.
        counted = {x[0] for counter in self._counters for x in _labels(counter)}
        statuses, desired = await store.experiments(), 0.0
        for counter in self._counters:
            _forget(counter, counted - set(statuses))
        for name, status in list(statuses.items()):
            try:
                values = await _values(store, name, status)
            except StoreUnavailableError:
                raise
            except RomulError as error:
                # It is of another version, or damaged; the others keep their gauges.
                log.debug("no metrics of %s: %s", name, error)
                del statuses[name]
                continue
            desired += values["workers_desired"]
            for key, value in values.items():
                self._gauges[key].labels(name).set(value)
        self._desired.set(desired)
        for gauge in self._gauges.values():
            _forget(gauge, {x[0] for x in _labels(gauge)} - set(statuses))
        self._read_s = time.monotonic()
        self._refreshed.set_to_current_time()


def _labels(metric: Gauge | PrometheusCounter) -> list[Sequence[str]]:
    """Labels for which a metric has values, the experiment first."""
    return list(metric._metrics)  # noqa: SLF001  (there is no other way to list them)


def _forget(metric: Gauge | PrometheusCounter, experiments: set[str]) -> None:
    """Drop a metric's values of some experiments."""
    for labels in _labels(metric):
        if labels[0] in experiments:
            metric.remove(*labels)


async def _values(store: ReaderStore, name: str, status: str) -> dict[str, float]:
    """An experiment's gauges by their names."""
    glance = await store.glance(name, ("status",))
    going = sum(slot["status"] != "done" for slot in glance.slots)
    snapshot = read_glance(replace(glance, slots=()), name)
    leased = len(await store.leases(name))
    depths, affinity = snapshot.depths, await store.affinity(name)
    # A new experiment needs its first worker before it has its first trial.
    desired = max(going, depths["trials"], status == "submitted")
    values = {
        "slots": snapshot.n_slots,
        "trials_leased": leased,
        "trials_queued": max(0, depths["trials"] - leased),
        "workers_alive": len(snapshot.alive),
        "workers_desired": desired if status in ("submitted", "running") else 0,
        "inbox": depths["inbox"],
        "dead": depths["dead"],
        "running": status == "running",
        "restores": affinity.restores,
        "restores_warm": affinity.warm,
        "offers": affinity.offers,
        "offers_released": affinity.released,
        "offers_waited_seconds": affinity.waited_ms / 1000,
    }
    if snapshot.best:
        values["best"] = snapshot.best[snapshot.experiment.metric]
    return {key: float(value) for key, value in values.items()}


class WorkerMetrics:
    """The number of trials that one worker trained, and whether it trains now.

    Args:
        name: the worker's name.
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
async def served(
    registry: CollectorRegistry, health: Health, host: str, port: int
) -> AsyncIterator[int]:
    """Serve metrics and health while the context is open; yields the port, which may be 0.

    Raises:
        MetricsError: the port is taken.
    """
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise MetricsError(
            f"metrics on {host}:{port}: {error}: choose another --metrics-port (0: any free one)"
        ) from None
    server.set_app(health.beside(make_wsgi_app(registry)))
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join(5)
