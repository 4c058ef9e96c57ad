"""Ask and tell: the decisions alone, for programs that schedule their trials themselves.

The core that every run has (`romul_actors.core.decide`), without a server, an actor or a worker.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any, Self

from pydantic_core import to_jsonable_python

from romul.declaration import UNTIMED, UNUSED, Call, Mode, declare, warn_of
from romul.result import Best
from romul.told import figures_of, why_not_out
from romul_actors.core.decide import decide
from romul_actors.core.events import (
    Control,
    Event,
    Failed,
    Result,
    Stamped,
    Submitted,
    Tick,
    TrialMessage,
)
from romul_actors.core.optimizers import Optimizer
from romul_actors.core.population import Population as CorePopulation
from romul_actors.core.settings import Settings
from romul_actors.errors import ExperimentError, StoredDataError, TellError
from romul_actors.protocol.experiment import Experiment, from_values
from romul_actors.protocol.plan import check, left_out, settings
from romul_actors.protocol.redeclare import redeclare
from romul_actors.protocol.slot_codec import read, write_meta, write_slot
from romul_actors.protocol.statuses import ENDED
from romul_workers.trial import place

VERSION = 1
"""Of `Population.state`."""
OF_A_STATE = "it must be what Population.state was"
WORKER = "ask-and-tell"
"""Stands where a run's history names a worker."""

Clock = Callable[[], float]
AskedTrial = TrialMessage
"""What `Population.ask` gives."""


class Population:
    """A population whose trials you train, wherever and whenever you like.

    For instance, one after the other::

        population = romul.Population(space, population=8, steps=30, seed=1)
        while not population.done:
            trial = population.ask()
            if trial is None:
                ...  # all that can begin now has begun: wait for a result
            else:
                ...  # train from trial.parent with trial.hyperparameters, then, now or later:
                population.tell(trial, val_loss, checkpoint="anything-you-can-find-again")
        population.best.hyperparameters

    The decisions are those of a run with the same seed whose results come in the same order.
    Several threads may use one population.

    Args:
        space: hyperparameters by name.
        population: number of slots, 4 at least.
        steps: PBT steps of each slot.
        seed: all randomness of the search derives from it.
        optimizer: a name, a table of a name and constants, or an `Optimizer` of your own.
        metric: what the search goes by; its name in what `tell` is given, if that is a mapping.
        mode: "min" or "max": whether less or more of it is better.
        clock: seconds since the epoch. A step whose results are not all there yet is decided
            without the missing ones as a run does: when enough are known and `ask` finds nothing
            else to do for a twentieth of a trial's time. None: there is no time, every step waits
            for all its results, and the same tells in the same order always lead to the same moves.
        keys: further keys of an experiment, by their TOML names: `budget`, `initial`,
            `max_attempts`, `max_trials`, `target`; with a clock `deadline`, `max_hours` and
            `timeouts`. Those that mean something to workers alone are refused.

    Raises:
        ExperimentError: what was declared is wrong; the message names the argument.
    """

    def __init__(
        self,
        space: Mapping[str, Any],
        *,
        population: int = 8,
        steps: int,
        seed: int = 0,
        optimizer: str | Mapping[str, Any] | Optimizer = "romul",
        metric: str = "loss",
        mode: Mode = "min",
        clock: Clock | None = time.time,
        **keys: Any,
    ) -> None:
        own = optimizer if isinstance(optimizer, Optimizer) else None
        without = UNTIMED if clock is None else UNUSED
        call = Call(function="Population", arguments=("clock",), without=without)
        given = {"population": population, "steps": steps, "seed": seed, "metric": metric}
        # No server knows it: a name and a task only complete the declaration.
        given |= {"name": "population", "task": "population"}
        given |= {} if own is not None else {"optimizer": optimizer}
        experiment = declare(call, space, mode, keys, given)
        check(experiment)
        self._prepare(experiment, own, clock)
        self._fold(Submitted())

    def _prepare(self, experiment: Experiment, own: Optimizer | None, clock: Clock | None) -> None:
        self._lock = threading.RLock()
        self._experiment = experiment
        self._clock = clock
        self._settings = _alone(settings(experiment, stored=True), own)
        self._population = CorePopulation(settings=self._settings)
        self._ready: list[TrialMessage] = []
        self._out: dict[str, tuple[TrialMessage, float]] = {}

    # -- ask and tell ---------------------------------------------------------------------------

    def ask(self) -> TrialMessage | None:
        """The next trial to train; None: there is none before another result is told.

        A trial has `id`, `hyperparameters`, `parent` (the checkpoint to continue from, by the name
        that `tell` was given; None: from scratch), `start` and `stop` (in the budget's unit, from
        the very beginning; ints where they are whole), `seed`, `slot`, `step` and `attempt`.
        """
        with self._lock:
            if not self._ready and self._clock is not None:
                # The caller is a worker without a trial: that ends a wait for the last results.
                self._fold(Tick(workers=len(self._out) + 1))
            if not self._ready:
                return None
            trial = self._ready.pop(0)
            trial = replace(trial, start=place(trial.start), stop=place(trial.stop))
            self._out[trial.id] = (trial, self._now())
            return trial

    def tell(
        self,
        trial: TrialMessage | str,
        value: float | Mapping[str, Any],
        *,
        checkpoint: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Give the result of a trial.

        Args:
            trial: what `ask` gave, or its id.
            value: the metric, or a mapping that holds it; numbers of numpy and torch are numbers.
            checkpoint: a name of your choice, which trials that continue from it have as `parent`;
                the trial's id if left out.
            metrics: other figures, kept with the best trial.
            seconds: how long training took; measured from `ask` if left out.

        Raises:
            TellError: the trial is not out, or the value is not a finite number.
        """
        metric = self._experiment.metric
        returned = value if isinstance(value, Mapping) else {metric: value}
        with self._lock:
            asked, asked_s = self._asked(trial)
            found = figures_of(asked, {**(metrics or {}), **returned}, metric)
            event = Result(
                **self._token(asked),
                value=found.value,
                checkpoint=asked.id if checkpoint is None else checkpoint,
                seconds=self._now() - asked_s if seconds is None else seconds,
                metrics=found.kept,
            )
            self._end(asked, event)

    def failed(self, trial: TrialMessage | str, message: str = "", *, again: bool = True) -> None:
        """Say that a trial ended without a result.

        Args:
            trial: what `ask` gave, or its id.
            message: why, for people.
            again: whether `ask` may give it once more, `max_attempts` times in all (3 by default).
                A trial that is given up ranks last; its slot goes on from another's checkpoint.

        Raises:
            TellError: the trial is not out.
        """
        with self._lock:
            asked, asked_s = self._asked(trial)
            event = Failed(
                **self._token(asked),
                reason="exception" if again else "not_finite",
                message=message,
                seconds=self._now() - asked_s,
            )
            self._end(asked, event)

    def extend(self, steps: int) -> None:
        """Go on to `steps` steps in all, also where the search has ended.

        Raises:
            ExperimentError: it is no number of steps, or it has as many already.
        """
        Call(function="extend", arguments=()).check(steps=steps)
        with self._lock:
            before = self._settings
            if steps <= before.steps:
                raise ExperimentError(f"steps: {steps} is not above the {before.steps} that it has")
            self._fold(Control(action="extend", steps=steps))
            self._settings = self._population.settings
            self._experiment = redeclare(self._experiment, before, self._settings)
            # What is out still counts.
            self._ready = [trial for trial in self._ready if trial.id not in self._out]

    # -- how things stand -----------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether no trial will be given any more: see `status`."""
        return self._population.status in ENDED

    @property
    def status(self) -> str:
        """Running, finished, or failed, which means that every trial of one step failed."""
        return self._population.status

    @property
    def reason(self) -> str:
        """Why the status is so, for people; often empty."""
        return self._population.reason

    @property
    def ready(self) -> int:
        """How many trials `ask` has at once."""
        return len(self._ready)

    @property
    def out(self) -> Sequence[TrialMessage]:
        """Trials that were asked for, and not told yet."""
        with self._lock:
            return [trial for trial, _ in self._out.values()]

    @property
    def best(self) -> Best | None:
        """The best trial so far; None before the first result."""
        if (best := self._population.best) is None:
            return None
        return Best(
            trial=best.trial,
            value=-best.loss if self._settings.maximize else best.loss,
            hyperparameters=deepcopy(dict(best.hyperparameters)),
            checkpoint=best.checkpoint,
            metrics=best.metrics,
        )

    @property
    def checkpoints(self) -> set[str]:
        """Names of the checkpoints that a trial may still continue from; others may be removed."""
        return self._population.needed_checkpoints()

    @property
    def state(self) -> dict[str, Any]:
        """All of it as JSON values, to be saved; `Population.load` goes on from there."""
        with self._lock:
            population, ready, out = self._population, [*self._ready], [*self._out.values()]
            experiment, core = self._experiment, self._settings
        metric = experiment.metric
        return {
            "version": VERSION,
            "experiment": experiment.model_dump(mode="json", exclude_defaults=True),
            "optimizer": core.optimizer.name,
            "population": write_meta(population, metric),
            "slots": [write_slot(slot, core, metric) for slot in population.slots],
            "ready": [to_jsonable_python(asdict(trial)) for trial in ready],
            "out": [
                {"trial": to_jsonable_python(asdict(trial)), "asked_s": asked_s}
                for trial, asked_s in out
            ],
        }

    @classmethod
    def load(
        cls,
        state: Mapping[str, Any] | str,
        *,
        optimizer: Optimizer | None = None,
        clock: Clock | None = time.time,
    ) -> Self:
        """Go on from a saved `state`.

        Trials that were out still are: tell them, or say that they failed.

        Args:
            state: what `state` was, or that as JSON.
            optimizer: your own one, where the population was made with one.
            clock: as for a new population.

        Raises:
            ExperimentError: it is no such state, or one of another version.
        """
        try:
            values: Any = json.loads(state) if isinstance(state, str) else state
        except ValueError as error:
            raise ExperimentError(f"state: it is not JSON: {error}") from None
        version = values.get("version") if isinstance(values, Mapping) else None
        if version != VERSION:
            raise ExperimentError(f"state: version {version!r} is not {VERSION}: {OF_A_STATE}")
        made = cls.__new__(cls)
        try:
            made._restore(values, optimizer, clock)  # noqa: SLF001  (its own)
        except (LookupError, TypeError, AttributeError) as error:
            raise ExperimentError(f"state: {error!r}: {OF_A_STATE}") from error
        return made

    def _restore(
        self, state: Mapping[str, Any], optimizer: Optimizer | None, clock: Clock | None
    ) -> None:
        self._prepare(from_values(state["experiment"], "state"), optimizer, clock)
        warn_of(left_out(self._experiment))
        if self._settings.optimizer.name != state["optimizer"]:
            raise ExperimentError(
                f"state: it was made with an optimizer {state['optimizer']!r}: pass it again, "
                "Population.load(state, optimizer=...)"
            )
        metric = self._experiment.metric
        try:
            self._population = read(self._settings, metric, state["population"], state["slots"])
        except StoredDataError as error:
            raise ExperimentError(f"state: {error.what}: {OF_A_STATE}") from None
        self._ready = [TrialMessage(**trial) for trial in state["ready"]]
        for line in state["out"]:
            trial = TrialMessage(**line["trial"])
            self._out[trial.id] = (trial, line["asked_s"])

    def __repr__(self) -> str:
        counts = self._population.counts
        total = self._experiment.n_trials
        best = "" if self.best is None else f", best {self._experiment.metric} {self.best.value:g}"
        return (
            f"<Population {self.status}: {counts.reported + counts.failed} of {total} trials{best}>"
        )

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles have: all but the lock, as it is between two calls."""
        with self._lock:
            lists = {"_ready": [*self._ready], "_out": {**self._out}, "_lock": None}
            return {**vars(self), **lists}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take that over, with a lock of its own."""
        vars(self).update(state, _lock=threading.RLock())

    # -- inside ---------------------------------------------------------------------------------

    def _now(self) -> float:
        return 0.0 if self._clock is None else self._clock()

    def _fold(self, event: Event) -> None:
        decision = decide(self._population, Stamped(event, round(1000 * self._now())))
        self._population = decision.population
        self._ready += decision.trials
        if self.done:
            # What was not asked for at the end is discarded.
            self._ready = []

    def _end(self, trial: TrialMessage, event: Result | Failed) -> None:
        del self._out[trial.id]
        self._fold(event)

    def _token(self, trial: TrialMessage) -> dict[str, Any]:
        return {"trial": trial.id, "slot": trial.slot, "attempt": trial.attempt, "worker": WORKER}

    def _asked(self, given: TrialMessage | str) -> tuple[TrialMessage, float]:
        """A trial that is out, and when it was asked for.

        Raises:
            TellError: it is not out; the message says why.
        """
        trial = given if isinstance(given, str) else getattr(given, "id", None)
        if trial is None:
            raise TellError(f"{given!r} is no trial: give what ask() gave, or its id")
        if trial in self._out:
            asked = self._out[trial]
            if not isinstance(given, str) and given.attempt != asked[0].attempt:
                raise TellError(
                    f"trial {trial}: attempt {given.attempt} failed before; attempt "
                    f"{asked[0].attempt} is out now"
                )
            return asked
        raise TellError(why_not_out(trial, self._population, self._ready, self._out))


def _alone(made: Settings, own: Optimizer | None) -> Settings:
    """Settings without workers to follow: no slot is added, and no trial handed out twice."""
    elasticity = replace(made.elasticity, max_slots=made.n_slots, per_worker=None, second_copy=0.0)
    return replace(made, elasticity=elasticity, optimizer=own or made.optimizer)
