"""Optimizers on the real digits, at equal budget: how many seeds does ROMUL win?

    python benchmarks/digits.py --seeds 10 [--wide]

Runs the decision core and the shipped digits task, each trial in this program's own processes, and
prints one JSON line: best validation loss by seed, test accuracy, and for each rival in how many
seeds the first optimizer's loss is lower. `--wide` mis-specifies two ranges by a factor of 100.
With `--device cuda` the networks of all seeds are trained side by side on a GPU instead.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from batched import engine
from batched.digits import Digits

from romul_actors.core.decide import decide
from romul_actors.core.events import Stamped
from romul_actors.protocol.experiment import Experiment, OptimizerSpec, parse
from romul_sim.play import optimizer_spec
from romul_workers.tasks import digits
from romul_workers.trial import Context, Trial

CONTEXT = Context("digits", "cpu", {})
AT_ONCE = 4800
"""Networks trained side by side; 2,400 took 6 GiB."""


def experiment(optimizer: str, seed: int, slots: int, steps: int, *, wide: bool) -> Experiment:
    """The demo's experiment with another optimizer, and perhaps badly chosen ranges."""
    declared = parse((files("romul_workers.tasks") / "digits.toml").read_text())
    spec = optimizer_spec(optimizer)
    space = dict(declared.space)
    if wide:
        rate, decay = space["learning_rate"], space["weight_decay"]
        space["learning_rate"] = rate.model_copy(update={"min": rate.min / 100})  # type: ignore[union-attr]
        space["weight_decay"] = decay.model_copy(update={"max": decay.max * 100})  # type: ignore[union-attr]
    return declared.model_copy(
        update={
            "optimizer": OptimizerSpec(name=spec.pop("name"), options=spec),
            "seed": seed,
            "population": slots,
            "steps": steps,
            "space": space,
        }
    )


def run(optimizer: str, seed: int, slots: int, steps: int, wide: bool) -> tuple[float, float]:  # noqa: FBT001
    """Validation loss and test accuracy of the best trial."""
    torch.set_num_threads(1)
    data = digits.setup(CONTEXT)
    declared = experiment(optimizer, seed, slots, steps, wide=wide)
    folder = Path(tempfile.mkdtemp())
    decision = engine.begin(declared)
    waiting = deque(decision.trials)
    try:
        while waiting:
            message = waiting.popleft()
            checkpoint = folder / engine.checkpoint(message)
            checkpoint.mkdir()
            trial = Trial(
                id=message.id,
                hyperparameters=message.hyperparameters,
                parent=folder / message.parent if message.parent else None,
                checkpoint=checkpoint,
                start=message.start,
                stop=message.stop,
                seed=message.seed,
                step=message.step,
                context=CONTEXT,
                state=data,
            )
            torch.manual_seed(message.seed)
            metrics: Any = digits.train(trial)
            result = engine.result(message, metrics["val_loss"], metrics)
            decision = decide(decision.population, Stamped(result, 0))
            waiting.extend(decision.trials)
    finally:
        shutil.rmtree(folder)
    best = decision.population.best
    if best is None:
        raise RuntimeError(f"{optimizer}, seed {seed}: no trial succeeded")
    return best.loss, best.metrics["test_accuracy"]


Rows = dict[str, list[tuple[float, float]]]
"""By optimizer, validation loss and test accuracy of each seed."""


def train_apart(chosen: argparse.Namespace) -> Rows:
    """Each run in a process of its own."""
    rows: Rows = {}
    with ProcessPoolExecutor() as pool:
        for optimizer in chosen.optimizers.split(","):
            waiting = [
                pool.submit(run, optimizer, seed, chosen.slots, chosen.steps, chosen.wide)
                for seed in range(chosen.seeds)
            ]
            rows[optimizer] = []
            for done in waiting:
                rows[optimizer].append(done.result())
                print(f"{optimizer}: {len(rows[optimizer])} of {chosen.seeds}", file=sys.stderr)
    return rows


def train_together(chosen: argparse.Namespace) -> Rows:
    """All runs at once, as one batched network."""
    optimizers = chosen.optimizers.split(",")
    experiments = [
        experiment(optimizer, seed, chosen.slots, chosen.steps, wide=chosen.wide)
        for optimizer in optimizers
        for seed in range(chosen.seeds)
    ]
    space = {name: declared.model_dump() for name, declared in experiments[0].space.items()}
    task = Digits(space, int(experiments[0].budget), torch.device(chosen.device))
    rows: Rows = {optimizer: [] for optimizer in optimizers}
    deciding = 0 if chosen.device == "cpu" else 4
    for done, ended in enumerate(engine.play_all(task, experiments, AT_ONCE, deciding), 1):
        rows[optimizers[(done - 1) // chosen.seeds]].append((ended.validation, ended.test))
        print(f"{done} of {len(experiments)} runs", file=sys.stderr)
    return rows


def main() -> None:
    """Read the arguments and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--steps", type=int, default=25, help="of 2 epochs each")
    parser.add_argument("--optimizers", default="romul,truncation,random")
    parser.add_argument("--wide", action="store_true", help="ranges mis-specified by 100")
    parser.add_argument("--device", help="train the networks of all seeds side by side there")
    chosen = parser.parse_args()
    rows = train_together(chosen) if chosen.device else train_apart(chosen)
    for optimizer, row in rows.items():
        median = statistics.median(loss for loss, _ in row)
        print(f"{optimizer}: median {median:.4f}", file=sys.stderr)
    first, *rivals = rows
    print(
        json.dumps(
            {
                "benchmark": "digits",
                "slots": chosen.slots,
                "steps": chosen.steps,
                "wide": chosen.wide,
                "val_loss": {
                    name: [round(loss, 4) for loss, _ in row] for name, row in rows.items()
                },
                "median_val_loss": {
                    name: round(statistics.median(loss for loss, _ in row), 4)
                    for name, row in rows.items()
                },
                "median_test_accuracy": {
                    name: round(statistics.median(accuracy for _, accuracy in row), 4)
                    for name, row in rows.items()
                },
                "seeds_won": {
                    rival: sum(a[0] < b[0] for a, b in zip(rows[first], rows[rival], strict=True))
                    for rival in rivals
                },
            }
        )
    )


if __name__ == "__main__":
    main()
