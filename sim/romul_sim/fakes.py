"""What the real actors and workers stand on in a simulation: store, network, training."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from numpy.random import Generator

from romul_actors.core.events import TrialMessage
from romul_actors.core.history import Line
from romul_actors.core.rng import generator
from romul_actors.errors import StoreUnavailableError
from romul_actors.protocol.experiment import Experiment
from romul_actors.store import Commit, Committed
from romul_actors.store.memory import MemoryStore
from romul_sim.invariants import InvariantWatch, Violation
from romul_sim.virtual_time import VirtualLoop
from romul_workers.tasks.toys import State, Toy
from romul_workers.trainer import Ending, Failure, Restored, Stopped, Success, Trainer, ignore

KEPT_MS = 30_000
"""How far back in time the store can go."""
AMBIGUOUS = ("settle", "beat", "present")
"""Calls that a client sends again when no answer comes: they may arrive twice."""
WAITING = ("lease", "read")
"""Calls whose replies may take time: a machine may go meanwhile."""

OnLine = Callable[[str, Line], None]
"""Is called with the name of a search and a line of its history."""


def virtual_loop() -> VirtualLoop:
    """The loop of the running simulation."""
    return cast("VirtualLoop", asyncio.get_running_loop())


class WatchedStore(MemoryStore):
    """The one store of a simulation: every commit is checked; it can go back in time.

    Args:
        watches: by experiment.
        on_line: is called with each line of history.
    """

    def __init__(self, watches: Mapping[str, InvariantWatch], on_line: OnLine) -> None:
        loop = virtual_loop()
        # The server's own clock is right, whatever the machine that calls.
        super().__init__(lambda: int(1000 * loop.now_s))
        self.watches = watches
        self.away = False
        self._on_line = on_line
        self._sha256 = hashlib.sha256()
        self._kept: list[tuple[int, Any, Any]] = []
        self._statuses: dict[str, str] = {}

    @property
    def history_sha256(self) -> str:
        """Of all lines of all histories, in the order in which they were committed."""
        return self._sha256.hexdigest()

    async def set_fault(self, name: str, fault: str) -> None:
        if fault:
            raise Violation(f"{name}: {fault}")

    async def experiments(self) -> dict[str, str]:
        # One for all workers, which keep what they found: as long as nothing has changed.
        found = await super().experiments()
        if found != self._statuses:
            self._statuses = found
        return self._statuses

    async def commit(self, name: str, actor: str, commit: Commit) -> Committed | None:
        committed = await super().commit(name, actor, commit)
        if committed is not None:
            self._sha256.update("".join(commit.history).encode())
            stored = self.memory.experiments[name]
            for line in self.watches[name].committed(commit, stored.meta, stored.slots):
                self._on_line(name, line)
        return committed

    def keep(self) -> None:
        """Keep a copy of the present state, as a replica would."""
        now = self.memory.now_ms()
        books = {name: watch.book.copy() for name, watch in self.watches.items()}
        everything = {name: found.copy() for name, found in self.memory.experiments.items()}
        self._kept.append((now, everything, books))
        self._kept = [kept for kept in self._kept if now - kept[0] < KEPT_MS]

    def lose(self, seconds: float) -> None:
        """Go back to the newest state that is so old; a replica took over without the rest."""
        limit = self.memory.now_ms() - 1000 * seconds
        older = [kept for kept in self._kept if kept[0] <= limit] or self._kept[:1]
        if older:
            _, everything, books = older[-1]
            self.memory.experiments = {name: found.copy() for name, found in everything.items()}
            for name, book in books.items():
                self.watches[name].book = book.copy()
                self.watches[name].rolled_back = True

    def lose_trial(self, name: str, pick: float) -> None:
        """Lose one entry, as a damaged file or a careless operator would."""
        trials = self.memory.queue(name, "trials")
        if len(trials):
            chosen = sorted([*trials.fresh, *trials.held])[int(pick * len(trials))]
            trials.fresh.pop(chosen, None)
            trials.drop(chosen)
            self.watches[name].rolled_back = True


class MachineStore:
    """The store as one machine sees it: slow, lossy, frozen or cut off at times.

    Args:
        store: the store.
        rng: of the network's delays and losses.
        latency_s: mean time of each way.
    """

    def __init__(self, store: WatchedStore, rng: Generator, latency_s: float) -> None:
        self._store = store
        self._rng = rng
        self._latency_s = latency_s
        self._loop = virtual_loop()
        self.dead = False
        self.lossy = 0.0
        self.frozen_until_s = 0.0

    async def forget_readers(self, name: str, idle_ms: int, reader: str = "") -> None:
        """Nothing: the store in memory lists no readers, so that no call goes over the network."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        direct = name not in WAITING

        def call(*args: Any, **kwargs: Any) -> Any:
            # Called often, and most often with nothing that could come between.
            if direct and not (
                self.dead
                or self._latency_s
                or self.frozen_until_s
                or self.lossy
                or self._store.away
            ):
                return method(*args, **kwargs)
            return self._call_over_network(name, method, args, kwargs)

        # Found at once from now on.
        self.__dict__[name] = call
        return call

    async def _call_over_network(
        self, name: str, method: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        if self.dead or self._latency_s or self.frozen_until_s:
            await self._way()
        if self.lossy and self._rng.random() < self.lossy:
            raise StoreUnavailableError("the request was lost")
        if self._store.away:
            raise StoreUnavailableError("the store is away")
        reply = await method(*args, **kwargs)
        if self.lossy and self._rng.random() < self.lossy:
            if self._rng.random() < 0.5 and name in AMBIGUOUS:  # noqa: PLR2004
                # The client sent it again: it arrives twice.
                await self._way()
                return await method(*args, **kwargs)
            raise StoreUnavailableError("the reply was lost")
        if self.dead or self._latency_s or self.frozen_until_s:
            await self._way()
        return reply

    async def _way(self) -> None:
        if self._latency_s:
            await asyncio.sleep(float(self._rng.exponential(self._latency_s)))
        if (left_s := self.frozen_until_s - self._loop.now_s) > 0:
            await asyncio.sleep(left_s)
        if self.dead:
            raise StoreUnavailableError("this machine is gone")


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
