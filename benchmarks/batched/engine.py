"""Runs many populations on one batched task; the production core makes the decisions."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

from batched import streams
from batched.task import Task, Weights
from romul_actors.core.decide import decide
from romul_actors.core.events import Result, Stamped, Submitted, TrialMessage
from romul_actors.core.population import Decision, Population
from romul_actors.core.space import Value
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import settings

ROUNDS_KEPT = 3
"""Number of rounds whose networks are kept as parents; more would fill the device's memory."""


@dataclass(frozen=True)
class Ended:
    """The result of a run.

    Attributes:
        trial: the trial with the lowest validation loss of all steps.
        validation: its validation loss.
        test: its test loss.
        test_last: test loss of the last step's trial with the lowest validation loss.
        curve: lowest validation loss of each step.
    """

    trial: str
    validation: float
    test: float
    test_last: float
    curve: tuple[float, ...]


def play(
    task: Task, experiments: Sequence[Experiment], pool: Executor | None = None
) -> list[Ended]:
    """Run populations in lockstep to their ends.

    Args:
        task: the task; its space is that of the experiments.
        experiments: declarations whose optimizers only continue checkpoints of the last three
            rounds.
        pool: makes the decisions; None: this process does.

    Raises:
        RuntimeError: an optimizer continues an older checkpoint, or no trial of a run succeeded.
    """
    return _Batch(task, experiments, pool).play()


def play_all(
    task: Task, experiments: Sequence[Experiment], at_once: int, processes: int = 4
) -> Iterator[Ended]:
    """Run any number of populations of the same size, and yield their results in order.

    Args:
        task: the task.
        experiments: see `play`.
        at_once: number of networks that are trained in parallel.
        processes: number of processes that make decisions; 0: this process does.
    """
    size = max(1, at_once // experiments[0].population)
    with ExitStack() as stack:
        pool = None
        if processes:
            pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
            stack.enter_context(pool)
        for first in range(0, len(experiments), size):
            part = experiments[first : first + size]
            # Pad to the same number: another shape would be compiled and captured again.
            missing = min(size, len(experiments)) - len(part)
            filled = [*part, *[experiments[0]] * missing]
            yield from play(task, filled, pool)[: len(part)]


class _Stored:
    """The network of each run's trial with the lowest validation loss so far."""

    def __init__(self, n_runs: int) -> None:
        self.losses = [math.inf] * n_runs
        self.trials = [""] * n_runs
        self.weights: Weights = {}

    def keep(self, weights: Weights, found: Mapping[int, tuple[float, int, str]]) -> None:
        """Keep networks with a lower loss; `found` has loss, row and trial by run."""
        better = {run: new for run, new in found.items() if new[0] < self.losses[run]}
        if not self.weights:
            self.weights = {
                name: weight.new_zeros((len(self.losses), *weight.shape[1:]))
                for name, weight in weights.items()
            }
        if not better:
            return
        to, rows = list(better), [row for _, row, _ in better.values()]
        for name, weight in weights.items():
            self.weights[name][to] = weight[rows]
        for run, (loss, _, trial) in better.items():
            self.losses[run], self.trials[run] = loss, trial


class _Batch:
    """Populations in lockstep: a round trains one trial of each slot that has one."""

    def __init__(self, task: Task, runs: Sequence[Experiment], pool: Executor | None) -> None:
        self.task, self.runs, self.pool = task, runs, pool
        self.size = sum(run.population for run in runs)
        self.rounds: dict[int, tuple[Weights, Weights]] = {}
        self.places: dict[tuple[int, str], tuple[int, int]] = {}
        self.best, self.last = _Stored(len(runs)), _Stored(len(runs))
        self.curves: list[dict[int, float]] = [{} for _ in runs]

    def play(self) -> list[Ended]:
        decisions = list(self._each(begin, self.runs))
        number = 0
        while asked := [(run, t) for run, known in enumerate(decisions) for t in known.trials]:
            results = self._round(number, asked)
            populations = [known.population for known in decisions]
            decisions = list(self._each(go_on, populations, results))
            number += 1
        for run, loss in zip(self.runs, self.best.losses, strict=True):
            if not math.isfinite(loss):
                raise RuntimeError(f"{run.optimizer.name}, seed {run.seed}: no trial succeeded")
        tests, lasts = self._tested(self.best), self._tested(self.last)
        return [
            Ended(
                self.best.trials[run],
                self.best.losses[run],
                tests[run],
                lasts[run],
                tuple(curve[step] for step in sorted(curve)),
            )
            for run, curve in enumerate(self.curves)
        ]

    def _tested(self, stored: _Stored) -> list[float]:
        return [float(judged) for judged in self.task.test(stored.weights).tolist()]

    def _each(self, function: Any, *given: Sequence[Any]) -> Iterable[Any]:
        if self.pool is None:
            return map(function, *given)
        return self.pool.map(function, *given, chunksize=math.ceil(len(self.runs) / 32))

    def _round(self, number: int, asked: Sequence[tuple[int, TrialMessage]]) -> list[list[Result]]:
        """Train the trials, and return the results by run, as workers would report them."""
        device = self.task.device
        # Pad to one row for each slot, so that one compiled shape and one graph are enough.
        rows = [*asked, *[asked[0]] * (self.size - len(asked))]
        keys = torch.tensor(
            [streams.key(self.runs[run].seed, t.slot, t.step, t.attempt) for run, t in rows],
            dtype=torch.int32,
            device=device,
        )
        weights, momenta = self._start(rows, keys)
        values = {
            name: torch.tensor(
                [_number(declared, t.hyperparameters[name]) for _, t in rows],
                dtype=self.task.dtype,
                device=device,
            )
            for name, declared in self.task.space.items()
        }
        self.task.train(weights, momenta, values, keys)
        losses = self.task.validate(weights).tolist()
        self.rounds[number] = weights, momenta
        self.rounds.pop(number - ROUNDS_KEPT, None)
        return self._results(number, asked, losses)

    def _start(
        self, rows: Sequence[tuple[int, TrialMessage]], keys: Tensor
    ) -> tuple[Weights, Weights]:
        """Weights and momenta from which training continues."""
        weights = self.task.new(keys)
        momenta = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        sources: dict[int, list[tuple[int, int]]] = {}
        for row, (run, trial) in enumerate(rows):
            if trial.parent is not None:
                then, source = self.places[run, trial.parent]
                if then not in self.rounds:
                    raise RuntimeError(f"{trial.parent} is older than {ROUNDS_KEPT} rounds")
                sources.setdefault(then, []).append((row, source))
        for then, pairs in sources.items():
            to, source_rows = torch.tensor(pairs, device=keys.device).T
            for new, old in zip((weights, momenta), self.rounds[then], strict=True):
                for name in new:
                    new[name][to] = old[name][source_rows]
        return weights, momenta

    def _results(
        self, number: int, asked: Sequence[tuple[int, TrialMessage]], losses: Sequence[float]
    ) -> list[list[Result]]:
        results: list[list[Result]] = [[] for _ in self.runs]
        best: dict[int, tuple[float, int, str]] = {}
        last: dict[int, tuple[float, int, str]] = {}
        for row, ((run, trial), loss) in enumerate(zip(asked, losses, strict=False)):
            self.places[run, checkpoint(trial)] = (number, row)
            results[run].append(result(trial, loss))
            if not math.isfinite(loss):
                continue
            curve = self.curves[run]
            curve[trial.step] = min(loss, curve.get(trial.step, math.inf))
            found = (loss, row, trial.id)
            best[run] = min(best.get(run, found), found)
            if trial.step + 1 == self.runs[run].steps:
                last[run] = min(last.get(run, found), found)
        weights = self.rounds[number][0]
        self.best.keep(weights, best)
        self.last.keep(weights, last)
        return results


def _number(declared: Mapping[str, Any], value: Value) -> float:
    """A hyperparameter as a number; a choice becomes its index."""
    if declared["type"] == "categorical":
        return float(declared["choices"].index(value))
    return float(value)


def begin(declared: Experiment) -> Decision:
    """The first decision, with its trials."""
    return decide(Population(settings=settings(declared)), Stamped(Submitted(), 0))


def go_on(population: Population, results: Sequence[Result]) -> Decision:
    """The decision after all results of a round."""
    asked: list[TrialMessage] = []
    for each in results:
        decision = decide(population, Stamped(each, 0))
        population = decision.population
        asked += decision.trials
    return Decision(population, tuple(asked))


def checkpoint(trial: TrialMessage) -> str:
    """Name of the checkpoint that a trial writes."""
    return f"{trial.id}-{trial.attempt}"


def result(trial: TrialMessage, loss: float, metrics: Mapping[str, float] | None = None) -> Result:
    """The result as a worker would report it."""
    return Result(
        trial=trial.id,
        slot=trial.slot,
        attempt=trial.attempt,
        worker="batched",
        value=loss,
        checkpoint=checkpoint(trial),
        seconds=1.0,
        metrics=metrics or {},
    )
