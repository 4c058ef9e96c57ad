"""One simulation with faults in all parts: the real actors and workers, in virtual time.

The same schedule gives the same history, byte for byte.
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
from romul_sim.cluster.cluster import Cluster, Process, WorkerProcess, wrong_clock
from romul_sim.cluster.invariants import Excuses, Violation
from romul_sim.cluster.network import MachineStore
from romul_sim.cluster.training import Durations
from romul_sim.cluster.virtual_time import Clock, DeadlockError, run, virtual_loop
from romul_sim.faults import Fault
from romul_sim.golden import HistoryHash
from romul_workers.tasks.toys import TOYS
from romul_workers.worker.settings import WorkerSettings

P = TypeVar("P", bound=Process)

NAME = "chaos"
PROBLEM = "misspecified"
LEASE_S = 10.0
TRIAL_S = 15.0
"""Longer than a lease, so that every trial would be lost without heartbeats."""
LOAD_S = 0.5
"""Time of a restore that is not warm. It makes trials be offered first to the worker that has
their parent."""
SAVE_S = 12.0
"""With second leases: time to store a checkpoint beside the next trial. Longer than a lease and the
grace period, but shorter than a trial."""
GRACE_S = 2.0
LATENCY_S = 0.01
SLOWER = 0.1
"""Speed of a machine that has become slow."""
LONGEST_AWAY_S, MOST_LOST_S = 30.0, 5.0
"""Longest outage of the store, and most of its last seconds that it loses."""
DRIFT, AHEAD_S = 0.05, 1000.0
"""Errors of the machines' clocks: the largest relative error of the rate, and the largest offset in
seconds."""
CALM_S = 900.0
"""Longest time from the last fault to the end of the search."""


@dataclass(frozen=True, slots=True)
class Endured:
    """The result of a simulation.

    Attributes:
        violation: the invariant that did not hold; "": all invariants held.
        history_sha256: hash of all lines of history, byte for byte.
        hours: duration in virtual time.
        trials: number of accepted results.
        causes: number of attempts that ended without a result, by cause.
        golden_sha256: hash of the same lines in canonical form (`golden.py`).
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
        overlap: whether checkpoints take long to store, and workers train other trials meanwhile.
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
        """Inflict all faults, wait for the end of the search, and check what is left."""
        loop = virtual_loop()
        self.keep(self.guard(self.replicate))
        for fault in self.chaos.faults:
            await asyncio.sleep(max(0.0, fault.at_s - loop.now_s))
            self.inflict(fault)
        limit = loop.now_s + CALM_S
        while loop.now_s < limit:
            statuses = await self.store.experiments()
            if statuses[NAME] == "finished":
                # Wait for attempts that no longer count.
                await asyncio.sleep(4 * LEASE_S)
                break
            await asyncio.sleep(1.0)
        statuses = await self.store.experiments()
        self.watch.ended(statuses[NAME], await self.store.depths(NAME))

    async def replicate(self) -> None:
        """Keep copies of the store, to which a failover may return."""
        while True:
            self.store.keep()
            await asyncio.sleep(1.0)

    # -- processes ------------------------------------------------------------------------------

    def clock(self, number: int) -> Clock:
        """The clock of the machine of process `number`."""
        return wrong_clock(default_rng([self.chaos.seed, 4, number]), DRIFT, AHEAD_S)

    def place_worker(self, place: int) -> None:
        """Start a new worker on machine `place`."""
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
        """Start a new actor on machine `place`."""
        number = self.next_number()
        store = MachineStore(self.store, default_rng([self.chaos.seed, 3, number]), LATENCY_S)
        self.actors[place] = self.start_actor(f"actor-{number}", store, self.clock(number))

    # -- faults ---------------------------------------------------------------------------------

    def inflict(self, fault: Fault) -> None:
        """Inflict a fault."""
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
        """Freeze or kill one of the processes, if there are any."""
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
        """Kill a process; after `for_s` seconds a new one starts in its place."""
        self.kill(processes.pop(place))
        self.after(for_s, lambda: start(place))

    def lose_zone(self, fault: Fault) -> None:
        """Kill all machines of a zone."""
        zone = int(fault.pick * self.chaos.zones)
        for place in list(self.workers):
            if place % self.chaos.zones == zone:
                self.kill_and_replace(self.workers, place, fault.for_s, self.place_worker)

    def notice(self, place: int, for_s: float) -> None:
        """Give a machine notice; its worker has time to give its trial back."""
        process = self.workers.pop(place)
        process.stop.set()
        self.keep(process.task)
        self.after(GRACE_S + 3.0 + for_s, lambda: self.place_worker(place))

    def lossy(self, fault: Fault) -> None:
        """Make the network of some processes lose or repeat messages for a while."""
        processes: list[Process] = [*self.workers.values(), *self.actors.values()]
        now_s = virtual_loop().now_s
        until_s = now_s + fault.for_s
        for process in processes[:: 1 + int(3 * fault.pick)]:
            process.store.lossy_until_s = max(until_s, process.store.lossy_until_s)
            self.excuses.strike(now_s, until_s, process.name)

    def away(self, for_s: float) -> None:
        """Make the store unreachable for a while."""
        now_s = virtual_loop().now_s
        until_s = now_s + min(for_s, LONGEST_AWAY_S)
        self.store.away_until_s = max(until_s, self.store.away_until_s)
        self.excuses.strike(now_s, until_s)

    def lose_writes(self, seconds: float) -> None:
        """Let the store go back in time; leases then lose their latest heartbeats."""
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
    """The place of the process that `pick`, in [0, 1), selects."""
    return sorted(processes)[int(pick * len(processes))]


def play(chaos: Chaos, *, overlap: bool = False) -> Endured:
    """Run a simulation to its end, or to the first violation.

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
    """Sums over many simulations.

    Attributes:
        runs: number of simulations.
        trials: number of accepted results.
        hours: virtual time of the simulations without a violation.
        causes: number of attempts that ended without a result, by cause.
        broken: seed and violation of each simulation that had one.
        golden: hash of the history (`golden.py`), by seed.
    """

    runs: int = 0
    trials: int = 0
    hours: float = 0.0
    causes: Counter[str] = field(default_factory=Counter)
    broken: list[tuple[int, str]] = field(default_factory=list)
    golden: dict[int, str] = field(default_factory=dict)

    def add(self, seed: int, endured: Endured) -> None:
        """Add one simulation."""
        self.runs += 1
        self.trials += endured.trials
        self.causes += Counter(endured.causes)
        self.golden[seed] = endured.golden_sha256
        if endured.violation:
            self.broken.append((seed, endured.violation))
        else:
            self.hours += endured.hours
