"""How many decisions a second one actor takes, through a real server.

    python benchmarks/decisions.py --slots 256 --rounds 5

The load is a process of its own: it answers every trial at once with a result, so that the actor
never waits for training. The ceiling, measured in the same run, is what the server does of
pipelined calls of a script of six commands, which is what one decision costs it at the least.

Decisions are counted by the clock, where server, load and actor share the cores, and by the CPU
time that the actor's process takes; each also as a ratio to the ceiling. Prints one JSON line, with
medians of the rounds.
"""

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from redis.asyncio import Redis

from romul_actors.actor.loop import Actor
from romul_actors.actor.timing import collect_rarely
from romul_actors.client import Client
from romul_actors.core.events import Result
from romul_actors.local.redis_server import embedded_server
from romul_actors.protocol.experiment import Experiment, FloatSpec
from romul_actors.protocol.messages import decode_trial, encode
from romul_actors.store.redis import RedisStore

DIMS = 8
WARM_UP = 2
"""Steps of each slot that are not counted."""
PIPELINE = 256
CEILING = """
redis.call('HGET', KEYS[1], 'version')
redis.call('HSET', KEYS[2], 'loss', ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'm', ARGV[1])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'm', ARGV[1])
redis.call('HSET', KEYS[1], 'status', 'running')
redis.call('HINCRBY', KEYS[1], 'version', 1)
"""
ANSWER = """
for i = 1, #ARGV, 2 do
  redis.call('XADD', KEYS[1], '*', 'm', ARGV[i + 1])
  redis.call('XACK', KEYS[2], 'workers', ARGV[i])
  redis.call('XDEL', KEYS[2], ARGV[i])
end
"""


def experiment(slots: int) -> Experiment:
    """Declare an experiment that never ends by itself."""
    space = {f"x{i}": FloatSpec(type="float", min=0.0, max=1.0) for i in range(DIMS)}
    return Experiment(
        name="bench",
        task="none",
        space=dict(space),
        population=slots,
        steps=1_000_000,
        checkpoints="/nowhere",
        history_keep=10_000,
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """What one actor did.

    Attributes:
        wall: decisions a second by the clock.
        cpu: decisions a second of CPU time of the actor's process, user and system.
    """

    wall: float
    cpu: float


def load(url: str) -> None:
    """Be the process that answers, until it is ended."""
    asyncio.run(answer(Redis.from_url(url, protocol=2)))


@contextmanager
def loaded(url: str) -> Iterator[None]:
    """Have a process that answers."""
    process = multiprocessing.get_context("spawn").Process(target=load, args=(url,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


async def answer(client: Redis) -> None:
    """Answer every trial at once, as many at a time as there are."""
    inbox, trials = "romul:{bench}:inbox", "romul:{bench}:trials"
    script = client.register_script(ANSWER)
    while True:
        found: Any = await client.xreadgroup("workers", "load", {trials: ">"}, PIPELINE, 100)
        reports: list[bytes] = []
        for entry_id, fields in found[0][1] if found else ():
            trial = decode_trial(fields[b"m"])
            result = Result(
                trial=trial.id,
                slot=trial.slot,
                attempt=trial.attempt,
                worker="load",
                value=sum((float(v) - 0.3) ** 2 for v in trial.hyperparameters.values()),
                checkpoint=f"{trial.id}-{trial.attempt}",
                seconds=1.0,
            )
            reports += [entry_id, encode(result)]
        if reports:
            await script(keys=[inbox, trials], args=reports)


async def ceiling(client: Redis, seconds: float) -> float:
    """Pipelined calls of a script of six commands, a second."""
    script = client.register_script(CEILING)
    keys = [f"ceiling:{{bench}}:{name}" for name in ("meta", "slot", "trials", "history")]
    await script(keys=keys, args=["x" * 300])
    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        async with client.pipeline(transaction=False) as pipeline:
            for _ in range(PIPELINE):
                pipeline.evalsha(script.sha, len(keys), *keys, "x" * 300)
            await pipeline.execute()
        calls += PIPELINE
    return calls / (time.perf_counter() - began)


async def measure(url: str, slots: int, seconds: float) -> Measured:
    """Let one actor decide, for `seconds` and then to the end of a step of all slots.

    A large population is decided at once, at the end of each step: a part of a step would count
    its results, and none of its decisions.
    """
    store = RedisStore(url)
    await store.remove("bench")
    await Client(store).submit(experiment(slots))
    stop, actor = asyncio.Event(), Actor(store, "bench-actor")
    with loaded(url):
        running = asyncio.create_task(actor.run(stop))
        await decided(actor, WARM_UP * slots)
        before, cpu, began = actor.decisions, time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        steps = (actor.decisions - before) // slots + 1
        await decided(actor, before + steps * slots)
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        decisions = actor.decisions - before
        stop.set()
        await running
    await store.close()
    return Measured(decisions / wall_s, decisions / cpu_s)


async def decided(actor: Actor, at_least: int) -> None:
    """Wait until the actor has taken so many decisions."""
    while True:
        if actor.decisions >= at_least:
            return
        await asyncio.sleep(0.02)


async def run(slots: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure actor and ceiling in turn, so that a slow moment of the machine hits both."""
    rows: list[Measured] = []
    ceilings: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_server(Path(folder), durable=False) as url:
            client = Redis.from_url(url, protocol=2)
            for number in range(rounds):
                ceilings.append(await ceiling(client, seconds / 2))
                rows.append(await measure(url, slots, seconds))
                print(f"round {number + 1} of {rounds}", file=sys.stderr)
            await client.aclose()
    pairs = list(zip(rows, ceilings, strict=True))
    return {
        "benchmark": "decisions",
        "slots": slots,
        "decisions_per_s": round(median(row.wall for row in rows), 1),
        "decisions_per_cpu_s": round(median(row.cpu for row in rows), 1),
        "ceiling_per_s": round(median(ceilings), 1),
        "ratio_to_ceiling": round(median(row.wall / most for row, most in pairs), 4),
        "cpu_ratio_to_ceiling": round(median(row.cpu / most for row, most in pairs), 4),
        "rounds": rounds,
    }


def main() -> None:
    """Read the arguments and print a line for each number of slots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--slots", "--population", type=int, nargs="+", default=[256], help="4 at least"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    # As an actor's own process does.
    collect_rarely()
    first = 0.0
    for slots in chosen.slots:
        line = asyncio.run(run(slots, chosen.seconds, chosen.rounds))
        first = first or line["decisions_per_cpu_s"]
        line["cost_to_first"] = round(first / line["decisions_per_cpu_s"], 3)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
