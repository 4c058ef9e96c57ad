"""The ask-and-tell interface: decisions only, for programs that run the trials themselves.

It uses the same core as every run (`romul_actors.core.decide`), without server, actor or workers.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from os import PathLike
from typing import Any, Self

from pydantic_core import to_jsonable_python

from romul.declaration import UNTIMED, UNUSED, Call, Mode, declare, warn_of
from romul.result import Best
from romul.result_check import checkpoint_name, duration, figures_of, waiting
from romul_actors.actor.standalone import decided, without_workers
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
from romul_actors.errors import ExperimentError, StoredDataError
from romul_actors.protocol.experiment import Experiment, from_values
from romul_actors.protocol.messages import MOST_STEPS
from romul_actors.protocol.plan import check, left_out, settings
from romul_actors.protocol.redeclare import redeclare
from romul_actors.protocol.slot_codec import read, write_meta, write_slot
from romul_actors.protocol.statuses import ENDED
from romul_workers.trial import place

VERSION = 1
"""Version of the format of `Population.state`."""
OF_A_STATE = "it must be a value of Population.state"
WORKER = "ask-and-tell"
"""Used as the name of the worker in all events."""

Clock = Callable[[], float]
AskedTrial = TrialMessage
"""The type that `Population.ask` returns."""


class Population:
    """A population whose trials your program trains, where and when it likes.

    Example, with one trial at a time::

        population = romul.Population(space, population=8, steps=30, seed=1)
        while not population.done:
            trial = population.ask()
            if trial is None:
                ...  # no trial can start before another result is known: wait for one
            else:
                ...  # train from trial.parent with trial.hyperparameters; then, now or later:
                population.tell(trial, val_loss, checkpoint="a-name-of-your-choice")
        population.best.hyperparameters

    The decisions are the same as in a run with the same seed whose results arrive in the same
    order. A population may be shared by several threads.

    Args:
        space: hyperparameters by name.
        population: number of slots, at least 4.
        steps: number of PBT steps of each slot.
        seed: seed for all random decisions of the search.
        optimizer: name of the optimizer, a table with its name and constants, or an `Optimizer`.
        metric: name of the metric to optimize; `tell` looks it up if it is given a mapping.
        mode: "min" to minimize the metric, "max" to maximize it.
        clock: returns the time in seconds since the epoch. As in a run, a step is then decided
            without late results, once enough are known and `ask` has had no other trial for a
            twentieth of a trial's duration. With None, every step waits for all its results.
        keys: further keys of an experiment, by their TOML names: `budget`, `initial`,
            `max_attempts`, `max_trials`, `target`, and with a clock `deadline`, `max_hours` and
            `timeouts`. Keys that only affect a server or workers are rejected.

    Raises:
        ExperimentError: the declaration is invalid; the message names the argument.
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
        # A declaration requires a name and a task, though neither is used here.
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
        self._settings = without_workers(settings(experiment, stored=True), own)
        self._population = CorePopulation(settings=self._settings)
        self._ready: list[TrialMessage] = []
        self._out: dict[str, tuple[TrialMessage, float]] = {}

    # -- ask and tell ---------------------------------------------------------------------------

    def ask(self) -> TrialMessage | None:
        """Return the next trial to train, or None if no trial can start before another result.

        It has `id`, `hyperparameters`, `parent` (name of the checkpoint to continue from, as given
        to `tell`, or None: from scratch), `start` and `stop` (in the unit of the budget, from the
        beginning of the search; ints if they are whole), `seed`, `slot`, `step` and `attempt`.
        """
        with self._lock:
            if not self._ready and self._clock is not None:
                # The caller counts as an idle worker, which can end the wait for late results.
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
        checkpoint: str | PathLike[str] | None = None,
        metrics: Mapping[str, Any] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Report the result of a trial.

        Args:
            trial: the trial that `ask` returned, or its id.
            value: the metric, or a mapping that contains it; NumPy and torch scalars are accepted.
            checkpoint: name or path of the trial's checkpoint; trials that continue from it have
                it, as text, as their `parent`. Default: the trial's id.
            metrics: other metrics, which are kept with the best trial.
            seconds: duration of the training, at least 0. Default: the time since `ask`.

        Raises:
            TellError: the trial is not waiting for a result, the value is not a finite number, or
                another argument is invalid. The trial still waits for a result.
        """
        metric = self._experiment.metric
        returned = value if isinstance(value, Mapping) else {metric: value}
        with self._lock:
            asked, asked_s = waiting(trial, self._out, self._population, self._ready)
            found = figures_of(asked, {**(metrics or {}), **returned}, metric)
            event = Result(
                **self._token(asked),
                value=found.value,
                checkpoint=asked.id if checkpoint is None else checkpoint_name(asked, checkpoint),
                seconds=self._since(asked_s) if seconds is None else duration(asked, seconds),
                metrics=found.kept,
            )
            self._end(asked, event)

    def failed(self, trial: TrialMessage | str, message: str = "", *, again: bool = True) -> None:
        """Report that a trial ended without a result.

        Args:
            trial: the trial that `ask` returned, or its id.
            message: the reason, in words.
            again: whether the trial may be retried: `ask` returns it again until it has had
                `max_attempts` attempts (default: 3). A trial that is not retried ranks last, and
                its slot continues from the checkpoint of another slot.

        Raises:
            TellError: the trial is not waiting for a result.
        """
        with self._lock:
            asked, asked_s = waiting(trial, self._out, self._population, self._ready)
            event = Failed(
                **self._token(asked),
                reason="exception" if again else "not_finite",
                message=message,
                seconds=self._since(asked_s),
            )
            self._end(asked, event)

    def extend(self, steps: int) -> None:
        """Extend the search, even if it has ended, to `steps` steps in total.

        Raises:
            ExperimentError: `steps` is not a positive integer, is too large, or the search already
                has that many.
        """
        Call(function="extend", arguments=()).check(steps=steps)
        with self._lock:
            before = self._settings
            if steps <= before.steps:
                raise ExperimentError(f"steps: {steps} is not above the {before.steps} that it has")
            if steps > MOST_STEPS:
                raise ExperimentError(f"steps: {steps} is above {MOST_STEPS}")
            self._fold(Control(action="extend", steps=steps))
            self._settings = self._population.settings
            self._experiment = redeclare(self._experiment, before, self._settings)
            # Results of trials that were asked for are still accepted.
            self._ready = [trial for trial in self._ready if trial.id not in self._out]

    # -- state ----------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the search has ended, so that `ask` returns no more trials; see `status`."""
        return self._population.status in ENDED

    @property
    def status(self) -> str:
        """One of "running", "finished" and "failed" (every trial of one step has failed)."""
        return self._population.status

    @property
    def reason(self) -> str:
        """Explanation of the status, in words; often empty."""
        return self._population.reason

    @property
    def ready(self) -> int:
        """Number of trials that `ask` can return now."""
        return len(self._ready)

    @property
    def out(self) -> Sequence[TrialMessage]:
        """Trials that `ask` has returned and that have not been reported yet."""
        with self._lock:
            return [trial for trial, _ in self._out.values()]

    @property
    def best(self) -> Best | None:
        """The best trial so far, or None before the first result."""
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
        """Names of the checkpoints that trials may still need. All others may be deleted."""
        return self._population.needed_checkpoints()

    @property
    def state(self) -> dict[str, Any]:
        """The whole state as JSON values, to be saved and passed to `Population.load`."""
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
        """Restore a population from a saved `state`.

        Trials that were being trained are still expected: call `tell` or `failed` for each.

        Args:
            state: a value of `state`, or its JSON text.
            optimizer: your own optimizer, if the population was created with one.
            clock: see `Population`.

        Raises:
            ExperimentError: the state is invalid, or was saved by an incompatible version.
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
                f"state: it was saved with the optimizer {state['optimizer']!r}: pass that "
                "optimizer again, as in Population.load(state, optimizer=...)"
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
        """The state for copies and pickles, without the lock."""
        with self._lock:
            lists = {"_ready": [*self._ready], "_out": {**self._out}, "_lock": None}
            return {**vars(self), **lists}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Restore the state, with a new lock."""
        vars(self).update(state, _lock=threading.RLock())

    # -- inside ---------------------------------------------------------------------------------

    def _now(self) -> float:
        return 0.0 if self._clock is None else float(self._clock())

    def _since(self, asked_s: float) -> float:
        # The clock may have been set back, or be another machine's.
        return max(0.0, self._now() - asked_s)

    def _fold(self, event: Event) -> None:
        stamped = Stamped(event, round(1000 * self._now()))
        decision = decided(self._population, stamped)
        self._population = decision.population
        self._ready += decision.trials
        if self.done:
            # Trials that have not been asked for by the end are discarded.
            self._ready = []

    def _end(self, trial: TrialMessage, event: Result | Failed) -> None:
        # Not before: if the optimizer raises an exception, the result can be told again.
        self._fold(event)
        del self._out[trial.id]

    def _token(self, trial: TrialMessage) -> dict[str, Any]:
        return {"trial": trial.id, "slot": trial.slot, "attempt": trial.attempt, "worker": WORKER}
