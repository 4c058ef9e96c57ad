"""Measure the load that one server and its actors can carry, with many slots and workers.

    python benchmarks/scale.py                                   # 10,000 slots, 500 workers
    python benchmarks/scale.py --trial-s 4 2 1 0.5
    python benchmarks/scale.py --slots 4 --trial-s 5             # 496 workers without a trial
    python benchmarks/scale.py --slots 64 --workers 64 --trial-s 0.5 --actors 2

The setup is a real server that appends each write to a file, a process for each actor, and real
`Worker` objects, each with its own connection, which share `--processes` processes. Their trainer
sleeps instead of training, for 0.5 to 1.5 times `--trial-s`. The workers report, send heartbeats,
lease trials and read the list of experiments like those of `romul worker`, but have no child
process and write no checkpoints.

A measurement begins when there are two reports for each worker. `demanded_per_s` is the ceiling:
the rate of trials if reports and leases took no time. CPU time is measured for each process, and
shows the cost of a trial in each and the load that one core could carry. Prints one JSON line for
each length of a trial.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from latency import Sleeping, TimedStore, percentiles
from redis.asyncio import Redis

from romul_actors.actor.loop import Actor
from romul_actors.client import Client
from romul_actors.local.redis_server import embedded_server
from romul_actors.protocol.experiment import Experiment, FloatSpec
from romul_actors.store.redis import RedisStore
from romul_workers.worker.loop import Worker
from romul_workers.worker.settings import WorkerSettings

NAME = "bench"
REPORTS_FIRST = 2
"""Number of reports before the measurement begins, for each worker that can have a trial."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Setting:
    """The settings of a measurement.

    Attributes:
        url: URL of the server.
        slots, workers: number of slots and workers.
        trial_s: mean duration of a trial, in seconds.
        optimizer: name of the optimizer.
        actors: number of actors.
    """

    url: str
    slots: int
    workers: int
    trial_s: float
    optimizer: str
    actors: int

    @property
    def busy(self) -> int:
        """Number of workers that can have a trial at the same time."""
        return min(self.slots, self.workers)

    @property
    def demanded_per_s(self) -> float:
        """Trials per second if reports and leases took no time."""
        return self.busy / self.trial_s


@dataclass(frozen=True, slots=True)
class Spent:
    """What a process did between two calls of `Process.spent`.

    Attributes:
        cpu_s: CPU time, user and system, in seconds.
        waits_s: its workers' times from a report to the next lease, in seconds.
        outrun: number of batches that its actor decided but could not commit.
    """

    cpu_s: float
    waits_s: list[float]
    outrun: int


class Process:
    """A process that runs workers or an actor, and reports the resources that it used.

    Args:
        part: the function that it runs until it is killed.
        setting: settings of the measurement.
        numbers: numbers of the workers, or of the actor.
    """

    def __init__(self, part: "Part", setting: Setting, numbers: range) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=serve, args=(part, setting, numbers, theirs), daemon=True
        )
        self._process.start()
        theirs.close()

    def spent(self) -> Spent:
        """The resources that were used since the last call."""
        self._pipe.send(None)
        spent: Spent = self._pipe.recv()
        return spent

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join()


@dataclass(slots=True)
class Played:
    """The objects that a process runs; the part fills it."""

    stores: list[TimedStore] = field(default_factory=list)
    actor: Actor | None = None


Part = Callable[[Setting, range, Played], Coroutine[Any, Any, None]]


def serve(part: Part, setting: Setting, numbers: range, pipe: Connection) -> None:
    """Run a part in this process, and answer each message with a `Spent`."""
    played = Played()
    before, outrun_before = 0.0, 0

    def answer() -> None:
        nonlocal before, outrun_before
        pipe.recv()
        now, outrun = time.process_time(), 0 if played.actor is None else played.actor.outrun
        waits_s = [wait for store in played.stores for wait in store.waits_s]
        pipe.send(Spent(now - before, waits_s, outrun - outrun_before))
        before, outrun_before = now, outrun
        for store in played.stores:
            store.waits_s.clear()

    async def run() -> None:
        asyncio.get_running_loop().add_reader(pipe.fileno(), answer)
        await part(setting, numbers, played)

    asyncio.run(run())


async def act(setting: Setting, numbers: range, played: Played) -> None:
    """Run an actor."""
    played.actor = Actor(RedisStore(setting.url), f"bench-actor-{numbers.start}")
    await played.actor.run(asyncio.Event())


async def work(setting: Setting, numbers: range, played: Played) -> None:
    """Run some of the workers; their starts are spread over the length of a trial."""

    async def one(number: int) -> None:
        await asyncio.sleep(max(1.0, setting.trial_s) * number / setting.workers)
        store = TimedStore(setting.url)
        played.stores.append(store)
        settings = WorkerSettings(f"worker-{number}", allow=["*"])
        await Worker(store, Sleeping(lengths_s(setting.trial_s, number)), settings).run(
            asyncio.Event()
        )

    await asyncio.gather(*(one(number) for number in numbers))


def lengths_s(trial_s: float, seed: int) -> Iterator[float]:
    """Random lengths of trials, from 0.5 to 1.5 times `trial_s`.

    If all trials took the same time, workers that once waited together would always report
    together.
    """
    draw = random.Random(seed)
    while True:
        yield draw.uniform(0.5, 1.5) * trial_s


def experiment(setting: Setting) -> Experiment:
    """Declare a search with practically unlimited steps."""
    return Experiment(
        name=NAME,
        task="none",
        space={f"x{i}" if i else "x": FloatSpec(type="float", min=0.0, max=1.0) for i in range(8)},
        population=setting.slots,
        optimizer={"name": setting.optimizer},
        steps=1_000_000,
        checkpoints="/nowhere",
        history_keep=50_000,
    )


async def reported(store: RedisStore, at_least: int) -> int:
    """Wait until `at_least` trials have been reported, and return their number."""
    while True:
        found = await store.reported(NAME)
        if found >= at_least:
            return found
        await asyncio.sleep(0.05)


async def queued(store: RedisStore, slots: int) -> None:
    """Wait until the first trial of each slot is in the queue."""
    while True:
        if (await store.depths(NAME))["trials"] >= slots:
            return
        await asyncio.sleep(0.05)


async def server_cpu_s(client: Any) -> float:
    """CPU time of the server, in seconds."""
    info = await client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


async def measure(setting: Setting, seconds: float, processes: int) -> dict[str, Any]:
    """Measure one setting for `seconds`, once all workers are busy."""
    store, client = RedisStore(setting.url), Redis.from_url(setting.url, protocol=2)
    started: list[Process] = []
    try:
        started += [Process(act, setting, range(n, n + 1)) for n in range(setting.actors)]
        began = time.perf_counter()
        await Client(store).submit(experiment(setting))
        await queued(store, setting.slots)
        queued_s = time.perf_counter() - began
        parts = [range(i, setting.workers, processes) for i in range(processes)]
        crews = [Process(work, setting, part) for part in parts]
        started += crews
        before = await reported(store, REPORTS_FIRST * setting.busy)
        for each in started:
            each.spent()
        server, began = await server_cpu_s(client), time.perf_counter()
        await asyncio.sleep(seconds)
        after, wall_s = await store.reported(NAME), time.perf_counter() - began
        server = await server_cpu_s(client) - server
        spent = [each.spent() for each in started]
        acted, worked = spent[: setting.actors], spent[setting.actors :]
        memory = (await client.info("memory"))["used_memory"]
        connections = (await client.info("clients"))["connected_clients"]
        # The server logs calls of 10 ms and more, during which it answers no others.
        slow = [call["duration"] for call in await client.slowlog_get(1000)]
    finally:
        for each in started:
            each.end()
        await store.close()
        await client.aclose()
    trials, acted_s = after - before, sum(part.cpu_s for part in acted)
    waits = [wait for part in worked for wait in part.waits_s]
    # With few slots another worker may get the next trial, so there may be no wait that ended.
    waited = percentiles(waits) if waits else {}
    return {
        "benchmark": "scale",
        "optimizer": setting.optimizer,
        "slots": setting.slots,
        "workers": setting.workers,
        "actors": setting.actors,
        "trial_s": setting.trial_s,
        "seconds": round(wall_s, 1),
        "first_trials_queued_s": round(queued_s, 2),
        "demanded_per_s": round(setting.demanded_per_s, 1),
        "trials_per_s": round(trials / wall_s, 1),
        "share_of_demand": round(trials / wall_s / setting.demanded_per_s, 3),
        **{f"lease_{name}": round(value, 1) for name, value in waited.items()},
        "actor_cpu": round(acted_s / wall_s, 3),
        "server_cpu": round(server / wall_s, 3),
        "workers_cpu": round(sum(part.cpu_s for part in worked) / wall_s, 3),
        "outrun_per_s": round(sum(part.outrun for part in acted) / wall_s, 1),
        "actor_us_a_trial": round(1e6 * acted_s / trials),
        "server_us_a_trial": round(1e6 * server / trials),
        "worker_us_a_trial": round(1e6 * sum(part.cpu_s for part in worked) / trials),
        "server_mib": round(memory / MIB, 1),
        "connections": connections,
        "server_longest_call_ms": round(max(slow, default=0) / 1000, 1),
    }


async def run(given: argparse.Namespace, trial_s: float) -> dict[str, Any]:
    """Measure one length of trials on a new server."""
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_server(Path(folder)) as url:
            setting = Setting(
                url, given.slots, given.workers, trial_s, given.optimizer, given.actors
            )
            return await measure(setting, given.seconds, given.processes)


def main() -> None:
    """Measure, and print one JSON line for each length of a trial."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slots", type=int, default=10_000, help="at least 4")
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--trial-s", type=float, nargs="+", default=[4.0])
    parser.add_argument(
        "--optimizer",
        default="random",
        help="with random, no slot waits for others; with romul, a quorum is needed at each step",
    )
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of one measurement")
    parser.add_argument("--processes", type=int, default=2, help="processes that run the workers")
    given = parser.parse_args()
    for trial_s in given.trial_s:
        print(f"{given.workers} workers, trials of {trial_s:g} s", file=sys.stderr)
        print(json.dumps(asyncio.run(run(given, trial_s))), flush=True)


if __name__ == "__main__":
    main()
