"""Measure how many decisions per second one actor makes, with a real server.

    python benchmarks/decisions.py --slots 256 --rounds 5

A separate process answers each trial at once with a result, so that the actor never waits for
training. The ceiling, measured in the same run, is the server's rate of pipelined calls of a script
of six commands, the least that a decision costs the server.

The rate is given per second of wall time, in which server, load and actor share the cores, and per
second of the actor's CPU time, each also as a ratio to the ceiling. Prints one JSON line for each
number of slots, with medians of the rounds.
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
"""Number of steps of each slot that are not counted."""
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
    """Declare an experiment with practically unlimited steps."""
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
    """The rates of one actor.

    Attributes:
        wall: decisions per second of wall time.
        cpu: decisions per second of CPU time of the actor's process, user and system.
    """

    wall: float
    cpu: float


def load(url: str) -> None:
    """Answer trials in this process until it is killed."""
    asyncio.run(answer(Redis.from_url(url, protocol=2)))


@contextmanager
def loaded(url: str) -> Iterator[None]:
    """Run a process that answers trials for the duration of a `with` block."""
    process = multiprocessing.get_context("spawn").Process(target=load, args=(url,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


async def answer(client: Redis) -> None:
    """Answer all queued trials at once, until cancelled."""
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
    """Pipelined calls per second of a script of six commands."""
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
    """Let one actor decide for `seconds`, and then until all slots have ended a step.

    A large population is decided at the end of each step, so an incomplete step would have results
    but no decisions.
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
    """Wait until the actor has made `at_least` decisions."""
    while True:
        if actor.decisions >= at_least:
            return
        await asyncio.sleep(0.02)


async def run(slots: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure actor and ceiling in turn, so that other load on the machine affects both."""
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
    """Read the arguments, and print one JSON line for each number of slots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--slots", "--population", type=int, nargs="+", default=[256], help="at least 4"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    # Like the process of `romul actor`.
    collect_rarely()
    first = 0.0
    for slots in chosen.slots:
        line = asyncio.run(run(slots, chosen.seconds, chosen.rounds))
        first = first or line["decisions_per_cpu_s"]
        line["cost_to_first"] = round(first / line["decisions_per_cpu_s"], 3)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
