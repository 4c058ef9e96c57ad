"""Measure the gain from offering a trial first to the worker that has its parent in memory.

    python benchmarks/affinity.py --rounds 3

The setup is a real server, an actor and worker processes. A torch task with weights and momenta
sleeps for a random time instead of training. The same search runs with offers and without them
(`romul worker --affinity-s 0`), in turn. Prints one JSON line for each size of the population, with
medians of the rounds: the share of warm restores, how long trials waited for one worker, and the
time of the search after its first step.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

from romul_actors.client import Client
from romul_actors.core.history import TrialReported
from romul_actors.launch.crew import crew
from romul_actors.local.processes import running
from romul_actors.local.redis_server import embedded_server
from romul_actors.observe.stored_history import read_history
from romul_actors.protocol.experiment import Experiment, FloatSpec
from romul_actors.store.redis import RedisStore

TASK = """
import random
import time
import torch

def train(trial):
    n = trial.constants["numbers"]
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.empty(n)) for _ in range(8)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for weight in model.parameters() if trial.parent is None else ():
        optimizer.state[weight]["momentum_buffer"] = torch.full((n,), 0.5)
    trial.attach(model=model, optimizer=optimizer)
    time.sleep(random.Random(trial.seed).uniform(0.5, 1.5) * trial.constants["seconds"])
    trial.save()
    return {"loss": random.Random(trial.seed).random(), "warm": float(trial._work.warm)}
"""


async def search(
    folder: Path, slots: int, workers: int, steps: int, megabytes: int, seconds: float, given: str
) -> dict[str, float]:
    """Run one search, and return its figures; `given`: value of `--affinity-s`, or ""."""
    (folder / "moves.py").write_text(TASK)
    declared = Experiment(
        name="affinity",
        task="moves",
        metric="loss",
        population=slots,
        steps=steps,
        space={"x": FloatSpec(type="float", min=0.0, max=1.0)},
        checkpoints=str(folder / "checkpoints"),
        constants={"numbers": megabytes * 2**20 // 4 // 2 // 8, "seconds": seconds},
    )
    async with embedded_server(folder) as url:
        # Passed on to the workers; "" is the same as not set.
        os.environ["ROMUL_AFFINITY_S"] = given
        store = RedisStore(url)
        await Client(store).submit(declared)
        async with running(crew(url, folder, workers, ["moves"], [folder])):
            await reported(store, slots)
            began = time.perf_counter()
            await reported(store, slots * steps)
            took = time.perf_counter() - began
        counts = await store.affinity("affinity")
        lines = await read_history(store, "affinity")
        await store.close()
    warm = [x.metrics["warm"] for x in lines if isinstance(x, TrialReported) and x.step > 0]
    return {**asdict(counts), "warm": mean(warm), "search_s": took}


async def reported(store: RedisStore, at_least: int, name: str = "affinity") -> None:
    """Wait until `at_least` trials have been reported."""
    while True:
        if await store.reported(name) >= at_least:
            return
        await asyncio.sleep(0.02)


def main() -> None:
    """Measure, and print one JSON line for each size of the population."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slots", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--megabytes", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for slots in given.slots:
        found: dict[str, list[dict[str, float]]] = {"": [], "0": []}
        for _ in range(given.rounds):
            for how, runs in found.items():
                with tempfile.TemporaryDirectory() as folder:
                    sizes = slots, given.workers, given.steps, given.megabytes, given.seconds
                    runs.append(asyncio.run(search(Path(folder), *sizes, how)))
        line: dict[str, Any] = {"benchmark": "affinity", "slots": slots, "workers": given.workers}
        for how, runs in found.items():
            name = "with" if how == "" else "without"
            for figure in ("warm", "search_s", "offers", "released", "waited_ms"):
                line[f"{figure}_{name}"] = round(median(run[figure] for run in runs), 3)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
