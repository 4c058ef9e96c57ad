"""Simulated training: durations, a machine's speed, and the trainer."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.random import Generator

from romul_actors.core.events import TrialMessage
from romul_actors.core.rng import generator
from romul_actors.protocol.experiment import Experiment
from romul_sim.cluster.invariants import InvariantWatch
from romul_sim.cluster.virtual_time import RESOLUTION_S, virtual_loop
from romul_workers.tasks.toys import State, Toy
from romul_workers.trainer import Ending, Failure, Restored, Stopped, Success, Trainer, ignore

TRAINING, DURATION = 0, 1
"""Purposes of a trial's random numbers: its result, and its duration."""


@dataclass(slots=True)
class Saved:
    """A checkpoint: the toy's state, the position in training, and the time that led to it."""

    state: State | None
    at: float
    lineage_s: float = 0.0
    """Machine time along its line of descent, in seconds."""


@dataclass(frozen=True, slots=True)
class Durations:
    """How long a trial takes, in seconds.

    The duration belongs to the trial: apart from the machine's speed, it is the same on each
    machine and in each attempt.

    Attributes:
        trial_s: median duration of a whole trial on a machine of speed 1.
        spread: standard deviation of the logarithm of the duration between trials.
        by_hyperparameter: ratio of the longest to the shortest duration along the first
            hyperparameter.
        load_s, save_s: time to load the parent and to save the checkpoint. A parent that the
            machine trained last needs no loading.
        beside: whether the next trial may train while a checkpoint is saved.
    """

    trial_s: float = 60.0
    spread: float = 0.3
    by_hyperparameter: float = 1.0
    load_s: float = 0.0
    save_s: float = 0.0
    beside: bool = False

    def of(self, experiment: Experiment, trial: TrialMessage, streams: "Streams") -> float:
        """Training time of a trial at speed 1, in seconds, without its checkpoints."""
        whole = experiment.budget
        seconds = self.trial_s * (trial.stop - trial.start) / whole
        if self.spread:
            rng = streams.begin(trial.seed, DURATION)
            seconds *= float(rng.lognormal(0.0, self.spread))
        if self.by_hyperparameter != 1.0:
            place = experiment.search_space().encode(trial.hyperparameters)[0]
            seconds *= self.by_hyperparameter ** (place - 0.5)
        return seconds


class Streams:
    """The random numbers of trials: one generator that is set to the beginning of each stream.

    The numbers are those of `romul_actors.core.rng.generator`, but take a third of the time. A
    trial has two streams and draws only a few numbers from each.
    """

    def __init__(self) -> None:
        self._generator = generator(0, 0, 0, 0)
        self._beginning: Any = self._generator.bit_generator.state

    def begin(self, seed: int, purpose: int) -> Generator:
        """The generator at the beginning of a trial's stream; valid until the next call."""
        key, counter = self._beginning["state"]["key"], self._beginning["state"]["counter"]
        key[0], key[1], counter[3] = seed % 2**64, seed >> 64, purpose
        self._generator.bit_generator.state = self._beginning
        return self._generator


class Pace:
    """A machine's current speed, which determines how long work takes in true time.

    Args:
        speed: speed relative to other machines; 0: the machine trains nothing until that changes.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._frozen_until_s = 0.0
        self._stopped = False
        self._under_way: dict[asyncio.Future[bool], None] = {}

    def change(self, speed: float) -> None:
        """Change the speed; for a frozen machine, when it thaws."""
        self._speed = speed
        self._wake()

    def freeze(self, until_s: float) -> None:
        """Freeze until the given time; a longer freeze is not shortened."""
        self._frozen_until_s = max(until_s, self._frozen_until_s)
        self._wake()

    def stop(self) -> None:
        """Stop the current training and all later ones."""
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        for news in self._under_way:
            _end(news, over=False)

    async def work(self, seconds: float) -> float:
        """Do work that takes `seconds` at speed 1; returns how much was done until a stop."""
        left = seconds
        while left > 0 and not self._stopped:
            left = await self._go_on(left, self._speed)
        return seconds - max(0.0, left)

    async def store(self, seconds: float) -> None:
        """Store a checkpoint for `seconds`, whatever the speed, and even after `stop`."""
        left = seconds
        while left > 0:
            left = await self._go_on(left, 1.0)

    async def _go_on(self, left: float, speed: float) -> float:
        """Work until something changes or the work is done; returns the work that is left."""
        loop = virtual_loop()
        began_s = loop.now_s
        frozen = self._frozen_until_s - began_s > RESOLUTION_S
        news: asyncio.Future[bool] = loop.create_future()
        self._under_way[news] = None
        timer = None
        if frozen:
            timer = loop.call_when(self._frozen_until_s, partial(_end, news, over=False))
        elif speed:
            timer = loop.call_when(began_s + left / speed, partial(_end, news, over=True))
        try:
            over = await news
        finally:
            del self._under_way[news]
            if timer is not None:
                timer.cancel()
        if frozen:
            return left
        return 0.0 if over else left - speed * (loop.now_s - began_s)


def _end(news: asyncio.Future[bool], *, over: bool) -> None:
    """Wake work that waits; `over`: it is done."""
    if not news.done():
        news.set_result(over)


@dataclass(slots=True, eq=False)
class Span:
    """One attempt at a trial on a machine."""

    machine: str
    experiment: str
    trial: str
    attempt: int
    begin_s: float
    end_s: float | None = None
    how: str = ""
    """How it ended: done, paused, cut (by its machine's end), or cancelled."""
    stores: bool = False
    """Whether only its checkpoint remains to be stored, while the next trial trains."""
    used_s: float = 0.0
    """The machine's time that it used, in seconds; each second belongs to one attempt."""


OnSpan = Callable[[Span, float], None]
"""Called with an attempt and the time when it begins, when it ends, and before `used_s` is read."""


class SimulatedTrainer(Trainer):
    """Waits for the duration of a trial, then does the toy's step; pauses if it must stop.

    Args:
        machine: name of the machine that it runs on.
        toy: the problem.
        durations: how long training takes.
        checkpoints: all checkpoints that exist, by name.
        watches: the checks of the invariants, by experiment.
        pace: the machine's speed.
        numbers: returns a new number for the name of a checkpoint.
        on_span: see `OnSpan`.
    """

    def __init__(
        self,
        machine: str,
        toy: Toy,
        durations: Durations,
        checkpoints: dict[str, Saved],
        watches: Mapping[str, InvariantWatch],
        pace: Pace,
        numbers: Callable[[], int],
        on_span: OnSpan | None = None,
    ) -> None:
        self._machine = machine
        self._toy = toy
        self._durations = durations
        self._checkpoints = checkpoints
        self._watches = watches
        self._pace = pace
        self._numbers = numbers
        self._on_span = on_span
        self._streams = Streams()
        self._loop = virtual_loop()
        self._held: str | None = None
        self.leaving = False
        """Whether its machine is being ended."""

    async def train(
        self, experiment: Experiment, trial: TrialMessage, stores: Callable[[], None] = ignore
    ) -> Ending:
        span = Span(self._machine, experiment.name, trial.id, trial.attempt, self._loop.now_s)
        self._account(span)
        try:
            ending = await self._train(experiment, trial, stores, span)
            span.how = "paused" if isinstance(ending, Stopped) else "done"
        except asyncio.CancelledError:
            span.how = "cut" if self.leaving else "cancelled"
            raise
        finally:
            span.end_s = self._loop.now_s
            self._account(span)
        return ending

    def _account(self, span: Span) -> float:
        """Update an attempt's account; returns the machine time that it has used so far."""
        if self._on_span is not None:
            self._on_span(span, self._loop.now_s)
        return span.used_s

    async def _train(
        self,
        experiment: Experiment,
        trial: TrialMessage,
        stores: Callable[[], None],
        span: Span,
    ) -> Ending:
        parent = self._checkpoints.get(trial.parent) if trial.parent is not None else None
        if trial.parent is not None and parent is None:
            # A machine may thaw long after its trial has ended elsewhere. This is a violation only
            # if the report still counts.
            return Failure("lost_parent", f"{trial.parent} is gone")
        watch = self._watches[experiment.name]
        watch.trained(trial.id, trial.start, parent.at if parent is not None else 0.0)
        before = None if parent is None else parent.state
        lineage_s = 0.0 if parent is None else parent.lineage_s
        name = f"{trial.id}-{trial.attempt}-{self._numbers():x}"
        durations = self._durations
        seconds = durations.of(experiment, trial, self._streams)
        warm = trial.parent is not None and trial.parent == self._held
        self._held = None
        around_s = 0.0 if warm or trial.parent is None else durations.load_s
        if not durations.beside:
            around_s += durations.save_s
        done_s = await self._pace.work(seconds + around_s)
        if done_s < seconds + around_s:
            share = max(0.0, done_s - around_s) / seconds
            at = trial.start + share * (trial.stop - trial.start)
            self._checkpoints[name] = Saved(before, at, lineage_s + self._account(span))
            return Stopped(name, at)
        if durations.load_s:
            self._held = name
        if durations.beside:
            self._account(span)
            span.stores = True
            stores()
            await self._pace.store(durations.save_s)
        # The random numbers belong to the trial, so each attempt has the same result.
        rng = self._streams.begin(trial.seed, TRAINING)
        stepped = self._toy.step(before, trial.hyperparameters, trial.step, rng)
        self._checkpoints[name] = Saved(stepped.state, trial.stop, lineage_s + self._account(span))
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
