"""What a checkpoint costs, beside the disk.

    python benchmarks/checkpoints.py --megabytes 512 --rounds 5

A task with weights and momenta of that size saves. The time from `save` until the trainer has
accepted the checkpoint (written, hashed, flushed, listed, renamed into place) is compared with one
safetensors file of the same bytes, written and flushed, and with torch.save, SHA-256 and a flush.
A restore (check of the hash, reading, copying into the model), from the page cache, is compared
with the same safetensors write, and so is a warm one, from what the task's process still holds: of
two trials from one parent the first finds it there, and the second does not. Rounds alternate;
prints one JSON line a size, with medians of the rounds and of their ratios.
"""

import argparse
import asyncio
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file

from romul_actors.core.events import TrialMessage
from romul_actors.protocol.experiment import Experiment, FloatSpec
from romul_workers.child_trainer import ChildTrainer
from romul_workers.trainer import Success

LAYERS = 24
TASK = """
import time
import torch

def train(trial):
    n = trial.constants["numbers"]
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(n)) for _ in range({layers})])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for weight in model.parameters() if trial.parent is None else ():
        optimizer.state[weight]["momentum_buffer"] = torch.full((n,), 0.5)
    trial.attach(model=model, optimizer=optimizer)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(trial.seed)
    saving = time.time()
    trial.save()
    return {{"loss": 0.0, "saving": saving}}
"""


def experiment(numbers: int, folder: Path) -> Experiment:
    """Declare an experiment whose trials only save and restore."""
    return Experiment(
        name="checkpoints",
        task="saves",
        metric="loss",
        population=4,
        steps=1000,
        space={"x": FloatSpec(type="float", min=0.0, max=1.0)},
        checkpoints=str(folder / "checkpoints"),
        constants={"numbers": numbers},
    )


async def trial(
    trainer: ChildTrainer,
    declared: Experiment,
    step: int,
    parent: str | None,
    *,
    warm: bool | None = None,
) -> tuple[float, float, str]:
    """Train one trial: seconds of saving until it is accepted, of restoring, and the checkpoint.

    Args:
        trainer: what trains.
        declared: the experiment.
        step: of the trial.
        parent: the checkpoint to continue from.
        warm: whether its tensors must still be in the task's process; None: either.
    """
    message = TrialMessage(
        id=f"0-{step}",
        slot=0,
        step=step,
        attempt=1,
        hyperparameters={"x": 0.5},
        parent=parent,
        start=float(step),
        stop=step + 1.0,
        seed=step,
    )
    ending = await trainer.train(declared, message)
    ended = time.time()
    if not isinstance(ending, Success):
        raise SystemExit(f"the trial did not succeed: {ending}")
    if ending.restored is not None and ending.restored.warm is not warm:
        raise SystemExit(f"the restore was not {'warm' if warm else 'cold'}")
    restored = ending.restored.seconds if ending.restored is not None else 0.0
    return ended - ending.metrics["saving"], restored, ending.checkpoint


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def raw(path: Path, tensors: Mapping[str, torch.Tensor]) -> float:
    """Seconds of one safetensors file, written and flushed."""
    began = time.perf_counter()
    save_file(dict(tensors), path)
    flush(path)
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def pickled(path: Path, tensors: Mapping[str, torch.Tensor]) -> float:
    """Seconds of torch.save, SHA-256 and a flush, one after the other."""
    began = time.perf_counter()
    torch.save(dict(tensors), path)
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    flush(path)
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


async def measure(megabytes: int, rounds: int, folder: Path) -> dict[str, Any]:
    """All rounds, the ways in turn."""
    numbers = max(1, megabytes * 2**20 // 4 // 2 // LAYERS)
    tensors = {f"{i}": torch.randn(numbers) for i in range(2 * LAYERS)}
    (folder / "saves.py").write_text(TASK.format(layers=LAYERS))
    declared = experiment(numbers, folder)
    trainer = ChildTrainer(folder / "scratch", [folder])
    found: dict[str, list[float]] = {
        name: [] for name in ("ours", "restore", "warm restore", "safetensors", "torch.save")
    }
    parent = None
    try:
        for step in range(rounds + 1):
            ours, warm, checkpoint = await trial(trainer, declared, step, parent, warm=True)
            if parent is not None:
                _, restore, copy = await trial(trainer, declared, step, parent, warm=False)
                await trainer.discard(declared, checkpoint)
                checkpoint = copy
            safetensors = raw(folder / "raw", tensors)
            torch_save = pickled(folder / "pickled", tensors)
            if parent is not None:
                await trainer.discard(declared, parent)
                for name, seconds in zip(
                    found, (ours, restore, warm, safetensors, torch_save), strict=True
                ):
                    found[name].append(seconds)
            parent = checkpoint
    finally:
        await trainer.close()
    ratios = {
        f"{name}_ratio": median(
            x / y for x, y in zip(found[name], found["safetensors"], strict=True)
        )
        for name in ("ours", "restore", "warm restore", "torch.save")
    }
    return {f"{name}_s": round(median(values), 4) for name, values in found.items()} | {
        name: round(ratio, 3) for name, ratio in ratios.items()
    }


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 64, 512], metavar="MB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; default: a new folder of /tmp")
    given = parser.parse_args()
    for megabytes in given.megabytes:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            figures = asyncio.run(measure(megabytes, given.rounds, Path(folder)))
        line = {
            "benchmark": "checkpoints",
            "megabytes": megabytes,
            "rounds": given.rounds,
            **figures,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
