"""A simulation: searches on machines that come and go, in virtual time (`romul sim`)."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from numpy.random import default_rng

from romul_actors.actor.loop import Actor
from romul_actors.actor.timing import TICKS_A_TRIAL
from romul_actors.core.history import (
    Line,
    SearchFailed,
    SearchFinished,
    SecondCopyStarted,
    TrialCreated,
    TrialFailed,
    TrialReleased,
    TrialReported,
)
from romul_actors.waiting import cancel
from romul_sim.churn.ledger import Ledger, MachineTime
from romul_sim.churn.scenario import LOOKS_A_LEASE, Scenario, experiment, longest_pace_s
from romul_sim.churn.trace import Change, with_notice
from romul_sim.cluster.cluster import Cluster, WorkerProcess, wrong_clock
from romul_sim.cluster.invariants import Excuses, Violation
from romul_sim.cluster.network import MachineStore
from romul_sim.cluster.virtual_time import run, virtual_loop
from romul_sim.golden import HistoryHash
from romul_workers.tasks.toys import TOYS
from romul_workers.worker.settings import WorkerSettings

LATENCIES_A_LEASE = 100
"""If a lease is at least this number of mean latencies, no heartbeat is late by chance."""
LEASES_AFTER = 4
"""Time after the end of the searches until all leases and reports must be gone, in leases."""
DRIFT, AHEAD_S = 0.01, 60.0
"""Errors of the machines' clocks: the largest relative error of the rate, and the largest offset in
seconds."""


# Without repr: asyncio formats the result of a main task, which would be megabytes here.
@dataclass(frozen=True, slots=True, repr=False)
class Simulated:
    """The result of a simulation.

    Attributes:
        figures: the figures, as JSON values.
        ledger: the accounts of the machines' time.
        history: lines of history by search, if they were requested.
    """

    figures: dict[str, Any]
    ledger: Ledger
    history: dict[str, list[Line]]


class Simulation(Cluster):
    """One scenario on a cluster."""

    def __init__(self, scenario: Scenario) -> None:
        experiments = [experiment(scenario, number) for number in range(scenario.searches)]
        # If messages take long, heartbeats may be late without any fault.
        slow = scenario.latency_s * LATENCIES_A_LEASE > scenario.policy.lease_s
        super().__init__(experiments, Excuses(everything=slow))
        self.scenario = scenario
        self.ledger = Ledger(keep=scenario.picture)
        self.machines: dict[str, tuple[WorkerProcess, MachineTime]] = {}
        self.history: dict[str, list[Line]] = {}
        self.golden = HistoryHash() if scenario.golden else None
        self.second_copies = 0
        self.faults: Counter[str] = Counter()
        self.ended: set[str] = set()
        self.best = math.inf
        self.violation: Violation | None = None
        self.pace_s = longest_pace_s(scenario)

    async def play(self) -> Simulated:
        """Run until all searches have ended, or the last machine is gone."""
        await self.open()
        # Ticks are as frequent as in production, because they end the wait for slow trials.
        tick_s = self.scenario.durations.trial_s / TICKS_A_TRIAL
        self.actor = Actor(self.store, "actor", pace_s=min(self.pace_s, tick_s / 2))
        stop = asyncio.Event()
        acting = self.guard(lambda: self.actor.run(stop))
        churning = self.guard(self.churn)
        try:
            async with asyncio.timeout(self.scenario.until_s):
                await self.over
        except TimeoutError:
            pass
        except Violation as found:
            self.violation = found
        ended_s = virtual_loop().now_s
        await cancel(churning)
        self.ledger.end(ended_s)
        if self.violation is None and len(self.ended) == len(self.experiments):
            try:
                await self.check_end()
            except Violation as found:
                self.violation = found
        await self.close((machine for machine, _ in self.machines.values()), acting)
        return Simulated(await self.figures(ended_s), self.ledger, self.history)

    async def check_end(self) -> None:
        """Check that ended searches leave nothing behind.

        Attempts that are no longer needed may still end; no figure counts their time.

        Raises:
            Violation: something is left that must not be.
        """
        loop, lease_s = virtual_loop(), self.scenario.policy.lease_s
        self.store.closed, self.over = True, loop.create_future()
        limit_s = loop.now_s + LEASES_AFTER * lease_s
        while loop.now_s < limit_s and any(sum(self.left(name).values()) for name in self.watches):
            await asyncio.wait({self.over}, timeout=lease_s / LOOKS_A_LEASE)
            if self.over.done():
                self.over.result()
        statuses = await self.store.experiments()
        for name, watch in self.watches.items():
            if statuses[name] != "failed":
                watch.ended(statuses[name], self.left(name))

    def left(self, name: str) -> dict[str, int]:
        """Number of messages of a search that are left, by queue.

        A second copy that no worker had leased when the search ended does not count: it stays,
        because workers take trials only of searches that go on.
        """
        memory = self.store.memory
        return {
            "inbox": len(memory.queue(name, "inbox")),
            "trials": len(memory.queue(name, "trials").pending),
        }

    def on_line(self, name: str, line: Line) -> None:
        """Keep the accounts, and end the simulation when all searches have ended."""
        self.ledger.judge(name, line)
        if self.golden is not None:
            self.golden.add(line, name)
        if self.scenario.history:
            self.history.setdefault(name, []).append(line)
        match line:
            case TrialReported() if line.metrics["true_loss"] < self.best:
                self.best = line.metrics["true_loss"]
                now_s = virtual_loop().now_s
                self.ledger.to(now_s)
                self.ledger.curve.append((now_s, self.ledger.dollars, self.best))
            case TrialFailed() | TrialReleased():
                self.faults[line.reason] += 1
            case SecondCopyStarted():
                self.second_copies += 1
            case SearchFinished() | SearchFailed():
                self.ended.add(name)
                if len(self.ended) == len(self.experiments):
                    self.finish()
        if self.scenario.picture and isinstance(line, TrialCreated | TrialReported):
            self.note_sizes()

    def note_sizes(self) -> None:
        """Record the number of machines and of active slots."""
        slots = sum(len(watch.book.parents) for watch in self.watches.values())
        sizes, now = self.ledger.sizes, (self.ledger.machines, slots)
        if not sizes or sizes[-1][1:] != now:
            sizes.append((virtual_loop().now_s, *now))

    # -- machines -------------------------------------------------------------------------------

    async def churn(self) -> None:
        """Let machines arrive, change and leave as the scenario says."""
        loop, scenario = virtual_loop(), self.scenario
        changes = scenario.changes
        if scenario.notice_s:
            changes = with_notice(changes, scenario.notice_s)
        for change in changes:
            if change.at_s > loop.now_s:
                await asyncio.sleep(change.at_s - loop.now_s)
            if change.what == "arrives":
                self.arrive(change)
            elif change.machine in self.machines:
                self.change(*self.machines[change.machine], change)
            if scenario.picture:
                self.note_sizes()
        if not self.machines:
            self.finish()

    def arrive(self, change: Change) -> None:
        """Start a machine, which is paid for from now on, and its worker."""
        scenario, policy = self.scenario, self.scenario.policy
        if change.machine in self.machines:
            return
        number = self.next_number()
        rng = default_rng([scenario.seed, number])
        speed = change.speed
        if speed is None:
            speed = float(scenario.speeds ** rng.uniform(-0.5, 0.5))
        price = scenario.price if change.price is None else change.price
        time = self.ledger.arrive(change.machine, change.zone, price, virtual_loop().now_s)
        time.change(virtual_loop().now_s, speed)
        settings = WorkerSettings(
            # A machine that comes back has a new worker.
            name=f"{change.machine}-{number}",
            allow=("simulated",),
            experiments=(f"search-{number % scenario.searches}" if scenario.apart else "*",),
            grace_s=policy.grace_s,
            garbage_ms=int(2000 * policy.lease_s),
            pace_s=self.pace_s,
            host=change.machine,
            pid=1,
        )
        machine = self.start_worker(
            settings,
            TOYS[scenario.problem],
            scenario.durations,
            store=MachineStore(self.store, rng, scenario.latency_s),
            speed=speed,
            clock=wrong_clock(rng, DRIFT, AHEAD_S),
            on_span=time.span,
        )
        self.machines[change.machine] = machine, time

    def change(self, machine: WorkerProcess, time: MachineTime, change: Change) -> None:
        """Apply a change to a machine that is there."""
        now_s = virtual_loop().now_s
        if change.what == "leaves":
            self.leave(change.machine)
        elif change.what == "notice":
            machine.announce(change.seconds)
            if self.scenario.latency_s:
                # The worker ends in time, but the network may delay its last report.
                self.excuses.strike(now_s, math.inf, machine.name)
        elif change.what == "freezes":
            self.freeze(machine, change.seconds)
            time.freeze(now_s, now_s + change.seconds)
        elif change.speed is not None:
            machine.pace.change(change.speed)
            time.change(now_s, change.speed)

    def leave(self, name: str) -> None:
        """End a machine and all that runs on it."""
        machine, _ = self.machines.pop(name)
        self.ledger.leave(name, virtual_loop().now_s)
        machine.trainer.leaving = True
        self.kill(machine)
        broker_s = self.scenario.policy.broker_s
        if broker_s is not None:
            self.keep(self.guard(lambda: self.notice(machine.name, broker_s)))

    async def notice(self, worker: str, seconds: float) -> None:
        """Report a lost connection to the actor after `seconds`, as a broker does."""
        await asyncio.sleep(seconds)
        await self.actor.lost(worker)

    # -- the end --------------------------------------------------------------------------------

    async def figures(self, ended_s: float) -> dict[str, Any]:
        """The figures of the simulation, as JSON values."""
        metas = [(await self.store.load(e.name)).meta for e in self.experiments]
        ledger = self.ledger
        shares = {cause: _share(s, ledger.paid_s) for cause, s in sorted(ledger.waste_s.items())}
        counts = {
            name: sum(int(meta.get(name, 0)) for meta in metas)
            for name in ("created", "reported", "failed", "retried")
        }
        statuses = Counter(meta["status"] for meta in metas)
        return {
            "status": "broken" if self.violation else max(statuses, key=lambda s: (statuses[s], s)),
            "hours": round(ended_s / 3600, 4),
            "trials": counts["reported"],
            "best": None if math.isinf(self.best) else self.best,
            **counts,
            "goodput": _share(ledger.useful_s, ledger.paid_s),
            "waste": shares,
            "losing_branches": self.losing_branches(),
            "machine_hours": round(ledger.paid_s / 3600, 4),
            "dollars": round(ledger.dollars, 2),
            "machines": {"arrived": ledger.arrived, "left": ledger.left},
            "faults": dict(sorted(self.faults.items())),
            "second_copies": self.second_copies,
            "invariants_broken": int(self.violation is not None),
            "broken": str(self.violation or ""),
            "history_sha256": self.store.history_sha256,
            **({} if self.golden is None else {"golden_sha256": self.golden.hexdigest()}),
        }

    def losing_branches(self) -> float | None:
        """Share of the useful seconds that did not contribute to the best models."""
        best = [self.watches[e.name].book.best_checkpoint for e in self.experiments]
        led_s = sum(self.checkpoints[name].lineage_s for name in best if name in self.checkpoints)
        return _share(self.ledger.useful_s - led_s, self.ledger.useful_s)


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def simulate(scenario: Scenario) -> Simulated:
    """Simulate a scenario until all searches have ended, or the last machine is gone."""
    return run(Simulation(scenario).play())
