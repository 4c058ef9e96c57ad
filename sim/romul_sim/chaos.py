"""Everything breaks, in virtual time: the real actors and workers, thousands of schedules an hour.

A schedule of faults is a list of values, drawn from a seed; the same list is the same history, byte
for byte. When an invariant breaks, the list is shrunk to a shortest one that still breaks it.
"""

import asyncio
import copy
import hashlib
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from numpy.random import Generator, default_rng

from romul_actors.actor import Actor
from romul_actors.errors import StoreUnavailableError
from romul_actors.events import Submitted
from romul_actors.events import Trial as TrialMessage
from romul_actors.experiment import Experiment
from romul_actors.messages import encode
from romul_actors.store import Commit
from romul_actors.store.memory import MemoryStore
from romul_sim.invariants import Violation, Watch
from romul_sim.loop import DeadlockError, run
from romul_workers.tasks.toys import TOYS, State
from romul_workers.trainer import Ending, Stopped, Success, Trainer
from romul_workers.worker import Worker, WorkerSettings

NAME = "chaos"
PROBLEM = "misspecified"
LEASE_S = 10.0
TRIAL_S = 15.0
"""Longer than a lease: without heartbeats every trial would be lost."""
GRACE_S = 2.0
LATENCY_S = 0.01
CALM_S = 900.0
"""Longest time to the end after the last fault."""

KINDS = {
    "kill machine": 6,
    "notice to machine": 4,
    "freeze machine": 4,
    "lose zone": 1,
    "crash actor": 5,
    "freeze actor": 2,
    "lossy network": 4,
    "store away": 2,
    "store loses writes": 2,
    "store loses trial": 1,
}
"""Kinds of faults, with their weights."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at_s: when.
        kind: out of `KINDS`.
        pick: whom, in [0, 1).
        for_s: for how long; how much is lost, for lost writes.
    """

    at_s: float
    kind: str
    pick: float
    for_s: float


@dataclass(frozen=True, slots=True)
class Chaos:
    """A simulation.

    Attributes:
        seed: all randomness but the faults' own.
        faults: what breaks.
        machines, zones, actors: how many of each.
        population, steps: of the search.
    """

    seed: int
    faults: tuple[Fault, ...]
    machines: int = 6
    zones: int = 2
    actors: int = 2
    population: int = 6
    steps: int = 8


def draw(seed: int, n: int = 25, span_s: float = 240.0) -> Chaos:
    """A simulation whose faults come from a seed as well."""
    rng = default_rng([seed, 1])
    kinds, weights = list(KINDS), list(KINDS.values())
    chosen = rng.choice(kinds, n, p=[w / sum(weights) for w in weights])
    times = sorted(rng.uniform(0.0, span_s, n).tolist())
    faults = tuple(
        Fault(round(at, 3), str(kind), float(rng.random()), round(float(rng.exponential(8.0)), 3))
        for at, kind in zip(times, chosen, strict=True)
    )
    return Chaos(seed, faults)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a simulation went.

    Attributes:
        violation: what broke; empty if nothing did.
        history_sha256: of all lines of history.
    """

    violation: str
    history_sha256: str
    hours: float
    trials: int
    causes: dict[str, int]


class _WatchedStore(MemoryStore):
    """The one store of a simulation: every commit is looked at; it can go back in time."""

    def __init__(self, now_ms: Callable[[], int], watch: Watch) -> None:
        super().__init__(now_ms)
        self.watch = watch
        self.away = False
        self._kept: list[tuple[int, Any, Any]] = []

    async def commit(self, name: str, actor: str, commit: Commit) -> str | None:
        version = await super().commit(name, actor, commit)
        if version is not None:
            stored = await self.load(name)
            self.watch.committed(commit, stored.meta, stored.slots)
        return version

    def keep(self) -> None:
        """Remember how things stand, as a replica would."""
        now = self._now_ms()
        self._kept.append((now, copy.deepcopy(self._all), self.watch.book.copy()))
        self._kept = [kept for kept in self._kept if now - kept[0] < 30_000]  # noqa: PLR2004

    def lose(self, seconds: float) -> None:
        """Go back to the newest state that is so old; a replica took over without the rest."""
        limit = self._now_ms() - 1000 * seconds
        older = [kept for kept in self._kept if kept[0] <= limit] or self._kept[:1]
        if older:
            _, everything, book = older[-1]
            self._all, self.watch.book = copy.deepcopy(everything), book.copy()
            self.watch.rolled_back = True

    def lose_trial(self, pick: float) -> None:
        """Lose one entry, as a damaged file or a careless operator would."""
        trials = self._queue(NAME, "trials")
        if trials:
            del trials[sorted(trials)[int(pick * len(trials))]]
            self.watch.rolled_back = True


class _Client:
    """The store as one machine sees it: late, deaf, frozen or cut off at times."""

    def __init__(self, store: _WatchedStore, rng: Generator) -> None:
        self._store = store
        self._rng = rng
        self.dead = False
        self.lossy = 0.0
        self.frozen_until = 0.0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._way()
            if self._rng.random() < self.lossy:
                raise StoreUnavailableError("the request was lost")
            if self._store.away:
                raise StoreUnavailableError("the store is away")
            reply = await method(*args, **kwargs)
            if self._rng.random() < self.lossy:
                if self._rng.random() < 0.5 and name in ("settle", "beat", "present"):  # noqa: PLR2004
                    # The client asked again: what it sent arrives twice.
                    await self._way()
                    return await method(*args, **kwargs)
                raise StoreUnavailableError("the reply was lost")
            await self._way()
            return reply

        return call

    async def _way(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(float(self._rng.exponential(LATENCY_S)))
        await asyncio.sleep(max(0.0, self.frozen_until - loop.time()))
        if self.dead:
            raise StoreUnavailableError("this machine is gone")


@dataclass(slots=True)
class _Saved:
    """A checkpoint: the state at its trial's start or end, and where training stands."""

    state: State | None
    at: float


class _Trainer(Trainer):
    """Takes a trial's time; leaves a partial checkpoint when asked to stop."""

    def __init__(self, world: "_World", rng: Generator, speed: float) -> None:
        self._world = world
        self._rng = rng
        self._speed = speed
        self._stop = asyncio.Event()

    async def train(self, experiment: Experiment, trial: TrialMessage) -> Ending:
        del experiment
        world = self._world
        parent = world.checkpoints.get(trial.parent) if trial.parent is not None else None
        if trial.parent is not None and parent is None:
            raise Violation(f"trial {trial.id}: its parent {trial.parent} was removed")
        world.watch.trained(trial.id, trial.start, parent.at if parent is not None else 0.0)
        name = f"{trial.id}-{trial.attempt}-{world.next():x}"
        seconds = TRIAL_S * float(self._rng.lognormal(0.0, 0.3)) / self._speed
        left = seconds * (trial.stop - trial.start)
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(left):
                await self._stop.wait()
        except TimeoutError:
            pass
        else:
            gone = asyncio.get_running_loop().time() - began
            at = trial.start + 0.9 * min(1.0, gone / left) * (trial.stop - trial.start)
            world.checkpoints[name] = _Saved(None if parent is None else parent.state, at)
            return Stopped(name, at)
        toy = TOYS[PROBLEM]
        before = None if parent is None else parent.state
        stepped = toy.step(before, trial.hyperparameters, trial.step, default_rng(trial.seed))
        world.checkpoints[name] = _Saved(stepped.state, trial.stop)
        return Success(stepped.observed, name)

    def ask_to_stop(self) -> None:
        self._stop.set()

    async def discard(self, experiment: Experiment, checkpoint: str) -> None:
        del experiment
        self._world.checkpoints.pop(checkpoint, None)

    async def close(self) -> None:
        return None


@dataclass(slots=True)
class _Process:
    """A worker or an actor in its place: a new one comes when it is gone."""

    place: int
    client: _Client
    name: str
    stop: asyncio.Event
    task: asyncio.Task[None]


class _World:
    def __init__(self, chaos: Chaos) -> None:
        self.chaos = chaos
        self.checkpoints: dict[str, _Saved] = {}
        self._made = 0
        self.experiment = Experiment.model_validate(
            {
                "name": NAME,
                "task": "simulated",
                "space": TOYS[PROBLEM].space,
                "population": chaos.population,
                "steps": chaos.steps,
                "seed": chaos.seed,
                "checkpoints": "memory://simulated",
                "max_losses": 1_000,
                "elasticity": {"max": chaos.population + 2, "per_worker": 2},
                "timeouts": {"lease_s": LEASE_S, "quorum_s": 30},
            }
        )
        self.watch = Watch(self.experiment, self.checkpoints)
        self.workers: dict[int, _Process] = {}
        self.actors: dict[int, _Process] = {}
        self.later: set[asyncio.Task[None]] = set()
        self.broken: asyncio.Future[None] | None = None

    def next(self) -> int:
        self._made += 1
        return self._made

    async def play(self) -> Outcome:
        loop = asyncio.get_running_loop()
        self.store = _WatchedStore(lambda: int(1000 * loop.time()), self.watch)
        self.broken = loop.create_future()
        spec = self.experiment.model_dump_json()
        await self.store.create(NAME, spec, encode(Submitted()))
        for place in range(self.chaos.actors):
            self.start_actor(place)
        for place in range(self.chaos.machines):
            self.start_worker(place)
        violation = ""
        playing = asyncio.create_task(self.to_the_end())
        await asyncio.wait({playing, self.broken}, return_when=asyncio.FIRST_COMPLETED)
        try:
            for done in (self.broken, playing):
                if done.done():
                    done.result()
        except Violation as found:
            violation = str(found)
        ended_s = loop.time()
        everybody = [p.task for p in (*self.workers.values(), *self.actors.values())]
        for task in (playing, *everybody, *self.later):
            task.cancel()
        await asyncio.gather(playing, *everybody, *self.later, return_exceptions=True)
        lines = [line for _, line in await self.store.history(NAME, count=10**9)]
        return Outcome(
            violation,
            hashlib.sha256("\n".join(lines).encode()).hexdigest(),
            round(ended_s / 3600, 4),
            len(self.watch.book.accepted),
            dict(sorted(self.watch.causes.items())),
        )

    async def to_the_end(self) -> None:
        loop = asyncio.get_running_loop()
        keeping = asyncio.create_task(self.keep())
        self.later.add(keeping)
        for fault in self.chaos.faults:
            await asyncio.sleep(max(0.0, fault.at_s - loop.time()))
            self.inflict(fault)
        limit = loop.time() + CALM_S
        while loop.time() < limit:
            statuses = await self.store.experiments()
            if statuses[NAME] == "finished":
                # What was under way without the population's knowing ends in its own time.
                await asyncio.sleep(4 * LEASE_S)
                break
            await asyncio.sleep(1.0)
        statuses = await self.store.experiments()
        self.watch.ended(statuses[NAME], await self.store.depths(NAME))

    async def keep(self) -> None:
        while True:
            self.store.keep()
            await asyncio.sleep(1.0)

    # -- processes ------------------------------------------------------------------------------

    def guard(self, begin: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """A task whose violation ends the simulation."""

        async def watched() -> None:
            try:
                await begin()
            except Violation as found:
                if self.broken is not None and not self.broken.done():
                    self.broken.set_exception(found)

        return asyncio.create_task(watched())

    def start_worker(self, place: int) -> None:
        number = self.next()
        rng = default_rng([self.chaos.seed, 2, number])
        client = _Client(self.store, rng)
        speed = float(2.0 ** rng.uniform(-1.0, 1.0))
        name = f"worker-{number}"
        made = WorkerSettings(
            name=name,
            allow=("simulated",),
            grace_s=GRACE_S,
            garbage_ms=int(1000 * LEASE_S * 4),
            host=f"machine-{place}",
            pid=1,
        )
        worker = Worker(client, _Trainer(self, rng, speed), made)  # type: ignore[arg-type]
        stop = asyncio.Event()
        task = self.guard(lambda: worker.run(stop))
        self.workers[place] = _Process(place, client, name, stop, task)

    def start_actor(self, place: int) -> None:
        number = self.next()
        client = _Client(self.store, default_rng([self.chaos.seed, 3, number]))
        name, stop = f"actor-{number}", asyncio.Event()
        actor = Actor(client, name)  # type: ignore[arg-type]
        self.actors[place] = _Process(
            place, client, name, stop, self.guard(lambda: actor.run(stop))
        )

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            do()

        task = asyncio.create_task(wait())
        self.later.add(task)
        task.add_done_callback(self.later.discard)

    # -- faults ---------------------------------------------------------------------------------

    def inflict(self, fault: Fault) -> None:
        what, _, whom = fault.kind.rpartition(" ")
        if fault.kind == "store away":
            self.away(fault.for_s)
        elif fault.kind == "store loses writes":
            self.excuse_all()
            self.store.lose(min(fault.for_s, 5.0))
        elif fault.kind == "store loses trial":
            self.store.lose_trial(fault.pick)
        elif fault.kind == "lossy network":
            self.lossy(fault)
        elif fault.kind == "lose zone":
            zone = int(fault.pick * self.chaos.zones)
            for place in list(self.workers):
                if place % self.chaos.zones == zone:
                    self.kill(self.workers, place, fault.for_s, self.start_worker)
        elif whom == "actor":
            self.strike(what, self.actors, fault, self.start_actor)
        else:
            self.strike(what, self.workers, fault, self.start_worker)

    def strike(
        self,
        what: str,
        processes: dict[int, _Process],
        fault: Fault,
        start: Callable[[int], None],
    ) -> None:
        if not processes:
            return
        place = sorted(processes)[int(fault.pick * len(processes))]
        if what == "freeze":
            process = processes[place]
            process.client.frozen_until = asyncio.get_running_loop().time() + 3 * fault.for_s
            self.watch.excused.add(process.name)
        elif what == "notice to":
            self.notice(place, fault.for_s)
        else:
            self.kill(processes, place, fault.for_s, start)

    def kill(
        self,
        processes: dict[int, _Process],
        place: int,
        for_s: float,
        start: Callable[[int], None],
    ) -> None:
        process = processes.pop(place)
        self.watch.excused.add(process.name)
        process.client.dead = True
        process.task.cancel()
        self.later.add(process.task)
        self.after(for_s, lambda: start(place))

    def notice(self, place: int, for_s: float) -> None:
        """The machine goes, and its worker has the time to give its trial back."""
        process = self.workers.pop(place)
        process.stop.set()
        self.later.add(process.task)
        self.after(GRACE_S + 3.0 + for_s, lambda: self.start_worker(place))

    def lossy(self, fault: Fault) -> None:
        """Every message of some processes may be lost, or be sent twice, for a while."""
        everybody = [*self.workers.values(), *self.actors.values()]
        hit = everybody[:: 1 + int(3 * fault.pick)]
        for process in hit:
            process.client.lossy = 0.3
            self.watch.excused.add(process.name)
        self.after(fault.for_s, lambda: _heal(hit))

    def away(self, for_s: float) -> None:
        self.store.away = True
        self.excuse_all()
        self.after(min(for_s, 30.0), lambda: setattr(self.store, "away", False))

    def excuse_all(self) -> None:
        """Also those that are gone: a store that goes back in time may know them again."""
        for number in range(self._made + 1):
            self.watch.excused |= {f"worker-{number}", f"actor-{number}"}


def _heal(hit: Sequence[_Process]) -> None:
    for process in hit:
        process.client.lossy = 0.0


def play(chaos: Chaos) -> Outcome:
    """Play a simulation to its end, or to the first violation."""
    try:
        return run(_World(chaos).play())
    except DeadlockError as error:
        return Outcome(f"everybody waits for somebody else: {error}", "", math.nan, 0, {})


def shrink(chaos: Chaos, broken: Callable[[Chaos], bool]) -> Chaos:
    """A shortest list of the same faults that still breaks (delta debugging, Zeller 1999)."""
    faults, n = list(chaos.faults), 2
    while len(faults) >= 2:  # noqa: PLR2004
        size = math.ceil(len(faults) / n)
        parts = [faults[i : i + size] for i in range(0, len(faults), size)]
        for part in parts:
            rest = [fault for fault in faults if fault not in part]
            smaller = Chaos(**{**_fields(chaos), "faults": tuple(rest)})
            if broken(smaller):
                faults, n = rest, max(2, n - 1)
                break
        else:
            if n >= len(faults):
                break
            n = min(len(faults), 2 * n)
    only = Chaos(**{**_fields(chaos), "faults": ()})
    return only if broken(only) else Chaos(**{**_fields(chaos), "faults": tuple(faults)})


def _fields(chaos: Chaos) -> dict[str, Any]:
    return {name: getattr(chaos, name) for name in Chaos.__dataclass_fields__}


def to_json(chaos: Chaos) -> str:
    """A simulation as JSON, to be played again."""
    return json.dumps(asdict(chaos))


def from_json(text: str) -> Chaos:
    """Read a simulation.

    Raises:
        ValueError: it is none.
    """
    try:
        content = json.loads(text)
        faults = tuple(Fault(**fault) for fault in content.pop("faults"))
        return Chaos(faults=faults, **content)
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a simulation: {error}") from None


@dataclass(slots=True)
class Sweep:
    """Many simulations together."""

    runs: int = 0
    trials: int = 0
    hours: float = 0.0
    causes: Counter[str] = field(default_factory=Counter)
    broken: list[tuple[int, str]] = field(default_factory=list)

    def add(self, seed: int, outcome: Outcome) -> None:
        """Count one."""
        self.runs += 1
        self.trials += outcome.trials
        self.causes += Counter(outcome.causes)
        if outcome.violation:
            self.broken.append((seed, outcome.violation))
        else:
            self.hours += outcome.hours
