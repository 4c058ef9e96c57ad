"""Measure the server's memory for a slot and for a finished trial.

    python benchmarks/memory.py --slots 64 --steps 50 --hyperparameters 8
    python benchmarks/memory.py --metrics 2 --read-back 8

A real actor decides a search on the embedded server, and each trial is leased and reported as by a
worker. Then the server reports the bytes of each key (`MEMORY USAGE ... SAMPLES 0`):

- a slot: its hash, and its part of `settled`;
- a finished trial: its two lines of history, and its share of the emptied queues, the list of
  garbage, and the experiment's hash.

The second line of a trial grows with what its task returns: further metrics, and hyperparameters
that it read back.

The ceiling is a plain stream to which the same lines of history were added with XADD. Prints one
JSON line; all figures are bytes.

    python benchmarks/memory.py --actor --slots 10000 --steps 10
    python benchmarks/memory.py --actor --slots 256 --steps 400

With --actor, it measures the memory of an actor's process in MiB: the resident set size after each
tenth of the trials, which are answered at once. The figures are constant if memory depends only on
the number of slots.
"""

import argparse
import asyncio
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decisions import experiment as endless
from decisions import loaded
from redis.asyncio import Redis

from romul_actors.actor.loop import Actor
from romul_actors.client import Client
from romul_actors.core.events import Result, Submitted, TrialMessage
from romul_actors.local.processes import Crew, Member, running
from romul_actors.local.redis_server import embedded_server
from romul_actors.protocol.experiment import Experiment, FloatSpec
from romul_actors.protocol.messages import decode_trial, encode
from romul_actors.store.keys import key, slot_key
from romul_actors.store.redis import RedisStore

NAME = "bench"
LEFTOVERS = ("inbox", "trials", "garbage", "dead", "workers", "tick")
WORKERS = 16
PARTS = 10
"""Number of measurements of an actor's memory."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Returned:
    """What a task returns besides its metric.

    Attributes:
        metrics: number of further figures.
        read_back: number of hyperparameters that were read back.
    """

    metrics: int
    read_back: int


def experiment(slots: int, steps: int, hyperparameters: int) -> Experiment:
    """Declare a search; every other hyperparameter is on a logarithmic scale."""
    space = {
        f"x{i}": FloatSpec(type="float", min=1e-4, max=1.0, scale="log" if i % 2 else "linear")
        for i in range(hyperparameters)
    }
    return Experiment(
        name=NAME,
        task="none",
        space=dict(space),
        population=slots,
        steps=steps,
        checkpoints="/nowhere",
        history_keep=10**7,
    )


def result(trial: TrialMessage, worker: str, returned: Returned) -> Result:
    """Report a trial as a worker does."""
    values = {name: float(value) for name, value in trial.hyperparameters.items()}
    return Result(
        trial=trial.id,
        slot=trial.slot,
        attempt=trial.attempt,
        worker=worker,
        value=sum((value - 0.3) ** 2 for value in values.values()),
        checkpoint=f"{trial.id}-{trial.attempt}-{trial.seed:08x}"[:40],
        seconds=12.345678,
        metrics={f"metric{i}": 1.0 / (i + 3) for i in range(returned.metrics)},
        in_effect=dict(list(values.items())[: returned.read_back]),
    )


async def work(store: RedisStore, returned: Returned) -> None:
    """Lease and report trials until cancelled."""
    number = 0
    while True:
        worker = f"host-{number % WORKERS}"
        number += 1
        lease = await store.lease([NAME], worker, 100)
        if lease is None:
            continue
        trial = decode_trial(lease.body)
        token = f"{trial.id}#{trial.attempt} result by {worker}"
        await store.settle(lease, trial.slot, token, encode(result(trial, worker, returned)))


async def search(store: RedisStore, declared: Experiment, returned: Returned) -> None:
    """Run the search to its end; then remove the garbage, as workers would."""
    await store.create(NAME, declared.model_dump_json(), encode(Submitted()))
    stop, actor = asyncio.Event(), Actor(store, "bench-actor")
    parts = [asyncio.create_task(actor.run(stop)), asyncio.create_task(work(store, returned))]
    await finished(store)
    stop.set()
    parts[1].cancel()
    await asyncio.gather(*parts, return_exceptions=True)
    while found := await store.garbage(NAME, 0, 1000):
        await store.forget(NAME, found)


async def finished(store: RedisStore) -> None:
    """Wait until the search has finished."""
    while True:
        if (await store.experiments())[NAME] == "finished":
            return
        await asyncio.sleep(0.1)


async def usage(client: Redis, name: str) -> int:
    """Bytes of a key and its value; 0 if there is no such key."""
    taken: int | None = await client.memory_usage(name, samples=0)
    return taken or 0


async def raw_stream(client: Redis, texts: list[str]) -> int:
    """Bytes of a stream that holds only these texts."""
    async with client.pipeline(transaction=False) as pipeline:
        for text in texts:
            pipeline.xadd("ceiling", {"json": text})
        await pipeline.execute()
    taken = await usage(client, "ceiling")
    await client.delete("ceiling")
    return taken


async def run(slots: int, steps: int, hyperparameters: int, returned: Returned) -> dict[str, Any]:
    """Run a search, and measure the memory that it left in use."""
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_server(Path(folder), durable=False) as url:
            store, client = RedisStore(url), Redis.from_url(url, protocol=2)
            await search(store, experiment(slots, steps, hyperparameters), returned)
            lines = [text for _, text in await store.history(NAME, count=10**7)]
            settled = await usage(client, key(NAME, "settled"))
            slot = [await usage(client, slot_key(NAME, i)) for i in range(slots)]
            history = await usage(client, key(NAME, "history"))
            left = {part: await usage(client, key(NAME, part)) for part in LEFTOVERS}
            meta = await usage(client, key(NAME))
            ceiling = await raw_stream(client, lines)
            await store.close()
            await client.aclose()
    trials = slots * steps
    finished = history + sum(left.values()) + meta
    return {
        "benchmark": "memory",
        "slots": slots,
        "trials": trials,
        "hyperparameters": hyperparameters,
        "metrics": returned.metrics,
        "read_back": returned.read_back,
        "slot": round((sum(slot) + settled) / slots),
        "trial": round(finished / trials),
        "trial_history": round(history / trials),
        "trial_history_json": round(sum(len(text.encode()) for text in lines) / trials),
        "trial_leftovers": round((finished - history) / trials),
        "ceiling": round(ceiling / trials),
        "ratio_to_ceiling": round(finished / ceiling, 3),
    }


async def actor(slots: int, trials: int) -> dict[str, Any]:
    """Let an actor's process decide `trials` trials, and measure its memory meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with embedded_server(folder, durable=False) as url:
            store = RedisStore(url)
            await Client(store).submit(endless(slots))
            member = Member("actor", ["actor"], {**os.environ, "ROMUL_REDIS_URL": url})
            async with running(Crew([member], folder / "logs")):
                with loaded(url):
                    resident = [
                        await resident_mib(member, store, trials * part // PARTS)
                        for part in range(1, PARTS + 1)
                    ]
            await store.close()
    return {
        "benchmark": "memory",
        "slots": slots,
        "trials": trials,
        "actor_mib": resident,
    }


async def resident_mib(member: Member, store: RedisStore, trials: int) -> float:
    """Resident set size of a process once `trials` trials were reported, in MiB (Linux)."""
    if member.process is None:
        raise RuntimeError(f"{member.name} is not running")
    while True:
        if await store.reported(NAME) >= trials:
            break
        await asyncio.sleep(0.05)
    file = Path(f"/proc/{member.process.pid}/statm")
    pages = int(file.read_text(encoding="ascii").split()[1])  # noqa: ASYNC240  (of /proc)
    return round(pages * os.sysconf("SC_PAGE_SIZE") / MIB, 1)


def main() -> None:
    """Read the arguments and print the line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slots", type=int, default=64, help="at least 4")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--hyperparameters", type=int, default=8)
    parser.add_argument(
        "--metrics", type=int, default=0, help="further metrics that a task returns"
    )
    parser.add_argument("--read-back", type=int, default=0, help="hyperparameters read back")
    parser.add_argument("--actor", action="store_true", help="measure an actor's process")
    chosen = parser.parse_args()
    if chosen.actor:
        print(json.dumps(asyncio.run(actor(chosen.slots, chosen.slots * chosen.steps))))
        return
    returned = Returned(chosen.metrics, chosen.read_back)
    sizes = (chosen.slots, chosen.steps, chosen.hyperparameters)
    print(json.dumps(asyncio.run(run(*sizes, returned))))


if __name__ == "__main__":
    main()
