"""Measure start-up times.

    python benchmarks/startup.py

- `import romul` and `romul --help`, compared with `import numpy` and with an interpreter that does
  nothing.
- A worker: the time from the start of `romul worker --allow MODULE` until its child process calls
  the task's function, for a task that imports torch and for one that imports nothing. A trial waits
  in the queue of a real server. Compared with `import torch` alone.

Each measurement is a new Python process. The kinds alternate, so that other load on the machine
affects all of them. Prints one JSON line with medians in seconds. Without torch, its figures are
left out.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

from romul_actors.client import Client
from romul_actors.local.processes import Crew, Member, running
from romul_actors.local.redis_server import embedded_server
from romul_actors.protocol.experiment import Experiment, FloatSpec
from romul_actors.store.redis import RedisStore

ROUNDS = 11
COMMANDS = {
    "python_s": ["-c", "pass"],
    "import_romul_s": ["-c", "import romul"],
    "import_numpy_s": ["-c", "import numpy"],
    "import_torch_s": ["-c", "import torch"],
    "help_s": ["-m", "romul_actors.cli", "--help"],
}
TASKS = {
    "worker_ready_s": ("with_torch", "import torch\n"),
    "worker_ready_without_torch_s": ("without_torch", ""),
}
TASK = """
import time

def train(trial):
    with open(trial.constants["file"], "w") as file:
        file.write(str(time.time()))
    (trial.checkpoint / "empty").touch()
    return 0.0
"""


def seconds(arguments: list[str]) -> float:
    """Duration of a Python process with these arguments, in seconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - began


@contextlib.asynccontextmanager
async def trials_wait(folder: Path, tasks: dict[str, tuple[str, str]]) -> AsyncIterator[str]:
    """Start a server and an actor with a search for each task; yields the server's URL."""
    async with embedded_server(folder) as url:
        environment = {**os.environ, "ROMUL_REDIS_URL": url}
        store = RedisStore(url)
        for module, imports in tasks.values():
            (folder / f"{module}.py").write_text(imports + TASK)
            await Client(store).submit(experiment(module, folder))
        async with running(Crew([Member("actor", ["actor"], environment)], folder / "logs")):
            yield url
        await store.close()


def experiment(module: str, folder: Path) -> Experiment:
    """Declare a search whose task records when it is called."""
    return Experiment(
        name=module,
        task=module,
        space={"x": FloatSpec(type="float", min=0.0, max=1.0)},
        optimizer={"name": "random"},
        population=4,
        steps=10_000,
        constants={"file": str(folder / "called")},
        checkpoints=str(folder / "checkpoints"),
    )


def ready(url: str, folder: Path, module: str) -> float:
    """Seconds from the start of a worker until its first trial's task is called."""
    options = [f"--experiment={module}", f"--allow={module}", f"--path={folder}", "--max-trials=1"]
    command = [sys.executable, "-m", "romul_actors.cli", "worker", *options]
    began = time.time()
    log = folder / "logs" / "worker.log"
    with log.open("wb") as output:
        environment = {**os.environ, "ROMUL_REDIS_URL": url}
        ended = subprocess.run(command, check=False, env=environment, stdout=output, stderr=output)  # noqa: S603
    if ended.returncode:
        raise SystemExit(f"the worker ended with {ended.returncode}:\n{log.read_text()}")
    called = folder / "called"
    at = float(called.read_text())
    called.unlink()
    return at - began


async def measure(rounds: int) -> dict[str, float]:
    """Run all rounds, each kind in turn, and return the medians."""
    torch = importlib.util.find_spec("torch") is not None
    commands = {name: of for name, of in COMMANDS.items() if torch or "torch" not in name}
    tasks = {name: of for name, of in TASKS.items() if torch or of[0] != "with_torch"}
    taken: dict[str, list[float]] = {name: [] for name in (*commands, *tasks)}
    with tempfile.TemporaryDirectory() as name:
        async with trials_wait(Path(name), tasks) as url:
            # The first process of each kind writes compiled files and fills the disk's cache.
            for _ in range(rounds + 1):
                for figure, arguments in commands.items():
                    taken[figure].append(await asyncio.to_thread(seconds, arguments))
                for figure, (module, _) in tasks.items():
                    taken[figure].append(await asyncio.to_thread(ready, url, Path(name), module))
    return {name: round(median(values[1:] or values), 4) for name, values in taken.items()}


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        help="processes of each kind, after a first one that does not count",
    )
    rounds = parser.parse_args().rounds
    figures = asyncio.run(measure(rounds))
    print(json.dumps({"benchmark": "startup", "rounds": rounds, **figures}))


if __name__ == "__main__":
    main()
