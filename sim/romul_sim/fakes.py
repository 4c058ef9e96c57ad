"""Training as the simulation has it: durations, a machine's speed, and the trainer itself."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from numpy.random import Generator

from romul_actors.core.events import TrialMessage
from romul_actors.core.rng import generator
from romul_actors.protocol.experiment import Experiment
from romul_sim.invariants import InvariantWatch
from romul_sim.virtual_time import VirtualLoop, virtual_loop
from romul_workers.tasks.toys import State, Toy
from romul_workers.trainer import Ending, Failure, Restored, Stopped, Success, Trainer, ignore


@dataclass(slots=True)
class Saved:
    """A checkpoint: the toy's state, where training stands, and what led to it."""

    state: State | None
    at: float
    lineage_s: float = 0.0
    """Seconds of training along its line of descent."""


@dataclass(frozen=True, slots=True)
class Durations:
    """How long a trial takes, in seconds.

    Attributes:
        trial_s: median of a whole trial on a machine of speed 1.
        spread: standard deviation of its logarithm.
        by_hyperparameter: ratio of the longest to the shortest along the first hyperparameter.
        load_s, save_s: for its checkpoints; what the machine trained last needs no loading.
        beside: whether the next trial may train while a checkpoint is saved.
    """

    trial_s: float = 60.0
    spread: float = 0.3
    by_hyperparameter: float = 1.0
    load_s: float = 0.0
    save_s: float = 0.0
    beside: bool = False

    def of(self, experiment: Experiment, trial: TrialMessage, rng: Generator) -> float:
        """Seconds of training that a trial needs, without its checkpoints."""
        whole = experiment.budget
        seconds = self.trial_s * (trial.stop - trial.start) / whole
        if self.spread:
            seconds *= float(rng.lognormal(0.0, self.spread))
        if self.by_hyperparameter != 1.0:
            place = experiment.search_space().encode(trial.hyperparameters)[0]
            seconds *= self.by_hyperparameter ** (place - 0.5)
        return seconds


class Pace:
    """A machine's speed at present; work waits for it.

    Args:
        speed: relative to other machines; 0: it stands still.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._news: asyncio.Future[bool] | None = None
        self._stopped = False

    def change(self, speed: float) -> None:
        """Go on at another speed."""
        self._speed = speed
        self._wake(over=False)

    def stop(self) -> None:
        """End the work under way, and any that comes."""
        self._stopped = True
        self._wake(over=False)

    def _wake(self, *, over: bool) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(over)

    async def work(self, seconds: float) -> float:
        """Work for so many seconds of speed 1; the seconds' worth that was done when stopped."""
        loop, left = virtual_loop(), seconds
        while left > 0 and not self._stopped:
            began, speed = loop.now_s, self._speed
            self._news = loop.create_future()
            end = partial(self._wake, over=True)
            timer = loop.call_later(left / speed, end) if speed else None
            try:
                if await self._news:
                    return seconds
            finally:
                self._news = None
                if timer is not None:
                    timer.cancel()
            left -= speed * (loop.now_s - began)
        return seconds - max(0.0, left)


@dataclass(slots=True)
class Span:
    """One attempt of a trial on a machine."""

    machine: str
    experiment: str
    trial: str
    attempt: int
    begin_s: float
    end_s: float | None = None
    how: str = ""
    """done, paused, cut (by its machine's end), or cancelled."""


class SimulatedTrainer(Trainer):
    """Takes a trial's time, then does the toy's step; pauses inside a trial that must stop.

    Args:
        machine: name of the machine that it runs on.
        toy: the problem.
        durations: how long things take.
        checkpoints: all there are.
        watches: by experiment.
        pace: the machine's speed.
        rng: of durations.
        numbers: makes names of checkpoints.
    """

    def __init__(
        self,
        machine: str,
        toy: Toy,
        durations: Durations,
        checkpoints: dict[str, Saved],
        watches: Mapping[str, InvariantWatch],
        pace: Pace,
        rng: Generator,
        numbers: Callable[[], int],
        spans: Callable[[Span], None] | None = None,
    ) -> None:
        self._machine = machine
        self._toy = toy
        self._durations = durations
        self._checkpoints = checkpoints
        self._watches = watches
        self._pace = pace
        self._rng = rng
        self._numbers = numbers
        self._spans = spans
        self._held: str | None = None
        self.leaving = False
        """Whether its machine is going away this moment."""

    async def train(
        self, experiment: Experiment, trial: TrialMessage, stores: Callable[[], None] = ignore
    ) -> Ending:
        loop = virtual_loop()
        span = Span(self._machine, experiment.name, trial.id, trial.attempt, loop.now_s)
        if self._spans is not None:
            self._spans(span)
        try:
            ending = await self._train(experiment, trial, stores, loop)
            span.how = "paused" if isinstance(ending, Stopped) else "done"
        except asyncio.CancelledError:
            span.how = "cut" if self.leaving else "cancelled"
            raise
        finally:
            span.end_s = loop.now_s
            if self._spans is not None:
                self._spans(span)
        return ending

    async def _train(
        self,
        experiment: Experiment,
        trial: TrialMessage,
        stores: Callable[[], None],
        loop: VirtualLoop,
    ) -> Ending:
        began_s = loop.now_s
        parent = self._checkpoints.get(trial.parent) if trial.parent is not None else None
        if trial.parent is not None and parent is None:
            # A machine may thaw long after its trial has ended elsewhere: only a report that still
            # counts would break an invariant.
            return Failure("lost_parent", f"{trial.parent} is gone")
        watch = self._watches[experiment.name]
        watch.trained(trial.id, trial.start, parent.at if parent is not None else 0.0)
        before = None if parent is None else parent.state
        lineage_s = 0.0 if parent is None else parent.lineage_s
        name = f"{experiment.name}/{trial.id}-{trial.attempt}-{self._numbers():x}"
        durations = self._durations
        seconds = durations.of(experiment, trial, self._rng)
        warm = trial.parent is not None and trial.parent == self._held
        self._held = None
        around_s = 0.0 if warm else durations.load_s
        if not durations.beside:
            around_s += durations.save_s
        done_s = await self._pace.work(seconds + around_s)
        if done_s < seconds + around_s:
            share = max(0.0, done_s - around_s) / seconds
            at = trial.start + share * (trial.stop - trial.start)
            self._checkpoints[name] = Saved(before, at, lineage_s + loop.now_s - began_s)
            return Stopped(name, at)
        if durations.load_s:
            self._held = name
        if durations.beside:
            stores()
            await asyncio.sleep(durations.save_s)
        # Of the trial, not of the machine: a trial done again elsewhere comes out the same.
        rng = generator(trial.seed, 0, 0, 0)
        stepped = self._toy.step(before, trial.hyperparameters, trial.step, rng)
        lineage_s += loop.now_s - began_s
        self._checkpoints[name] = Saved(stepped.state, trial.stop, lineage_s)
        restored = None
        if durations.load_s:
            restored = Restored(0.0 if warm else durations.load_s, warm=warm)
        return Success(
            stepped.observed,
            name,
            {"true_loss": stepped.true},
            restored=None if trial.parent is None else restored,
        )

    def ask_to_stop(self) -> None:
        self._pace.stop()

    async def discard(self, experiment: Experiment, checkpoint: str) -> None:
        self._watches[experiment.name].removed(checkpoint)
        self._checkpoints.pop(checkpoint, None)

    async def close(self) -> None:
        return None
