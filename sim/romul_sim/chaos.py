"""Everything breaks, in virtual time: the real actors and workers, thousands of schedules an hour.

A schedule of faults is a list of values, drawn from a seed; the same list is the same history, byte
for byte. When an invariant breaks, the list is shrunk to a shortest one that still breaks it.
"""

import asyncio
import contextvars
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from numpy.random import default_rng

from romul_actors.actor.loop import Actor
from romul_actors.client import Client as Operator
from romul_actors.protocol.experiment import Experiment
from romul_actors.waiting import cancel
from romul_sim.fakes import Client, Durations, Pace, Saved, SimulatedTrainer, WatchedStore
from romul_sim.golden import HistoryHash
from romul_sim.invariants import Violation, Watch
from romul_sim.virtual_time import Clock, DeadlockError, machine_clock, run
from romul_workers.tasks.toys import TOYS
from romul_workers.worker import Worker, WorkerSettings

NAME = "chaos"
PROBLEM = "misspecified"
LEASE_S = 10.0
TRIAL_S = 15.0
"""Longer than a lease: without heartbeats every trial would be lost."""
GRACE_S = 2.0
LATENCY_S = 0.01
SLOWER = 0.1
"""What is left of the speed of a machine that has become slow."""
DRIFT, AHEAD_S = 0.05, 1000.0
"""How wrong the machines' clocks are: up to this share too fast or too slow, and so far apart."""
CALM_S = 900.0
"""Longest time to the end after the last fault."""

KINDS = {
    "kill machine": 6,
    "notice to machine": 4,
    "freeze machine": 4,
    "slow machine": 2,
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
        history_sha256: of all lines of history, byte for byte.
        golden_sha256: of the same lines in their canonical form (`golden.py`).
    """

    violation: str
    history_sha256: str
    hours: float
    trials: int
    causes: dict[str, int]
    golden_sha256: str = ""


@dataclass(slots=True)
class _Process:
    """A worker or an actor in its place: a new one comes when it is gone."""

    place: int
    client: Client
    name: str
    stop: asyncio.Event
    task: asyncio.Task[None]
    pace: Pace


class _World:
    def __init__(self, chaos: Chaos) -> None:
        self.chaos = chaos
        self.checkpoints: dict[str, Saved] = {}
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
        self.excused: set[str] = set()
        self.watch = Watch(self.experiment, self.checkpoints, self.excused)
        self.workers: dict[int, _Process] = {}
        self.actors: dict[int, _Process] = {}
        self.later: set[asyncio.Task[None]] = set()
        self.broken: asyncio.Future[None] | None = None

    def next(self) -> int:
        self._made += 1
        return self._made

    async def play(self) -> Outcome:
        loop = asyncio.get_running_loop()
        golden = HistoryHash()
        self.store = WatchedStore({NAME: self.watch}, lambda _, line: golden.add(line))
        self.broken = loop.create_future()
        await Operator(self.store).submit(self.experiment)
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
        await cancel(playing, *everybody, *self.later)
        return Outcome(
            violation,
            self.store.history_sha256,
            round(ended_s / 3600, 4),
            self.watch.book.accepted,
            dict(sorted(self.watch.causes.items())),
            golden.hexdigest(),
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

    def guard(self, number: int, begin: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """A task with a clock of its own, whose violation ends the simulation."""
        rng = default_rng([self.chaos.seed, 4, number])
        clock = Clock(1.0 + float(rng.uniform(-DRIFT, DRIFT)), float(rng.uniform(0.0, AHEAD_S)))

        async def watched() -> None:
            try:
                await begin()
            except Violation as found:
                if self.broken is not None and not self.broken.done():
                    self.broken.set_exception(found)

        context = contextvars.copy_context()
        context.run(machine_clock.set, clock)
        return asyncio.create_task(watched(), context=context)

    def start_worker(self, place: int) -> None:
        number = self.next()
        name = f"worker-{number}"
        rng = default_rng([self.chaos.seed, 2, number])
        client = Client(self.store, rng, LATENCY_S)
        pace = Pace(float(2.0 ** rng.uniform(-1.0, 1.0)))
        made = WorkerSettings(
            name=name,
            allow=("simulated",),
            grace_s=GRACE_S,
            garbage_ms=int(1000 * LEASE_S * 4),
            host=f"machine-{place}",
            pid=1,
        )
        trainer = SimulatedTrainer(
            machine=made.host,
            toy=TOYS[PROBLEM],
            durations=Durations(TRIAL_S),
            checkpoints=self.checkpoints,
            watches=self.store.watches,
            pace=pace,
            rng=rng,
            numbers=self.next,
        )
        worker, stop = Worker(client, trainer, made), asyncio.Event()  # type: ignore[arg-type]
        task = self.guard(number, lambda: worker.run(stop))
        self.workers[place] = _Process(place, client, name, stop, task, pace)

    def start_actor(self, place: int) -> None:
        number = self.next()
        client = Client(self.store, default_rng([self.chaos.seed, 3, number]), LATENCY_S)
        name, stop = f"actor-{number}", asyncio.Event()
        actor = Actor(client, name)  # type: ignore[arg-type]
        task = self.guard(number, lambda: actor.run(stop))
        self.actors[place] = _Process(place, client, name, stop, task, Pace(1.0))

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
            self.store.lose_trial(NAME, fault.pick)
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
        process = processes[place]
        if what == "freeze":
            loop = asyncio.get_running_loop()
            process.client.frozen_until_s = loop.time() + 3 * fault.for_s
            self.excuse(process.name)
        elif what == "slow":
            process.pace.change(SLOWER)
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
        self.excuse(process.name)
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
            self.excuse(process.name)
        self.after(fault.for_s, lambda: _heal(hit))

    def away(self, for_s: float) -> None:
        self.store.away = True
        self.excuse_all()
        self.after(min(for_s, 30.0), lambda: setattr(self.store, "away", False))

    def excuse_all(self) -> None:
        """Also those that are gone: a store that goes back in time may know them again."""
        for number in range(self._made + 1):
            self.excuse(f"worker-{number}", f"actor-{number}")

    def excuse(self, *names: str) -> None:
        """Note that something was done to somebody, who may lose a trial now."""
        self.excused |= set(names)


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
    """Many simulations together.

    Attributes:
        golden: by seed, the hash of its history (`golden.py`).
    """

    runs: int = 0
    trials: int = 0
    hours: float = 0.0
    causes: Counter[str] = field(default_factory=Counter)
    broken: list[tuple[int, str]] = field(default_factory=list)
    golden: dict[int, str] = field(default_factory=dict)

    def add(self, seed: int, outcome: Outcome) -> None:
        """Count one."""
        self.runs += 1
        self.trials += outcome.trials
        self.causes += Counter(outcome.causes)
        self.golden[seed] = outcome.golden_sha256
        if outcome.violation:
            self.broken.append((seed, outcome.violation))
        else:
            self.hours += outcome.hours
