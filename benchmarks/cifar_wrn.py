"""Train one wide residual network on CIFAR with a fixed schedule; measure accuracy and speed.

    python benchmarks/cifar_wrn.py --data FOLDER --epochs 30
    python benchmarks/cifar_wrn.py --data FOLDER --schedule best.json

This program uses the code of the CIFAR task. The learning rate rises and falls once (Smith & Topin
2018), step by step. With `--schedule` it follows a schedule that `romul schedule export` wrote.
Prints one JSON line: accuracies, and seconds without reading the data and without evaluation. Needs
only torch and numpy.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from romul_actors.errors import RomulError, TaskError
from romul_workers.tasks import cifar
from romul_workers.tasks.cifar_recipe import Recipe, Settings, recipe_of, settings_of
from romul_workers.tasks.wide_resnet import WideResNet

WARM_UP = 0.2
"""Share of the training in which the learning rate rises."""
FIRST_RATE = 0.1
"""Learning rate at the beginning, as a share of the highest rate."""

Values = Mapping[str, Any]


def one_cycle(recipe: Recipe, epochs: float) -> Callable[[float], Values]:
    """Hyperparameters by epoch: the rate rises linearly, then falls to 0 like a cosine.

    Args:
        recipe: the hyperparameters, with the highest learning rate.
        epochs: length of the training.
    """
    fixed = asdict(recipe)

    def at(position: float) -> Values:
        share = position / epochs
        if share < WARM_UP:
            factor = FIRST_RATE + (1.0 - FIRST_RATE) * share / WARM_UP
        else:
            factor = 0.5 * (1.0 + math.cos(math.pi * (share - WARM_UP) / (1.0 - WARM_UP)))
        return {**fixed, "learning_rate": recipe.learning_rate * factor}

    return at


@dataclass(frozen=True)
class Plan:
    """The plan of a training.

    Attributes:
        settings: network, data and size of minibatches.
        at: returns the hyperparameters for an epoch.
        epochs: length of the training.
    """

    settings: Settings
    at: Callable[[float], Values]
    epochs: float


def given(chosen: argparse.Namespace) -> Plan:
    """The plan that the arguments describe.

    Raises:
        TaskError: a value is out of range.
        ScheduleError: the file is not a schedule.
    """
    here = {
        "data": chosen.data,
        "train_images": chosen.train_images,
        "validation_images": chosen.test_images,
        "test_images": chosen.test_images,
        "precision": chosen.precision,
        "compile": chosen.compile,
    }
    if chosen.schedule is not None:
        return followed(chosen.schedule, here)
    network = {
        "data_set": chosen.data_set,
        "depth": chosen.depth,
        "width": chosen.width,
        "batch_size": chosen.batch,
    }
    recipe = Recipe(
        learning_rate=chosen.rate,
        momentum=chosen.momentum,
        weight_decay=chosen.weight_decay,
        dropout=chosen.dropout,
        label_smoothing=chosen.smoothing,
        mixup=chosen.mixup,
        operations=chosen.operations,
        magnitude=chosen.magnitude,
        cutout=chosen.cutout,
    )
    plan = one_cycle(recipe, chosen.epochs)
    return Plan(settings_of({**network, **here}), plan, chosen.epochs)


def followed(file: Path, here: Values) -> Plan:
    """The plan of an exported schedule: its network, minibatches and hyperparameters.

    Args:
        file: a file that `romul schedule export` wrote.
        here: settings from this program's arguments.

    Raises:
        ScheduleError: the file is not a schedule.
    """
    from romul_workers.schedule import read_schedule  # noqa: PLC0415  (needs more than torch)

    schedule = read_schedule(file)
    fixed = asdict(recipe_of(schedule.constants, {}))
    return Plan(
        settings_of({**schedule.constants, **here}),
        lambda position: {**fixed, **schedule.at(position)},
        schedule.stretches[-1].stop,
    )


def train(data: cifar.Data, plan: Plan, seed: int) -> tuple[WideResNet, list[float]]:
    """Train a new network.

    Args:
        data: the data, from `cifar.prepare`.
        plan: the plan of the training.
        seed: seed of everything random.

    Returns:
        The network, and the seconds of each epoch; the last epoch may be incomplete.

    Raises:
        TaskError: the plan is shorter than one minibatch.
    """
    last = round(plan.epochs * data.batches)
    if last < 1:
        raise TaskError(f"{plan.epochs:g} epochs: less than one of {data.batches} minibatches")
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (mixup draws from it)
    recipe = recipe_of({}, plan.at(0.0))
    model = cifar.network(data, recipe)
    optimizer = cifar.descent(model, recipe)
    seconds = []
    begun = time.perf_counter()
    model.train()
    for number, chosen in cifar.minibatches(data, 0, last, seed):
        values = plan.at(number / data.batches)
        if values["dropout"] != recipe.dropout:
            model.set_dropout(values["dropout"])
        recipe = recipe_of({}, values)
        cifar.set_fields(optimizer, recipe)
        cifar.learn(model, optimizer, data, chosen, recipe)
        if (number + 1) % data.batches == 0 or number + 1 == last:
            if data.device.type == "cuda":
                torch.cuda.synchronize(data.device)
            now = time.perf_counter()
            seconds.append(now - begun)
            begun = now
            print(f"epoch {len(seconds)}: {seconds[-1]:.2f} s", file=sys.stderr)
    return model, seconds


def arguments() -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="", help="folder or archive. Default: ROMUL_CIFAR.")
    parser.add_argument("--data-set", choices=("cifar10", "cifar100"), default="cifar10")
    parser.add_argument("--epochs", type=float, default=30.0)
    parser.add_argument("--schedule", type=Path, help="file from `romul schedule export`")
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=0.4, help="highest learning rate")
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--smoothing", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--mixup", type=float, default=0.0)
    parser.add_argument("--operations", type=int, default=0, help="operations of RandAugment")
    parser.add_argument("--magnitude", type=float, default=5.0)
    parser.add_argument("--cutout", type=int, default=8, help="side of the square in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--train-images", type=int, default=0, help="use only the first ones")
    parser.add_argument("--test-images", type=int, default=0, help="for validation and for test")
    chosen = parser.parse_args()
    if chosen.epochs <= 0.0:
        parser.error(f"--epochs {chosen.epochs:g}: must be above 0")
    return chosen


def main() -> int:
    """Train, and print the line."""
    chosen = arguments()
    try:
        plan = given(chosen)
        data = cifar.prepare(plan.settings, torch.device(chosen.device))
        model, seconds = train(data, plan, chosen.seed)
    except RomulError as error:
        print(error, file=sys.stderr)
        return 2
    val_loss, val_accuracy = cifar.evaluate(model, data, data.validation)
    test_loss, test_accuracy = cifar.evaluate(model, data, data.test)
    settings, on_gpu = plan.settings, data.device.type == "cuda"
    summary = {
        "benchmark": "cifar_wrn",
        "data_set": settings.data_set,
        "network": f"WRN-{settings.depth}-{settings.width}",
        "epochs": plan.epochs,
        "batch": settings.batch_size,
        "schedule": str(chosen.schedule or f"one cycle to {chosen.rate:g}"),
        "device": torch.cuda.get_device_name(data.device) if on_gpu else "cpu",
        "precision": settings.precision if on_gpu else "fp32",
        "torch": torch.__version__,
        "val_loss": round(val_loss, 4),
        "val_accuracy": round(val_accuracy, 4),
        "test_loss": round(test_loss, 4),
        "test_accuracy": round(test_accuracy, 4),
        "seconds": round(sum(seconds), 2),
        "first_epoch_seconds": round(seconds[0], 2),
        "epoch_seconds": round(statistics.median(seconds), 2),
    }
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
