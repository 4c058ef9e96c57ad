"""Training as the simulation has it: durations, a machine's speed, and the trainer itself."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.random import Generator

from romul_actors.core.events import TrialMessage
from romul_actors.core.rng import generator
from romul_actors.protocol.experiment import Experiment
from romul_sim.invariants import InvariantWatch
from romul_sim.virtual_time import RESOLUTION_S, virtual_loop
from romul_workers.tasks.toys import State, Toy
from romul_workers.trainer import Ending, Failure, Restored, Stopped, Success, Trainer, ignore

TRAINING, DURATION = 0, 1
"""Purposes of a trial's random numbers: what comes of it, and how long it takes."""


@dataclass(slots=True)
class Saved:
    """A checkpoint: the toy's state, where training stands, and what led to it."""

    state: State | None
    at: float
    lineage_s: float = 0.0
    """Machine seconds along its line of descent."""


@dataclass(frozen=True, slots=True)
class Durations:
    """How long a trial takes, in seconds.

    It is the trial's own: whatever machine does it, and however often, it takes as long, but for
    the machine's speed.

    Attributes:
        trial_s: median of a whole trial on a machine of speed 1.
        spread: standard deviation of its logarithm, from trial to trial.
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

    def of(self, experiment: Experiment, trial: TrialMessage, streams: "Streams") -> float:
        """Seconds of training that a trial needs at speed 1, without its checkpoints."""
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
    """The random numbers of trials: one generator, which begins one stream after the other.

    The numbers are those of `romul_actors.core.rng.generator`, in a third of the time: a trial has
    two streams, and takes a few numbers of each.
    """

    def __init__(self) -> None:
        self._generator = generator(0, 0, 0, 0)
        self._beginning: Any = self._generator.bit_generator.state

    def begin(self, seed: int, purpose: int) -> Generator:
        """The generator at the beginning of a trial's stream; of use until the next call."""
        key, counter = self._beginning["state"]["key"], self._beginning["state"]["counter"]
        key[0], key[1], counter[3] = seed % 2**64, seed >> 64, purpose
        self._generator.bit_generator.state = self._beginning
        return self._generator


class Pace:
    """A machine's speed at present; work waits for it. In true time: no clock is asked.

    Args:
        speed: relative to other machines; 0: it trains nothing until that changes.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._frozen_until_s = 0.0
        self._stopped = False
        self._under_way: dict[asyncio.Future[bool], None] = {}

    def change(self, speed: float) -> None:
        """Go on at another speed; a machine that is frozen does so when it thaws."""
        self._speed = speed
        self._wake()

    def freeze(self, until_s: float) -> None:
        """Stand still until then; a freeze that lasts longer goes on."""
        self._frozen_until_s = max(until_s, self._frozen_until_s)
        self._wake()

    def stop(self) -> None:
        """End the training under way, and any that comes."""
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        for news in self._under_way:
            _end(news, over=False)

    async def work(self, seconds: float) -> float:
        """Work for so many seconds of speed 1; the seconds' worth that was done when stopped."""
        left = seconds
        while left > 0 and not self._stopped:
            left = await self._go_on(left, self._speed)
        return seconds - max(0.0, left)

    async def store(self, seconds: float) -> None:
        """Store for so many seconds, whatever the speed, and though the training is to end."""
        left = seconds
        while left > 0:
            left = await self._go_on(left, 1.0)

    async def _go_on(self, left: float, speed: float) -> float:
        """Go on until something changes, or to the end; the seconds' worth that is left."""
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
    """Let work go on, or be over."""
    if not news.done():
        news.set_result(over)


@dataclass(slots=True, eq=False)
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
    stores: bool = False
    """Whether all that is left to do is to store its checkpoint, beside the next trial."""
    used_s: float = 0.0
    """The machine's time that it took: seconds that belong to no other attempt."""


OnSpan = Callable[[Span, float], None]
"""Is called with an attempt and the time when it begins, ends, and before its use is asked for."""


class SimulatedTrainer(Trainer):
    """Takes a trial's time, then does the toy's step; pauses inside a trial that must stop.

    Args:
        machine: name of the machine that it runs on.
        toy: the problem.
        durations: how long things take.
        checkpoints: all there are.
        watches: by experiment.
        pace: the machine's speed.
        numbers: makes names of checkpoints.
        on_span: keeps accounts of attempts.
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
        """Whether its machine is going away this moment."""

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
        """Bring an attempt's accounts up to date; the machine's time that it took so far."""
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
            # A machine may thaw long after its trial has ended elsewhere: only a report that still
            # counts would break an invariant.
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
        # Of the trial, not of the machine: a trial done again elsewhere comes out the same.
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
