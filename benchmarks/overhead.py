"""Measure the overhead of a trial.

    python benchmarks/overhead.py --seconds 0.1 1 10

The setup is a real server, an actor, and a worker with its child process. Instead of training, the
task restores a small torch model and its optimizer from the parent, sleeps for the length of a
trial, and saves. The overhead is the time between two calls of the task in the same child, without
the sleep: restoring, saving, hashing and flushing the checkpoint, the report, the decision, and the
next lease.

The ceiling, measured in the same run, is a plain loop in one process that does the same with torch
only: `torch.load`, the sleep, `torch.save`, a flush, a rename. Prints one JSON line for each length
of a trial, with medians of the trials.
"""

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from romul_actors.client import Client
from romul_actors.local.processes import Crew, Member, running
from romul_actors.local.redis_server import embedded_server
from romul_actors.protocol.experiment import Experiment, FloatSpec
from romul_actors.store.redis import RedisStore

WARM_UP = 2
"""Number of trials at the beginning that are not counted, because they restore nothing."""
SLOTS = 4
TASK = """
import time
from pathlib import Path

import torch

def made():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(8, 64)).sum().backward()
    optimizer.step()
    return model, optimizer

def note(file):
    with open(file, "a") as noted:
        noted.write(f"{time.time()}\\n")

def train(trial):
    note(trial.constants["calls"])
    model, optimizer = made()
    trial.attach(model=model, optimizer=optimizer)
    time.sleep(trial.constants["seconds"])
    trial.save()
    return float(trial.hyperparameters["lr"])
"""
PLAIN = """
import os
import sys
import time
from pathlib import Path

import torch
from sleeps import made, note

calls, place, seconds, trials = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
place.mkdir()
for number in range(trials):
    note(calls)
    model, optimizer = made()
    if number:
        stored = torch.load(place / f"{number - 1}.pt", weights_only=True)
        model.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
    time.sleep(seconds)
    with (place / "part").open("wb") as file:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
        file.flush()
        os.fsync(file.fileno())
    (place / "part").rename(place / f"{number}.pt")
"""


def experiment(folder: Path, seconds: float) -> Experiment:
    """Declare a search whose trials sleep for `seconds`."""
    return Experiment(
        name="overhead",
        task="sleeps",
        space={"lr": FloatSpec(type="float", min=0.01, max=1.0, scale="log")},
        optimizer={"name": "random"},
        population=SLOTS,
        steps=100_000,
        constants={"calls": str(folder / "calls"), "seconds": seconds},
        checkpoints=str(folder / "checkpoints"),
    )


async def romul(folder: Path, seconds: float, trials: int) -> list[float]:
    """The overhead of each trial of a worker, in seconds."""
    async with embedded_server(folder) as url:
        environment = {**os.environ, "ROMUL_REDIS_URL": url}
        store = RedisStore(url)
        await Client(store).submit(experiment(folder, seconds))
        await store.close()
        async with running(Crew([Member("actor", ["actor"], environment)], folder / "logs")):
            # The first trial of each slot has no parent.
            count = SLOTS + WARM_UP + trials + 1
            options = ["--allow=sleeps", f"--path={folder}", f"--max-trials={count}"]
            command = ["-m", "romul_actors.cli", "worker", *options]
            await asyncio.to_thread(finished, command, folder / "logs" / "worker.log", environment)
    return beside(folder / "calls", seconds, trials)


def plain(folder: Path, seconds: float, trials: int) -> list[float]:
    """The overhead of each iteration of the plain loop, in seconds."""
    (folder / "plain.py").write_text(PLAIN)
    calls = folder / "plain-calls"
    count = WARM_UP + trials + 1
    command = [
        str(folder / "plain.py"),
        str(calls),
        str(folder / "plain"),
        f"{seconds}",
        f"{count}",
    ]
    finished(command, folder / "plain.log", dict(os.environ))
    return beside(calls, seconds, trials)


def finished(command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
    """Run a Python program to its end."""
    with log.open("wb") as output:
        done = subprocess.run(  # noqa: S603
            [sys.executable, *command], check=False, env=environment, stdout=output, stderr=output
        )
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{log.read_text()}")


def beside(calls: Path, seconds: float, trials: int) -> list[float]:
    """The time between calls without the sleep, for the last trials, in seconds."""
    at = [float(line) for line in calls.read_text().splitlines()]
    return [after - before - seconds for before, after in itertools.pairwise(at)][-trials:]


def measure(seconds: float, trials: int) -> dict[str, Any]:
    """Measure a worker and the plain loop with one length of trials."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sleeps.py").write_text(TASK)
        plainly = plain(folder, seconds, trials)
        ours = asyncio.run(romul(folder, seconds, trials))
    return {
        "benchmark": "overhead",
        "trial_s": seconds,
        "trials": trials,
        "overhead_ms": round(1000 * median(ours), 2),
        "overhead_percent": round(100 * median(ours) / seconds, 3),
        "plain_ms": round(1000 * median(plainly), 2),
        "plain_percent": round(100 * median(plainly) / seconds, 3),
    }


def main() -> None:
    """Measure, and print one JSON line for each length."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.1, 1.0, 10.0])
    parser.add_argument("--trials", type=int, default=15, help="trials that are counted")
    given = parser.parse_args()
    for seconds in given.seconds:
        print(json.dumps(measure(seconds, given.trials)), flush=True)


if __name__ == "__main__":
    main()
