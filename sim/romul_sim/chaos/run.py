"""One simulation in which everything breaks: the real actors and workers, in virtual time.

The same schedule is the same history, byte for byte.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TypeVar

from numpy.random import default_rng

from romul_actors.core.history import Line
from romul_actors.protocol.experiment import Experiment
from romul_sim.chaos.schedule import Chaos
from romul_sim.cluster import Cluster, Process, WorkerProcess, wrong_clock
from romul_sim.fakes import Durations
from romul_sim.faults import Fault
from romul_sim.golden import HistoryHash
from romul_sim.invariants import Excuses, Violation
from romul_sim.network import MachineStore
from romul_sim.virtual_time import Clock, DeadlockError, run, virtual_loop
from romul_workers.tasks.toys import TOYS
from romul_workers.worker import WorkerSettings

P = TypeVar("P", bound=Process)

NAME = "chaos"
PROBLEM = "misspecified"
LEASE_S = 10.0
TRIAL_S = 15.0
"""Longer than a lease: without heartbeats every trial would be lost."""
LOAD_S = 0.5
"""What a restore takes that is not warm: trials are offered first to the worker that holds their
parent."""
SAVE_S = 12.0
"""With a second lease: how long a checkpoint takes to be stored, beside the next trial. Longer than
a lease and than the grace period, shorter than a trial."""
GRACE_S = 2.0
LATENCY_S = 0.01
SLOWER = 0.1
"""What is left of the speed of a machine that has become slow."""
LONGEST_AWAY_S, MOST_LOST_S = 30.0, 5.0
"""How long the store is away at most, and how much of its past it loses at most."""
DRIFT, AHEAD_S = 0.05, 1000.0
"""How wrong the machines' clocks are: up to this share too fast or too slow, and so far apart."""
CALM_S = 900.0
"""Longest time to the end after the last fault."""


@dataclass(frozen=True, slots=True)
class Endured:
    """How a simulation went.

    Attributes:
        violation: what broke; empty if nothing did.
        history_sha256: of all lines of history, byte for byte.
        hours: how long it took, in virtual time.
        trials: how many results were accepted.
        causes: by cause, how many attempts ended without a result.
        golden_sha256: of the same lines in their canonical form (`golden.py`).
    """

    violation: str
    history_sha256: str
    hours: float
    trials: int
    causes: dict[str, int]
    golden_sha256: str = ""


class ChaosCluster(Cluster):
    """A cluster whose machines, actors, network and store break as a schedule says.

    Args:
        chaos: the schedule.
        overlap: whether checkpoints take long to store, and workers train meanwhile.
    """

    def __init__(self, chaos: Chaos, *, overlap: bool = False) -> None:
        super().__init__([_experiment(chaos)], Excuses())
        self.chaos = chaos
        self.overlap = overlap
        self.watch = self.watches[NAME]
        self.golden = HistoryHash()
        self.workers: dict[int, WorkerProcess] = {}
        self.actors: dict[int, Process] = {}

    def on_line(self, name: str, line: Line) -> None:
        """Hash a line of history."""
        del name
        self.golden.add(line)

    async def play(self) -> Endured:
        """Play the schedule to the end of the search, or to the first violation."""
        await self.open()
        for place in range(self.chaos.actors):
            self.place_actor(place)
        for place in range(self.chaos.machines):
            self.place_worker(place)
        violation = ""
        playing = asyncio.create_task(self.to_the_end())
        await asyncio.wait({playing, self.over}, return_when=asyncio.FIRST_COMPLETED)
        try:
            for done in (self.over, playing):
                if done.done():
                    done.result()
        except Violation as found:
            violation = str(found)
        ended_s = virtual_loop().now_s
        await self.close([*self.workers.values(), *self.actors.values()], playing)
        return Endured(
            violation,
            self.store.history_sha256,
            round(ended_s / 3600, 4),
            self.watch.book.accepted,
            dict(sorted(self.watch.causes.items())),
            self.golden.hexdigest(),
        )

    async def to_the_end(self) -> None:
        """Let everything break, then check what is left when the search has ended."""
        loop = virtual_loop()
        self.keep(self.guard(self.replicate))
        for fault in self.chaos.faults:
            await asyncio.sleep(max(0.0, fault.at_s - loop.now_s))
            self.inflict(fault)
        limit = loop.now_s + CALM_S
        while loop.now_s < limit:
            statuses = await self.store.experiments()
            if statuses[NAME] == "finished":
                # Work that the population does not know of ends in its own time.
                await asyncio.sleep(4 * LEASE_S)
                break
            await asyncio.sleep(1.0)
        statuses = await self.store.experiments()
        self.watch.ended(statuses[NAME], await self.store.depths(NAME))

    async def replicate(self) -> None:
        """Keep copies of the store, to which a fail-over may go back."""
        while True:
            self.store.keep()
            await asyncio.sleep(1.0)

    # -- processes ------------------------------------------------------------------------------

    def clock(self, number: int) -> Clock:
        """The clock of a process's machine."""
        return wrong_clock(default_rng([self.chaos.seed, 4, number]), DRIFT, AHEAD_S)

    def place_worker(self, place: int) -> None:
        """Start a new worker in a place."""
        number = self.next_number()
        rng = default_rng([self.chaos.seed, 2, number])
        store = MachineStore(self.store, rng, LATENCY_S)
        speed = float(2.0 ** rng.uniform(-1.0, 1.0))
        settings = WorkerSettings(
            name=f"worker-{number}",
            allow=("simulated",),
            grace_s=GRACE_S,
            garbage_ms=int(1000 * LEASE_S * 4),
            host=f"machine-{place}",
            pid=1,
            overlap=self.overlap,
        )
        self.workers[place] = self.start_worker(
            settings,
            TOYS[PROBLEM],
            Durations(
                TRIAL_S,
                load_s=LOAD_S,
                save_s=SAVE_S if self.overlap else 0.0,
                beside=self.overlap,
            ),
            store=store,
            speed=speed,
            clock=self.clock(number),
        )

    def place_actor(self, place: int) -> None:
        """Start a new actor in a place."""
        number = self.next_number()
        store = MachineStore(self.store, default_rng([self.chaos.seed, 3, number]), LATENCY_S)
        self.actors[place] = self.start_actor(f"actor-{number}", store, self.clock(number))

    # -- faults ---------------------------------------------------------------------------------

    def inflict(self, fault: Fault) -> None:
        """Let a fault strike."""
        match fault.kind:
            case "store away":
                self.away(fault.for_s)
            case "store loses writes":
                self.lose_writes(fault.for_s)
            case "store loses trial":
                self.store.lose_trial(NAME, fault.pick)
            case "lossy network":
                self.lossy(fault)
            case "lose zone":
                self.lose_zone(fault)
            case "crash actor" | "freeze actor":
                self.strike(fault, self.actors, self.place_actor)
            case "slow machine" if self.workers:
                self.workers[_chosen(self.workers, fault.pick)].pace.change(SLOWER)
            case "notice to machine" if self.workers:
                self.notice(_chosen(self.workers, fault.pick), fault.for_s)
            case "kill machine" | "freeze machine":
                self.strike(fault, self.workers, self.place_worker)

    def strike(
        self, fault: Fault, processes: MutableMapping[int, P], start: Callable[[int], None]
    ) -> None:
        """Freeze or kill one of several processes, if there is one."""
        if not processes:
            return
        place = _chosen(processes, fault.pick)
        if not fault.kind.startswith("freeze"):
            self.kill_and_replace(processes, place, fault.for_s, start)
            return
        self.freeze(processes[place], 3 * fault.for_s)

    def kill_and_replace(
        self,
        processes: MutableMapping[int, P],
        place: int,
        for_s: float,
        start: Callable[[int], None],
    ) -> None:
        """Kill a process; after a while a new one starts in its place."""
        self.kill(processes.pop(place))
        self.after(for_s, lambda: start(place))

    def lose_zone(self, fault: Fault) -> None:
        """Kill all machines of a zone."""
        zone = int(fault.pick * self.chaos.zones)
        for place in list(self.workers):
            if place % self.chaos.zones == zone:
                self.kill_and_replace(self.workers, place, fault.for_s, self.place_worker)

    def notice(self, place: int, for_s: float) -> None:
        """Warn a machine that it will go: its worker has the time to give its trial back."""
        process = self.workers.pop(place)
        process.stop.set()
        self.keep(process.task)
        self.after(GRACE_S + 3.0 + for_s, lambda: self.place_worker(place))

    def lossy(self, fault: Fault) -> None:
        """Every message of some processes may be lost, or be sent twice, for a while."""
        processes: list[Process] = [*self.workers.values(), *self.actors.values()]
        now_s = virtual_loop().now_s
        until_s = now_s + fault.for_s
        for process in processes[:: 1 + int(3 * fault.pick)]:
            process.store.lossy_until_s = max(until_s, process.store.lossy_until_s)
            self.excuses.strike(now_s, until_s, process.name)

    def away(self, for_s: float) -> None:
        """Take the store away for a while."""
        now_s = virtual_loop().now_s
        until_s = now_s + min(for_s, LONGEST_AWAY_S)
        self.store.away_until_s = max(until_s, self.store.away_until_s)
        self.excuses.strike(now_s, until_s)

    def lose_writes(self, seconds: float) -> None:
        """Let the store go back in time: leases may be as they were before their last heartbeat."""
        now_s = virtual_loop().now_s
        self.store.lose(min(seconds, MOST_LOST_S))
        self.excuses.strike(now_s, now_s)


def _experiment(chaos: Chaos) -> Experiment:
    return Experiment.model_validate(
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


def _chosen(processes: Mapping[int, Process], pick: float) -> int:
    """The place of one of several processes."""
    return sorted(processes)[int(pick * len(processes))]


def play(chaos: Chaos, *, overlap: bool = False) -> Endured:
    """Play a simulation to its end, or to the first violation.

    Args:
        chaos: the schedule.
        overlap: see `ChaosCluster`.
    """
    try:
        return run(ChaosCluster(chaos, overlap=overlap).play())
    except DeadlockError as error:
        return Endured(f"every process waits for another one: {error}", "", math.nan, 0, {})


@dataclass(slots=True)
class Totals:
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

    def add(self, seed: int, endured: Endured) -> None:
        """Count one."""
        self.runs += 1
        self.trials += endured.trials
        self.causes += Counter(endured.causes)
        self.golden[seed] = endured.golden_sha256
        if endured.violation:
            self.broken.append((seed, endured.violation))
        else:
            self.hours += endured.hours
