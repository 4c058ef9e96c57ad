"""Measure the gain from storing a checkpoint while the worker trains its next trial.

    python benchmarks/overlap.py --rounds 3

The setup is a real server, an actor and worker processes. Checkpoints go to a local object store
(moto) through a proxy that delays each answer and limits the bandwidth. The task sleeps instead of
training. The same search runs with a second lease if storing is slow (the default), never, and
always, in turn. Prints one JSON line: trials per second after the first step, as medians of the
rounds, and medians of the ratios within a round.
"""

import argparse
import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any

from affinity import reported
from object_store import local_server, timed

from romul_actors.client import Client
from romul_actors.launch.crew import crew
from romul_actors.local.processes import running
from romul_actors.local.redis_server import embedded_server
from romul_actors.protocol.experiment import Experiment, FloatSpec
from romul_actors.store.redis import RedisStore
from romul_workers.checkpoints.storage import Checkpoints

TASK = """
import os
import random
import time

def train(trial):
    time.sleep(trial.constants["seconds"])
    (trial.checkpoint / "weights").write_bytes(os.urandom(int(trial.constants["bytes"])))
    return random.Random(trial.seed).random()
"""
WAYS = {"default": "", "never": "0", "always": "1"}
CHUNK = 1 << 16


@contextlib.asynccontextmanager
async def held_up(port: int, delay_s: float, bytes_s: float) -> AsyncIterator[str]:
    """Run a slow proxy for a port of this machine; yields the proxy's address.

    Args:
        port: port of the server.
        delay_s: delay of each piece of an answer, in seconds.
        bytes_s: bandwidth for requests, in bytes per second.
    """

    async def pass_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late_s: float, rate: float
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(CHUNK):
                await asyncio.sleep(late_s + len(data) / rate)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            pass_on(reader, back, 0.0, bytes_s), pass_on(there, writer, delay_s, float("inf"))
        )

    server = await asyncio.start_server(serve, "127.0.0.1")
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def search(folder: Path, place: str, given: argparse.Namespace, overlap: str) -> float:
    """Trials per second of one search; `overlap`: value of ROMUL_OVERLAP."""
    (folder / "sleeps.py").write_text(TASK)
    trials = int(given.slots * given.steps)
    declared = Experiment(
        name="overlap",
        task="sleeps",
        population=given.slots,
        steps=given.steps,
        space={"x": FloatSpec(type="float", min=0.0, max=1.0)},
        checkpoints=place,
        constants={"seconds": given.seconds, "bytes": int(given.megabytes * 2**20)},
    )
    async with embedded_server(folder) as url:
        # Passed on to the workers; "" is the same as not set.
        os.environ["ROMUL_OVERLAP"] = overlap
        store = RedisStore(url)
        await Client(store).submit(declared)
        async with running(crew(url, folder, given.workers, ["sleeps"], [folder])):
            await reported(store, given.slots, "overlap")
            began = time.perf_counter()
            await reported(store, trials, "overlap")
            took = time.perf_counter() - began
        await store.close()
    return float(trials - given.slots) / took


def store_one(place: str, folder: Path, megabytes: float) -> float:
    """Time to store one checkpoint with open connections, in seconds."""
    checkpoints = Checkpoints(place, folder)
    seconds = 0.0
    for number in range(2):
        made = checkpoints.begin(f"0-0-{number}")
        (made / "weights").write_bytes(os.urandom(int(megabytes * 2**20)))
        seconds = timed(lambda: checkpoints.publish(made, f"0-0-{number}"))  # noqa: B023
    return seconds


async def measure(given: argparse.Namespace, port: int) -> dict[str, Any]:
    """Run all rounds, the ways in turn."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    async with held_up(port, given.delay_s, 2**20 * given.megabytes_s) as address:
        os.environ["AWS_ENDPOINT_URL"] = address
        with tempfile.TemporaryDirectory() as folder:
            store_s = await asyncio.to_thread(
                store_one, "s3://romul/one", Path(folder), given.megabytes
            )
        for number in range(given.rounds):
            for way, says in WAYS.items():
                with tempfile.TemporaryDirectory() as folder:
                    place = f"s3://romul/{way}-{number}"
                    found[way].append(await search(Path(folder), place, given, says))
    ratios = {
        f"{way}_ratio": round(
            median(x / y for x, y in zip(found[way], found["never"], strict=True)), 3
        )
        for way in ("default", "always")
    }
    return {
        "store_s": round(store_s, 3),
        **{f"{way}_trials_per_s": round(median(rates), 3) for way, rates in found.items()},
        **ratios,
    }


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a trial")
    parser.add_argument("--megabytes", type=float, default=1.0, help="size of a checkpoint")
    parser.add_argument("--delay-s", type=float, default=0.1, help="delay of an answer")
    parser.add_argument("--megabytes-s", type=float, default=20.0, help="bandwidth per connection")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with local_server():
        port = int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])
        figures = asyncio.run(measure(given, port))
    line = {
        "benchmark": "overlap",
        "slots": given.slots,
        "workers": given.workers,
        "train_s": given.seconds,
        "rounds": given.rounds,
        **figures,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
