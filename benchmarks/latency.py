"""Measure how long a worker waits from its report to its next lease.

    python benchmarks/latency.py --workers 1 8 64

There are as many slots as workers (at least 4). The optimizer is `random`, whose quorum is one
result. Trials sleep for a second, and their ends are spread over the second. So the time measured
is that of one report through the server and the actor to the same worker's next lease.

The server and the actor (`romul actor`) are real processes. The workers are real `Worker` objects,
each with its own connection. They share `--processes` processes and their trainer only sleeps, so
two cores are enough for 64 of them. The time begins before the call that reports and ends when the
call that leases has returned.

The ceiling, measured in the same run by the same processes at the same pace, is an echo: one
process copies entries from one stream to another, for which the workers wait. It makes no decisions
and stores nothing. Prints one JSON line for each number of workers, with medians of the rounds, in
milliseconds.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from redis.asyncio import Redis

from romul_actors.client import Client
from romul_actors.core.events import TrialMessage
from romul_actors.core.optimizers.romul import MIN_POOL
from romul_actors.local.processes import Crew, Member, running
from romul_actors.local.redis_server import embedded_server
from romul_actors.protocol.experiment import Experiment, FloatSpec
from romul_actors.store import Hold, Lease
from romul_actors.store.redis import RedisStore
from romul_workers.trainer import Ending, Success, Trainer, ignore
from romul_workers.worker.loop import Worker
from romul_workers.worker.settings import WorkerSettings

NAME = "bench"
WARM_UP = 2
"""Number of trials of each worker that are not counted."""
REQUESTS, REPLIES = "ceiling:{bench}:requests", "ceiling:{bench}:replies"


class Sleeping(Trainer):
    """Sleeps instead of training.

    Args:
        lengths_s: durations of the trials, in order.
    """

    def __init__(self, lengths_s: Iterator[float]) -> None:
        self._lengths_s = lengths_s

    async def train(
        self, experiment: Experiment, trial: TrialMessage, stores: Callable[[], None] = ignore
    ) -> Ending:
        """Sleep, and succeed."""
        del experiment, stores
        await asyncio.sleep(next(self._lengths_s))
        return Success(float(trial.hyperparameters["x"]), f"{trial.id}-{trial.attempt}-000000")

    def ask_to_stop(self) -> None:
        """Do nothing: a trial is short."""

    async def discard(self, experiment: Experiment, checkpoint: str) -> None:
        """Do nothing: there are no checkpoints."""

    async def close(self) -> None:
        """Do nothing."""


class TimedStore(RedisStore):
    """A store that records how long its worker waited.

    Attributes:
        waits_s: the times from each report to the next lease, in seconds.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._reported: float | None = None
        self.waits_s: list[float] = []

    async def settle(
        self, lease: Lease, slot: int, token: str, body: bytes, hold: Hold | None = None
    ) -> bool | None:
        """Report, and record the time before the call."""
        self._reported = time.perf_counter()
        return await super().settle(lease, slot, token, body, hold)

    async def lease(
        self, names: Sequence[str], worker: str, block_ms: int, holding: Sequence[str] = ()
    ) -> Lease | None:
        """Lease, and record the time since the report."""
        lease = await super().lease(names, worker, block_ms, holding)
        if lease is not None and self._reported is not None:
            self.waits_s.append(time.perf_counter() - self._reported)
        return lease


@dataclass(frozen=True, slots=True)
class Share:
    """The part of the workers that one process runs.

    Attributes:
        url: URL of the server.
        workers: numbers of its workers.
        of: total number of workers.
        trial_s: duration of a trial, in seconds.
        trials: number of trials of each worker after the warm-up.
    """

    url: str
    workers: range
    of: int
    trial_s: float
    trials: int


async def work(share: Share, number: int) -> list[float]:
    """Run one worker to its last trial, and return its waits."""
    store = TimedStore(share.url)
    settings = WorkerSettings(
        f"worker-{number}", allow=["*"], max_trials=WARM_UP + share.trials, grace_s=0.0
    )
    first_s = share.trial_s * (1 + number / share.of)
    lengths_s = itertools.chain([first_s], itertools.repeat(share.trial_s))
    await Worker(store, Sleeping(lengths_s), settings).run(asyncio.Event())
    await store.close()
    return store.waits_s


async def echoed(share: Share, number: int) -> list[float]:
    """Do the same as a worker, but with an echo, and return the waits."""
    client: Any = Redis.from_url(share.url, protocol=2)
    waits: list[float] = []
    await asyncio.sleep(share.trial_s * number / share.of)
    for _ in range(WARM_UP + share.trials):
        await asyncio.sleep(share.trial_s)
        began = time.perf_counter()
        await client.xadd(REQUESTS, {"m": b"x" * 200})
        found = None
        while not found:
            found = await client.xreadgroup("g", f"{number}", {REPLIES: ">"}, 1, 500)
        waits.append(time.perf_counter() - began)
    await client.aclose()
    return waits


async def echo(url: str) -> None:
    """Copy each entry of one stream to another, until cancelled."""
    client: Any = Redis.from_url(url, protocol=2)
    while True:
        for _, rows in await client.xreadgroup("g", "echo", {REQUESTS: ">"}, 256, 500) or []:
            for _, fields in rows:
                await client.xadd(REPLIES, fields)


Play = Callable[[Share, int], Awaitable[list[float]]]


def play(one: Play, share: Share, pipe: Connection) -> None:
    """Run a share in this process, and send all waits that count."""

    async def run() -> list[list[float]]:
        return await asyncio.gather(*(one(share, number) for number in share.workers))

    pipe.send([wait for waits in asyncio.run(run()) for wait in waits[WARM_UP:]])


def be_echo(url: str) -> None:
    """Run the echo in this process until it is killed."""
    asyncio.run(echo(url))


def all_waits(one: Play, url: str, given: argparse.Namespace, workers: int) -> list[float]:
    """Run all workers in processes, and return their waits in seconds."""
    spawn = multiprocessing.get_context("spawn")
    started = []
    for part in range(min(given.processes, workers)):
        mine = range(part, workers, given.processes)
        ours, theirs = spawn.Pipe(duplex=False)
        share = Share(url, mine, workers, given.trial_s, given.trials)
        process = spawn.Process(target=play, args=(one, share, theirs))
        process.start()
        theirs.close()
        started.append((process, ours))
    waits = [wait for _, pipe in started for wait in pipe.recv()]
    for process, _ in started:
        process.join()
    return waits


async def romul(given: argparse.Namespace, workers: int) -> list[float]:
    """The waits of real workers, in seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with embedded_server(folder) as url:
            store = RedisStore(url)
            await Client(store).submit(experiment(workers, given))
            environment = {**os.environ, "ROMUL_REDIS_URL": url}
            async with running(Crew([Member("actor", ["actor"], environment)], folder / "logs")):
                waits = await asyncio.to_thread(all_waits, work, url, given, workers)
            await store.close()
    return waits


async def ceiling(given: argparse.Namespace, workers: int) -> list[float]:
    """The waits for an echo, in seconds."""
    with tempfile.TemporaryDirectory() as name:
        async with embedded_server(Path(name)) as url:
            client: Any = Redis.from_url(url, protocol=2)
            for stream in (REQUESTS, REPLIES):
                await client.xgroup_create(stream, "g", mkstream=True)
            echoing = multiprocessing.get_context("spawn").Process(target=be_echo, args=(url,))
            echoing.start()
            try:
                return await asyncio.to_thread(all_waits, echoed, url, given, workers)
            finally:
                echoing.terminate()
                echoing.join()
                await client.aclose()


def experiment(workers: int, given: argparse.Namespace) -> Experiment:
    """Declare a search in which one report leads to one next trial."""
    return Experiment(
        name=NAME,
        task="none",
        space={"x": FloatSpec(type="float", min=0.0, max=1.0)},
        population=max(MIN_POOL, workers),
        steps=MIN_POOL * (WARM_UP + given.trials + 10),
        optimizer={"name": "random"},
        checkpoints="/nowhere",
        keep_checkpoints="all",
    )


def percentiles(waits_s: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile, in milliseconds."""
    p50, p99 = np.percentile(waits_s, [50, 99])
    return {"p50_ms": 1000 * float(p50), "p99_ms": 1000 * float(p99)}


def measure(given: argparse.Namespace, workers: int) -> dict[str, Any]:
    """Run all rounds, worker and echo in turn."""
    rows: dict[str, list[dict[str, float]]] = {"": [], "ceiling_": []}
    for number in range(given.rounds):
        rows["ceiling_"].append(percentiles(asyncio.run(ceiling(given, workers))))
        rows[""].append(percentiles(asyncio.run(romul(given, workers))))
        print(f"round {number + 1} of {given.rounds}: {rows[''][-1]}", file=sys.stderr)
    figures = {
        f"{prefix}{name}": round(median(row[name] for row in of), 2)
        for prefix, of in rows.items()
        for name in ("p50_ms", "p99_ms")
    }
    ratios = (a["p50_ms"] / b["p50_ms"] for a, b in zip(rows[""], rows["ceiling_"], strict=True))
    return {
        "benchmark": "latency",
        "workers": workers,
        "slots": max(MIN_POOL, workers),
        "trial_s": given.trial_s,
        "waits": workers * given.trials,
        "rounds": given.rounds,
        **figures,
        "p50_ratio_to_ceiling": round(median(ratios), 2),
    }


def main() -> None:
    """Measure, and print one JSON line for each number of workers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--trials", type=int, default=10, help="trials of each worker in a round")
    parser.add_argument("--trial-s", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=2, help="processes that run the workers")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for workers in given.workers:
        print(json.dumps(measure(given, workers)), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
