"""One run of an optimizer in the production core, on anything that can be trained step by step.

The real core makes all decisions, including the quorum. Only training and the arrival of results
are simulated, with one heap of events. This module knows no particular problem or optimizer.
"""

import heapq
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from typing import Any

from numpy.random import Generator, default_rng

from romul_actors.core.decide import decide
from romul_actors.core.events import Released, Result, Stamped, Submitted, Tick, TrialMessage
from romul_actors.core.population import Population
from romul_actors.errors import ExperimentError, OptimizerError
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import settings
from romul_sim.golden import HistoryHash

TICK = 0.125
"""Time between two ticks, in durations of a trial on the fastest worker."""

Values = Mapping[str, Any]
State = Any
"""The state of a training between steps; never changed in place."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How results arrive.

    Attributes:
        workers: number of workers; None: one for each slot.
        speeds: ratio of the fastest worker's speed to the slowest worker's.
        spread: standard deviation of the logarithm of a trial's duration.
        preempted: probability that a trial is interrupted and repeated.
    """

    workers: int | None = None
    speeds: float = 1.0
    spread: float = 0.0
    preempted: float = 0.0


SYNCHRONOUS = Conditions()
ASYNCHRONOUS = Conditions(speeds=4.0, spread=0.2, preempted=0.2)


@dataclass(frozen=True, slots=True)
class Training:
    """The problem that a run trains.

    Attributes:
        space: hyperparameters, as an experiment declares them.
        steps: number of PBT steps.
        step: one step of training. It takes (state or None, values, number of the step, generator)
            and returns the new state and the loss that the search sees.
        judge: returns the loss by which a state is judged; the search does not see it.
    """

    space: Mapping[str, Mapping[str, Any]]
    steps: int
    step: Callable[[State | None, Values, int, Generator], tuple[State, float]]
    judge: Callable[[State], float]


@dataclass(frozen=True, slots=True)
class EndedTrial:
    """A successful trial: loss, hyperparameters, id of the parent trial, checkpoint."""

    loss: float
    values: Values
    parent: str | None
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Played:
    """The result of a run.

    Attributes:
        final: judged loss, at the last step, of the slot with the lowest reported loss.
        curve: the same for each step that a slot reached.
        schedule: values along the winner's line of descent, by hyperparameter.
        makespan: duration, in median trials of the fastest worker.
        golden_sha256: hash of the history (`golden.py`); None: it was not requested, or the run was
            not decided by the core.
    """

    final: float
    curve: list[float]
    schedule: dict[str, list[Any]]
    makespan: float
    golden_sha256: str | None = None


@dataclass(slots=True)
class Winners:
    """The trials with the lowest reported loss, at each step and overall.

    Attributes:
        steps: loss and kept value of the best trial, by step.
        best: loss and kept value of the best trial of all steps; the first of equal ones.
    """

    steps: dict[int, tuple[float, Any]] = field(default_factory=dict)
    best: tuple[float, Any] = (inf, None)

    def see(self, step: int, loss: float, kept: Any) -> None:
        """Consider a trial's loss; a loss that is not finite never wins."""
        if not isfinite(loss):
            return
        if step not in self.steps or loss < self.steps[step][0]:
            self.steps[step] = (loss, kept)
        if loss < self.best[0]:
            self.best = (loss, kept)


def optimizer_spec(text: str) -> dict[str, Any]:
    """Convert "name" or "name:option=value:option=value" to an experiment's `optimizer` table.

    Raises:
        ExperimentError: an option is not of that form.
    """
    name, *options = text.split(":")
    spec: dict[str, Any] = {"name": name}
    for option in options:
        key, _, value = option.partition("=")
        try:
            spec[key] = json.loads(value)
        except ValueError:
            raise ExperimentError(f"optimizer {text!r}: {option!r} is not option=value") from None
    return spec


class Run:
    """One run, from its first trials to its end; the same arguments give the same result.

    Args:
        training: the problem.
        optimizer: name of the optimizer, optionally with options.
        population: number of slots.
        seed: seed of the population, of training and of the workers.
        conditions: how results arrive.
        keep: whether to keep the states of all trials to the end; otherwise only those of
            checkpoints that the population needs.
        golden: whether to hash the history, which takes about a third more time on toys.

    Raises:
        ExperimentError: there is no such optimizer or option.
    """

    def __init__(
        self,
        training: Training,
        optimizer: str,
        population: int,
        seed: int,
        conditions: Conditions = SYNCHRONOUS,
        *,
        keep: bool = False,
        golden: bool = False,
    ) -> None:
        experiment = Experiment.model_validate(
            {
                "name": "lab",
                "task": "lab",
                "space": training.space,
                "population": population,
                "steps": training.steps,
                "seed": seed,
                "optimizer": optimizer_spec(optimizer),
            }
        )
        self.training, self.conditions, self.keep = training, conditions, keep
        self.population = Population(settings=settings(experiment))
        self.rng = default_rng([seed, 17])
        n = conditions.workers or population
        self.speeds = conditions.speeds ** (self.rng.random(n) - 1.0)
        self.idle = list(range(n))
        self.queue: list[tuple[int, int, TrialMessage]] = []
        self.busy: list[tuple[float, int, int, float, TrialMessage]] = []
        self.now = 0.0
        self.counted = 0
        self.states: dict[str, State] = {}
        self.trials: dict[str, EndedTrial] = {}
        self.golden = HistoryHash() if golden else None

    def to_the_end(self) -> "Run":
        """Play until no trial is left, and return this run.

        Raises:
            OptimizerError: the optimizer decides nothing more, but the run has not ended.
        """
        self._decide(Submitted())
        ticked = 0.0
        while self.busy or self.queue:
            self._dispatch()
            if self.idle and self.busy[0][0] > ticked + TICK:
                # Ticks end the wait of idle workers for late trials.
                self.now = ticked = max(self.now, ticked + TICK)
                self._decide(Tick(workers=len(self.speeds)))
                continue
            self.now, _, worker, duration, trial = heapq.heappop(self.busy)
            ticked = max(ticked, TICK * (self.now // TICK))
            self.idle.append(worker)
            cut_short = self.rng.random() < self.conditions.preempted
            self._decide(_released(trial) if cut_short else self._train(trial, duration))
        if self.population.status == "running":
            name = self.population.settings.optimizer.name
            raise OptimizerError(f"optimizer {name!r}: no slot is decided, and none is training")
        return self

    def winner(self, step: int) -> str | None:
        """The trial of a step with the lowest reported loss; None if the step has no loss."""
        ids = [f"{i}-{step}" for i in range(len(self.population.slots))]
        known = [trial for trial in ids if trial in self.trials]
        return min(known, key=lambda trial: (self.trials[trial].loss, trial), default=None)

    def state(self, trial: str) -> State:
        """The state at the end of a trial.

        Raises:
            KeyError: the trial did not succeed, or its state was dropped.
        """
        return self.states[self.trials[trial].checkpoint]

    def line(self, trial: str | None) -> list[Values]:
        """Hyperparameters along a trial's line of descent, from the first trial on."""
        values = []
        while trial:
            values.append(self.trials[trial].values)
            trial = self.trials[trial].parent
        return values[::-1]

    def _train(self, trial: TrialMessage, duration: float) -> Result:
        name, slot = f"{trial.id}-{trial.attempt}", self.population.slots[trial.slot]
        loss = nan
        if slot.trial == trial.id and trial.attempt in slot.live_attempts:
            parent = self.states[trial.parent] if trial.parent else None
            # Seeded by the trial, not by the worker, so each attempt has the same result.
            rng = default_rng(trial.seed)
            state, loss = self.training.step(parent, trial.hyperparameters, trial.step, rng)
            if isfinite(loss):
                self.states[name] = state
                parent_trial = trial.parent and trial.parent.rpartition("-")[0]
                self.trials[trial.id] = EndedTrial(loss, trial.hyperparameters, parent_trial, name)
        # The later report of two attempts at a trial is stale: the core ignores its loss.
        return Result(
            trial=trial.id,
            slot=trial.slot,
            attempt=trial.attempt,
            worker="lab",
            value=loss,
            checkpoint=name,
            seconds=duration,
        )

    def _decide(self, event: Submitted | Result | Released | Tick) -> None:
        decision = decide(self.population, Stamped(event, int(1000 * self.now)))
        self.population = decision.population
        if self.golden is not None:
            for line in decision.history:
                self.golden.add(line)
        for trial in decision.trials:
            heapq.heappush(self.queue, (trial.step, self._next(), trial))
        if not self.keep and len(self.states) > 4 * len(self.population.slots):
            self._forget(self.population.needed_checkpoints())

    def _forget(self, needed: Iterable[str]) -> None:
        self.states = {name: self.states[name] for name in needed if name in self.states}

    def _next(self) -> int:
        self.counted += 1
        return self.counted

    def _dispatch(self) -> None:
        """Give queued trials to idle workers, the lowest step first."""
        while self.queue and self.idle:
            _, _, trial = heapq.heappop(self.queue)
            worker = self.idle.pop(0)
            duration = float(self.rng.lognormal(0.0, self.conditions.spread)) / self.speeds[worker]
            heapq.heappush(self.busy, (self.now + duration, self._next(), worker, duration, trial))


def _released(trial: TrialMessage) -> Released:
    return Released(
        trial=trial.id, slot=trial.slot, attempt=trial.attempt, worker="lab", reason="drained"
    )


def schedule(names: Iterable[str], line: Sequence[Values]) -> dict[str, list[Any]]:
    """The values along a line of descent, by hyperparameter."""
    return {name: [values[name] for values in line] for name in names}
