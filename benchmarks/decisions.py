"""How many decisions a second one actor takes, through a real server.

    python benchmarks/decisions.py --population 256

The load is in the same process: it answers every trial at once with a result, so that the actor
never waits for training. The ceiling, measured in the same run, is what the server does of
pipelined calls of a script of six commands, which is what one decision costs it at the least.
Prints one JSON line.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from redis.asyncio import Redis

from romul_actors.actor import Actor
from romul_actors.events import Result, Submitted
from romul_actors.experiment import Experiment, FloatSpec
from romul_actors.messages import decode_trial, encode
from romul_actors.server import embedded_server
from romul_actors.store.redis import RedisStore

DIMS = 8
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


def experiment(population: int) -> Experiment:
    """Declare an experiment that never ends by itself."""
    space = {f"x{i}": FloatSpec(type="float", min=0.0, max=1.0) for i in range(DIMS)}
    return Experiment(
        name="bench",
        task="none",
        space=dict(space),
        population=population,
        steps=1_000_000,
        checkpoints="/nowhere",
        history_keep=10_000,
    )


async def answer(client: Redis, stop: asyncio.Event) -> None:
    """Answer every trial at once, as many at a time as there are."""
    inbox, trials = "romul:{bench}:inbox", "romul:{bench}:trials"
    script = client.register_script(ANSWER)
    while not stop.is_set():
        found: Any = await client.xreadgroup("workers", "load", {trials: ">"}, PIPELINE, 100)
        told: list[bytes] = []
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
            told += [entry_id, encode(result)]
        if told:
            await script(keys=[inbox, trials], args=told)


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


async def measure(url: str, population: int, seconds: float) -> float:
    """Decisions a second of one actor."""
    store, client = RedisStore(url), Redis.from_url(url, protocol=2)
    await store.remove("bench")
    await store.create("bench", experiment(population).model_dump_json(), encode(Submitted()))
    stop, actor = asyncio.Event(), Actor(store, "bench-actor")
    load = asyncio.create_task(answer(client, stop))
    running = asyncio.create_task(actor.run(stop))
    await asyncio.sleep(0.5)
    before, began = actor.decisions, time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (actor.decisions - before) / (time.perf_counter() - began)
    stop.set()
    await asyncio.gather(load, running)
    await store.close()
    await client.aclose()
    return rate


async def run(population: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure actor and ceiling in turn, so that a slow moment of the machine hits both."""
    rates, ceilings = [], []
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_server(Path(folder), durable=False) as url:
            client = Redis.from_url(url, protocol=2)
            for number in range(rounds):
                ceilings.append(await ceiling(client, seconds / 2))
                rates.append(await measure(url, population, seconds))
                print(f"round {number + 1} of {rounds}", file=sys.stderr)
            await client.aclose()
    return {
        "benchmark": "decisions",
        "population": population,
        "decisions_per_s": round(median(rates), 1),
        "ceiling_per_s": round(median(ceilings), 1),
        "ratio_to_ceiling": round(median(r / c for r, c in zip(rates, ceilings, strict=True)), 4),
        "rounds": rounds,
    }


def main() -> None:
    """Read the arguments and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--population", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    print(json.dumps(asyncio.run(run(chosen.population, chosen.seconds, chosen.rounds))))


if __name__ == "__main__":
    main()
