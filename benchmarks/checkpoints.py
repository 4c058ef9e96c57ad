"""Measure saving and restoring of checkpoints, compared with plain writes.

    python benchmarks/checkpoints.py --megabytes 512 --rounds 5

A task saves weights and momenta of the given size. The time from `save` until the trainer has
accepted the checkpoint (written, hashed, flushed, listed, renamed) is compared with one safetensors
file of the same size, written and flushed, and with torch.save, SHA-256 and a flush. A restore from
the page cache (checking the hash, reading, copying into the model) is compared with the same
safetensors write. So is a warm restore, from the memory of the task's process: the first of two
trials with the same parent is restored from memory, the second from files. Prints one JSON line for
each size, with medians of the rounds and of their ratios.

Then the same is measured with 90 % of weights and momenta frozen (`frozen`). `bytes` is the disk
space, in blocks, that a checkpoint took in addition to its parent. `--ray` adds Ray Tune: a
trainable that calls torch.save and reports the file as its checkpoint. Ray does not flush; for
`ray_flushed` the trainable flushes its file, but not Ray's copy of it.

Before each write, a file of the same size is written and removed. On a virtual machine whose host
reclaims free memory, a new page costs eight times as much as one that was freed just before;
without this, the first write after a large model was made would pay for all pages.
"""

import argparse
import asyncio
import contextlib
import hashlib
import importlib.util
import inspect
import io
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
from romul_workers.child.trainer import ChildTrainer
from romul_workers.trainer import Success

LAYERS = 20


def pages(path: Path, megabytes: int) -> None:
    """Write and remove a file, so that the next file finds free pages in the page cache.

    It is written in pieces of a worker's size, because the system takes larger pieces from other
    memory.
    """
    at_once = max(1, min(megabytes, 16))
    with path.open("wb", buffering=0) as file:
        for _ in range(-(-megabytes // at_once)):
            file.write(bytes(at_once * 2**20))
    path.unlink()


TASK = f"""
import time
from pathlib import Path

import torch

{inspect.getsource(pages)}

def train(trial):
    n = trial.constants["numbers"]
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(n)) for _ in range({LAYERS})])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for weight in model.parameters() if trial.parent is None else ():
        optimizer.state[weight]["momentum_buffer"] = torch.full((n,), 0.5)
    trial.attach(model=model, optimizer=optimizer)
    with torch.no_grad():
        for weight in list(model.parameters())[: trial.constants["trained"]]:
            weight.add_(trial.seed)
            optimizer.state[weight]["momentum_buffer"].add_(trial.seed)
    pages(trial.checkpoint / "pages", trial.constants["megabytes"])
    saving = time.time()
    trial.save()
    return {{"loss": 0.0, "saving": saving}}
"""


def per_tensor(megabytes: int) -> int:
    """Number of values in each tensor, so that all weights and momenta have the given size."""
    return max(1, megabytes * 2**20 // 4 // 2 // LAYERS)


def experiment(megabytes: int, folder: Path, trained: int = LAYERS) -> Experiment:
    """Declare an experiment whose trials only save and restore."""
    return Experiment(
        name="checkpoints",
        task="saves",
        metric="loss",
        population=4,
        steps=1000,
        space={"x": FloatSpec(type="float", min=0.0, max=1.0)},
        checkpoints=str(folder / "checkpoints"),
        constants={"numbers": per_tensor(megabytes), "trained": trained, "megabytes": megabytes},
    )


async def trial(
    trainer: ChildTrainer,
    declared: Experiment,
    step: int,
    parent: str | None,
    *,
    warm: bool | None = None,
) -> tuple[float, float, str]:
    """Train one trial.

    Args:
        trainer: the trainer.
        declared: the experiment.
        step: the trial's step.
        parent: name of the checkpoint to continue from.
        warm: whether the restore must be warm; None: either.

    Returns:
        Seconds from `save` until the checkpoint was accepted, seconds of the restore, and the name
        of the checkpoint.
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
    if warm is not None and ending.restored is not None and ending.restored.warm is not warm:
        raise SystemExit(f"the restore was not {'warm' if warm else 'cold'}")
    restored = ending.restored.seconds if ending.restored is not None else 0.0
    return ended - ending.metrics["saving"], restored, ending.checkpoint


def random_tensors(megabytes: int) -> dict[str, torch.Tensor]:
    """As many random tensors as the task saves, with the given total size."""
    return {f"{i}": torch.randn(per_tensor(megabytes)) for i in range(2 * LAYERS)}


def flush(path: Path) -> None:
    """Flush a file to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def raw(path: Path, tensors: Mapping[str, torch.Tensor]) -> float:
    """Time to write and flush one safetensors file, in seconds."""
    pages(path, sum(tensor.nbytes for tensor in tensors.values()) // 2**20)
    began = time.perf_counter()
    save_file(dict(tensors), path)
    flush(path)
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def pickled(path: Path, tensors: Mapping[str, torch.Tensor]) -> float:
    """Time of torch.save, SHA-256 and a flush, in seconds."""
    pages(path, sum(tensor.nbytes for tensor in tensors.values()) // 2**20)
    began = time.perf_counter()
    torch.save(dict(tensors), path)
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    flush(path)
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


async def measure(megabytes: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Run all rounds, the ways in turn."""
    tensors = random_tensors(megabytes)
    (folder / "saves.py").write_text(TASK)
    declared = experiment(megabytes, folder)
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


def on_disk(folder: Path) -> int:
    """Disk space of a folder's files, in bytes; a file with several hard links counts once."""
    stats = (path.stat() for path in folder.rglob("*"))
    return sum({stat.st_ino: 512 * stat.st_blocks for stat in stats}.values())


async def written(megabytes: int, rounds: int, folder: Path, trained: int) -> dict[str, Any]:
    """Time and disk space of saving if only `trained` layers change."""
    (folder / "saves.py").write_text(TASK)
    declared = experiment(megabytes, folder, trained)
    tensors = random_tensors(megabytes)
    trainer = ChildTrainer(folder / "scratch", [folder])
    parent, seconds, ratios, taken = None, [], [], []
    try:
        # The first checkpoint has no parent, and sharing may begin only after the second.
        for step in range(rounds + 2):
            before = on_disk(folder / "checkpoints")
            saved, _, checkpoint = await trial(trainer, declared, step, parent)
            if step > 1:
                seconds.append(saved)
                ratios.append(saved / raw(folder / "raw", tensors))
                taken.append(on_disk(folder / "checkpoints") - before)
            if parent is not None:
                await trainer.discard(declared, parent)
            parent = checkpoint
    finally:
        await trainer.close()
    return {
        "s": round(median(seconds), 4),
        "ratio": round(median(ratios), 3),
        "bytes": round(median(taken)),
    }


def ray_tune(megabytes: int, rounds: int, folder: Path, *, flushed: bool) -> dict[str, Any]:
    """Time of torch.save and of Ray Tune's report until the checkpoint is kept, in seconds."""
    import ray  # noqa: PLC0415
    from ray import tune  # noqa: PLC0415

    def train(_: dict[str, Any]) -> None:
        tensors = random_tensors(megabytes)
        took = 0.0
        for _round in range(rounds + 2):
            with tempfile.TemporaryDirectory(dir=folder) as made:
                began = time.perf_counter()
                torch.save(tensors, Path(made) / "state")
                if flushed:
                    with (Path(made) / "state").open("rb") as file:
                        os.fsync(file.fileno())
                tune.report({"took": took}, checkpoint=tune.Checkpoint.from_directory(made))
                took = time.perf_counter() - began

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        config = tune.RunConfig(
            storage_path=str(folder / "ray"),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        )
        with contextlib.redirect_stdout(io.StringIO()):
            [result] = tune.Tuner(train, run_config=config).fit()
        # Each report holds the time of the previous one, so the first holds none.
        took = list(result.metrics_dataframe["took"])[2:]
    finally:
        ray.shutdown()
    return {"s": round(median(took), 4)}


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 64, 512], metavar="MB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ray", action="store_true", help="also measure Ray Tune")
    parser.add_argument(
        "--folder", type=Path, help="where to write. Default: the system's temporary folder."
    )
    given = parser.parse_args()
    peer = given.ray and importlib.util.find_spec("ray") is not None
    if given.ray and not peer:
        print("Ray is not installed: Ray Tune's path is left out", file=sys.stderr)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for megabytes in given.megabytes:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            figures = asyncio.run(measure(megabytes, given.rounds, Path(folder)))
        for name, trained in (("changed", LAYERS), ("frozen", LAYERS // 10)):
            with tempfile.TemporaryDirectory(dir=given.folder) as folder:
                saved = asyncio.run(written(megabytes, given.rounds, Path(folder), trained))
            figures |= {f"{name}_{key}": value for key, value in saved.items()}
        figures["frozen_share"] = round(figures["frozen_bytes"] / figures["changed_bytes"], 4)
        for name, flushed in (("ray", False), ("ray_flushed", True)) if peer else ():
            with tempfile.TemporaryDirectory(dir=given.folder) as folder:
                saved = ray_tune(megabytes, given.rounds, Path(folder), flushed=flushed)
            figures |= {f"{name}_{key}": value for key, value in saved.items()}
        line = {
            "benchmark": "checkpoints",
            "megabytes": megabytes,
            "rounds": given.rounds,
            **figures,
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
