"""Compare optimizers on CIFAR-10, Penn Treebank and digits, with many populations in parallel.

    python benchmarks/populations.py --task cifar-twin --data FOLDER --seeds 40
    python benchmarks/populations.py --task digits --steps 25 --seeds 40

FOLDER holds cifar-10-batches-py and ptb.train.txt, ptb.valid.txt, ptb.test.txt. On one core, a
population takes seconds for a twin, about ten minutes for `cifar-small`, and fifteen for
`ptb-small`; use `--device cuda` for the latter two. `digits` is the task of the demo and needs no
folder. `digits-wide` is the same with two ranges that are declared wrongly by a factor of 100. The
production core makes the decisions.

Each run is stored as a line in `--results`, and a later call skips runs that are there. Prints one
JSON line: medians of the best checkpoint's test loss, and the share of all pairs of runs that the
first optimizer wins against each other one, with its 95 % interval. A tie counts half.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from batched import cifar, digits, ptb
from batched.engine import Ended, play, play_all
from batched.task import Task

from romul_actors.errors import RomulError
from romul_actors.protocol.experiment import Experiment
from romul_sim.bench.fingerprint import fingerprint
from romul_sim.bench.results import Results
from romul_sim.bench.runs import RunLine, canonical, optimizer_source
from romul_sim.bench.standings import standings
from romul_sim.play import optimizer_spec
from romul_workers.tasks import digits as digits_task

TASKS = (*cifar.SIZES, *ptb.SIZES, *digits.SPACES)
_DIGITS = 6
"""Significant digits of a curve."""


def read(name: str, folder: Path | None) -> Any:
    """Read the data of a task; None for a task that loads its own.

    Raises:
        RomulError, OSError, ValueError: the data is missing or invalid.
    """
    if name in digits.SPACES:
        return None
    if folder is None:
        raise RomulError(f"{name} needs --data")
    if name in cifar.SIZES:
        return cifar.split(cifar.SIZES[name], folder)
    return ptb.split(ptb.SIZES[name], folder)


def make(name: str, folder: Path | None, device: str) -> Task:
    """Make a task by name, with its data on a device."""
    parts, where = read(name, folder), torch.device(device)
    if name in digits.SPACES:
        return digits.Digits(digits.SPACES[name], where)
    if name in cifar.SIZES:
        return cifar.Cifar(cifar.SIZES[name], parts, where)
    return ptb.Ptb(ptb.SIZES[name], parts, where)


def space(name: str) -> Mapping[str, Any]:
    """The search space of a task, by the task's name."""
    if name in digits.SPACES:
        return digits.SPACES[name]
    return cifar.SPACE if name in cifar.SIZES else ptb.SPACE


def experiment(name: str, optimizer: str, seed: int, slots: int, steps: int) -> Experiment:
    """The declaration of a search on a task."""
    return Experiment.model_validate(
        {
            "name": "populations",
            "task": "populations",
            "space": space(name),
            "population": slots,
            "steps": steps,
            "seed": seed,
            "optimizer": optimizer_spec(optimizer),
            # A network that diverges would diverge again.
            "max_attempts": 1,
        }
    )


def key_of(line: RunLine) -> str:
    """The key that the current code gives to the run of a line."""
    return key(line["problem"], line["optimizer"], _chosen(line), line["seed"])


def play_again(given: argparse.Namespace, lines: Sequence[RunLine]) -> Iterator[RunLine]:
    """Run the runs of lines again, and yield the new lines.

    Args:
        given: has `data`, `processes` and `at_once`.
        lines: lines, as `line` makes them.
    """
    groups: dict[tuple[Any, ...], list[RunLine]] = {}
    for stored in lines:
        alike = tuple(stored[name] for name in ("problem", "device", "population", "steps"))
        groups.setdefault(alike, []).append(stored)
    for group in groups.values():
        chosen = _chosen(group[0])
        chosen.data, chosen.processes, chosen.at_once = given.data, given.processes, given.at_once
        read(chosen.task, chosen.data)
        todo = [_run(chosen, stored["optimizer"], stored["seed"]) for stored in group]
        for place, ended in train(chosen, todo):
            yield line(chosen, todo[place][:3], ended)


def _chosen(line: RunLine) -> argparse.Namespace:
    """The arguments of a line's run on which its key depends."""
    return argparse.Namespace(
        task=line["problem"],
        device=line["device"],
        slots=line["population"],
        steps=line["steps"],
    )


def key(name: str, optimizer: str, chosen: argparse.Namespace, seed: int) -> str:
    """A hash of everything that a run's result depends on, except the content of the data files."""
    source = fingerprint("batched.engine", ("batched",))
    if name in digits.SPACES:
        # The task also defines the data and the ranges.
        source += fingerprint("batched.digits", ("batched", digits_task.__name__))
        source += json.dumps([space(name), digits.EPOCHS])
    else:
        module = "batched.cifar" if name in cifar.SIZES else "batched.ptb"
        source = fingerprint(module, ("batched",)) + source
    parts: list[str | int] = [name, source, optimizer]
    parts += [optimizer_source(optimizer.partition(":")[0])]
    parts += [chosen.device, chosen.slots, chosen.steps, seed]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


Run = tuple[str, str, int, Experiment]
"""Key, optimizer, seed and experiment of a run."""


def _run(chosen: argparse.Namespace, optimizer: str, seed: int) -> Run:
    return (
        key(chosen.task, optimizer, chosen, seed),
        optimizer,
        seed,
        experiment(chosen.task, optimizer, seed, chosen.slots, chosen.steps),
    )


def train(chosen: argparse.Namespace, todo: Sequence[Run]) -> Iterator[tuple[int, Ended]]:
    """Run `todo`, and yield the index and the result of each run when it ends."""
    experiments = [declared for *_, declared in todo]
    if chosen.device != "cpu":
        task = make(chosen.task, chosen.data, chosen.device)
        yield from enumerate(play_all(task, experiments, chosen.at_once or 448))
        return
    size = max(1, (chosen.at_once or chosen.slots) // chosen.slots)
    if chosen.processes == 1:
        torch.set_num_threads(1)
        task = make(chosen.task, chosen.data, "cpu")
        for first in range(0, len(experiments), size):
            yield from enumerate(play(task, experiments[first : first + size]), first)
        return
    with ProcessPoolExecutor(
        chosen.processes,
        mp_context=get_context("spawn"),
        initializer=_prepare,
        initargs=(chosen.task, chosen.data),
    ) as pool:
        waiting = {
            pool.submit(_play, experiments[first : first + size]): first
            for first in range(0, len(experiments), size)
        }
        for future in as_completed(waiting):
            yield from enumerate(future.result(), waiting[future])


_TASK: list[Task] = []


def _prepare(name: str, folder: Path | None) -> None:
    torch.set_num_threads(1)
    _TASK.append(make(name, folder, "cpu"))


def _play(experiments: Sequence[Experiment]) -> list[Ended]:
    return play(_TASK[0], experiments)


def line(chosen: argparse.Namespace, run: tuple[str, str, int], ended: Ended) -> dict[str, Any]:
    """The line that is stored for a run."""
    its_key, optimizer, seed = run
    return {
        "key": its_key,
        "problem": chosen.task,
        "optimizer": optimizer,
        "population": chosen.slots,
        "steps": chosen.steps,
        "conditions": "synchronous",
        "seed": seed,
        "device": chosen.device,
        "test": ended.test,
        "test_last": ended.test_last,
        "loss": ended.validation,
        "makespan": float(chosen.steps),
        "curve": [float(f"{loss:.{_DIGITS}g}") for loss in ended.curve],
    }


def main() -> None:
    """Read the arguments, train what is not in the results yet, and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--data", type=Path, help="folder with both data sets; not for digits")
    parser.add_argument("--optimizers", default="romul,truncation,mf_pbt,random")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--processes", type=int, help="processes on the CPU; 1: this one. Default: all cores."
    )
    parser.add_argument("--at-once", type=int, help="networks that are trained in parallel")
    parser.add_argument("--results", type=Path, help="file of lines; runs in it are not repeated")
    chosen = parser.parse_args()
    optimizers = [canonical(text) for text in chosen.optimizers.split(",")]
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    runs = [_run(chosen, optimizer, seed) for seed in seeds for optimizer in optimizers]
    began = time.monotonic()
    with Results(chosen.results) as results:
        todo = [run for run in runs if run[0] not in results.lines]
        try:
            # Before the processes read it, so that an error is reported once.
            if todo:
                read(chosen.task, chosen.data)
        except (RomulError, OSError, ValueError) as error:
            parser.error(str(error))
        for done, (place, ended) in enumerate(train(chosen, todo) if todo else (), 1):
            results.append(line(chosen, todo[place][:3], ended))
            print(f"{done} of {len(todo)}, {time.monotonic() - began:.0f} s", file=sys.stderr)
        lines = [results.lines[run[0]] for run in runs]
    shown = standings(lines, [chosen.task], optimizers)
    print(
        json.dumps(
            {
                "benchmark": "populations",
                "task": chosen.task,
                "device": chosen.device,
                "slots": chosen.slots,
                "steps": chosen.steps,
                "seeds": chosen.seeds,
                "first_seed": chosen.first_seed,
                "first": shown["first"],
                "optimizers": shown["problems"],
            }
        )
    )


if __name__ == "__main__":
    main()
