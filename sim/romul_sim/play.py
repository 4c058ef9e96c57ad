"""One run of an optimizer in the production core, on anything that can be trained step by step.

The core decides (`decide`, events, quorum and all); only training and the arrival of results are
played, from one heap of events. This module knows no problem, no optimizer and no judge.
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
"""Time between two ticks, in durations of the fastest worker's trial."""

Values = Mapping[str, Any]
State = Any
"""What a training keeps from step to step; never changed in place."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How results arrive.

    Attributes:
        workers: how many; None: one for each slot.
        speeds: ratio of the fastest worker's speed to the slowest one's.
        spread: standard deviation of a trial's duration, in log.
        preempted: probability that a trial is cut short and done again.
    """

    workers: int | None = None
    speeds: float = 1.0
    spread: float = 0.0
    preempted: float = 0.0


SYNCHRONOUS = Conditions()
ASYNCHRONOUS = Conditions(speeds=4.0, spread=0.2, preempted=0.2)


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained in a run.

    Attributes:
        space: hyperparameters, as an experiment declares them.
        steps: PBT steps.
        step: one step of training: (state or None, values, number of the step, generator) to the
            new state and the loss that a search sees.
        judge: the loss that a state is judged by, which no search sees.
    """

    space: Mapping[str, Mapping[str, Any]]
    steps: int
    step: Callable[[State | None, Values, int, Generator], tuple[State, float]]
    judge: Callable[[State], float]


@dataclass(frozen=True, slots=True)
class EndedTrial:
    """A trial that succeeded: loss, hyperparameters, the trial before it, checkpoint."""

    loss: float
    values: Values
    parent: str | None
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Played:
    """How a run went.

    Attributes:
        final: judged loss, at the last step, of the slot whose reported loss is lowest.
        curve: the same at each step, as far as any slot came to it.
        schedule: by hyperparameter, the values along the winner's line of descent.
        makespan: duration, in units of the fastest worker's median trial.
        golden_sha256: hash of the history (`golden.py`); None: it was not requested, or the core
            has not decided it.
    """

    final: float
    curve: list[float]
    schedule: dict[str, list[Any]]
    makespan: float
    golden_sha256: str | None = None


@dataclass(slots=True)
class Winners:
    """The trials with the lowest reported loss: at each step, and of all.

    Attributes:
        steps: by step, the loss and what was kept of that trial.
        best: the same of the lowest loss ever; of equal ones, the first.
    """

    steps: dict[int, tuple[float, Any]] = field(default_factory=dict)
    best: tuple[float, Any] = (inf, None)

    def see(self, step: int, loss: float, kept: Any) -> None:
        """Take a trial's loss; one that is not finite never wins."""
        if not isfinite(loss):
            return
        if step not in self.steps or loss < self.steps[step][0]:
            self.steps[step] = (loss, kept)
        if loss < self.best[0]:
            self.best = (loss, kept)


def optimizer_spec(text: str) -> dict[str, Any]:
    """Read "name" or "name:option=value:option=value" into what an experiment declares.

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
    """One run, from its first trials to its end; the same arguments come out the same.

    Args:
        training: what is trained.
        optimizer: name, with options if need be.
        population: slots.
        seed: of the population, of training and of the workers.
        conditions: how results arrive.
        keep: whether the states of all trials are kept to the end; else only those of checkpoints
            that the population needs.
        golden: whether the history is hashed, which takes about a third more time on toys.

    Raises:
        ExperimentError: no such optimizer or option.
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
        """Play until no trial is left; the run itself.

        Raises:
            OptimizerError: the optimizer decides nothing more, and the run has not ended.
        """
        self._decide(Submitted())
        ticked = 0.0
        while self.busy or self.queue:
            self._dispatch()
            if self.idle and self.busy[0][0] > ticked + TICK:
                # Idle workers do not wait for ever; ticks make late trials known.
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
        """The trial of a step whose reported loss is lowest; None if the step has no loss."""
        ids = [f"{i}-{step}" for i in range(len(self.population.slots))]
        known = [trial for trial in ids if trial in self.trials]
        return min(known, key=lambda trial: (self.trials[trial].loss, trial), default=None)

    def state(self, trial: str) -> State:
        """The state that a trial came to.

        Raises:
            KeyError: it had none, or nothing could continue from it any more.
        """
        return self.states[self.trials[trial].checkpoint]

    def line(self, trial: str | None) -> list[Values]:
        """Hyperparameters by step, from the first trial of the line of descent to this one."""
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
            # Seeded by the trial, not by the worker: another attempt comes out the same.
            rng = default_rng(trial.seed)
            state, loss = self.training.step(parent, trial.hyperparameters, trial.step, rng)
            if isfinite(loss):
                self.states[name] = state
                parent_trial = trial.parent and trial.parent.rpartition("-")[0]
                self.trials[trial.id] = EndedTrial(loss, trial.hyperparameters, parent_trial, name)
        # Of two attempts of a trial the later report is stale: the core reads no loss of it.
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
        """Give idle workers the queued trials, lowest step first, as the elastic queue would."""
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
    """By hyperparameter, its values along a line of descent."""
    return {name: [values[name] for values in line] for name in names}
