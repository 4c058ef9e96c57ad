"""A simulated cluster: the real Actor and the real Worker over the memory store, in virtual time.

Only what stands below them is simulated (`fakes.py`): the clock, the machines, the network, and the
hours of training.
"""

import asyncio
import contextvars
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.random import default_rng

from romul_actors.actor.loop import TICKS_A_TRIAL, Actor
from romul_actors.client import Client as Operator
from romul_actors.protocol.experiment import Experiment
from romul_actors.waiting import cancel
from romul_sim.churn import Change, with_notice
from romul_sim.fakes import (
    Client,
    Durations,
    Pace,
    Saved,
    SimulatedTrainer,
    WatchedStore,
    virtual_loop,
)
from romul_sim.golden import HistoryHash
from romul_sim.invariants import Violation, Watch
from romul_sim.ledger import Ledger
from romul_sim.virtual_time import Clock, machine_clock, run
from romul_workers.tasks.toys import TOYS
from romul_workers.worker import Worker, WorkerSettings

LONGEST_PACE_S = 300.0
"""Actor and workers wait no longer at a time for what comes next, whatever the lease."""
LOOKS_A_LEASE = 10
"""In a lease they look so many times whether there is something to do."""
LOOKS_A_NOTICE = 4
DRIFT, AHEAD_S = 0.01, 60.0
"""How wrong the machines' clocks are: up to this share too fast or too slow, and so far apart."""
KEEP_LINES = 1_000
"""History lines that the store keeps; a simulation looks at each when it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How the runtime is set up.

    Attributes:
        per_machine: slots for each machine; None: the scenario's population.
        min, max, per_worker, second_copy: elasticity, as an experiment declares it.
        lease_s: after so long without a word a trial is given to another.
        broker_s: after so long a lost connection is noticed, as through a broker; None: without.
        grace_s: for ending or pausing a trial, before a machine goes.
    """

    per_machine: float | None = None
    min: int = 4
    max: int | None = None
    per_worker: float | None = None
    second_copy: float = 3.0
    lease_s: float = 30.0
    broker_s: float | None = None
    grace_s: float = 10.0

    @property
    def elasticity(self) -> dict[str, Any]:
        """As an experiment declares it."""
        return {
            "min": self.min,
            "max": self.max,
            "per_worker": self.per_worker,
            "second_copy": self.second_copy,
        }


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated.

    Attributes:
        changes: what happens to machines, in order of time.
        problem: a name out of `TOYS`.
        optimizer: name and constants, as an experiment declares them.
        population: number of slots of each search.
        steps: PBT steps of each slot.
        searches: how many go on at the same time.
        apart: whether each machine serves one of them only; else all machines serve all.
        durations: how long a trial takes.
        speeds: ratio of the fastest machine's speed to the slowest one's.
        notice_s: warning before a machine goes, where the trace tells of none; 0: none.
        latency_s: mean time to the store, and back again.
        price: of a machine's hour, where the trace has none.
        policy: see `Policy`.
        until_s: the end at the latest; None: when the searches have ended, or all machines.
        history: whether all lines of history are returned.
        picture: whether all that a picture needs is returned.
        golden: whether history is hashed in its canonical form as well (`golden.py`), which takes
            a tenth of a simulation's time.
        seed: all randomness derives from it.
    """

    changes: Sequence[Change]
    problem: str = "misspecified"
    optimizer: str | Mapping[str, Any] = "romul"
    population: int = 8
    steps: int = 30
    searches: int = 1
    apart: bool = False
    durations: Durations = field(default_factory=Durations)
    speeds: float = 2.0
    notice_s: float = 0.0
    latency_s: float = 0.0
    price: float = 1.0
    policy: Policy = field(default_factory=Policy)
    until_s: float | None = None
    history: bool = False
    picture: bool = False
    golden: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Played:
    """A simulation that is over.

    Attributes:
        told: figures, as JSON values.
        ledger: the accounts.
        history: lines, if they were asked for.
    """

    told: dict[str, Any]
    ledger: Ledger
    history: list[dict[str, Any]]


@dataclass(slots=True)
class _Machine:
    """One machine with its worker."""

    name: str
    client: Client
    pace: Pace
    speed: float
    trainer: SimulatedTrainer
    worker: Worker
    task: asyncio.Task[None]
    stop: asyncio.Event


class _World:
    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.checkpoints: dict[str, Saved] = {}
        self.ledger = Ledger(keep=scenario.picture)
        self.machines: dict[str, _Machine] = {}
        self.later: set[asyncio.Task[None]] = set()
        self.history: list[dict[str, Any]] = []
        self.golden = HistoryHash() if scenario.golden else None
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.ended: set[str] = set()
        self.best = math.inf
        self._made = 0
        notices = [c.seconds for c in scenario.changes if c.what == "notice"]
        notices += [scenario.notice_s] if scenario.notice_s else []
        lease_s = scenario.policy.lease_s
        self.pace_s = min(
            LONGEST_PACE_S,
            lease_s / LOOKS_A_LEASE,
            *(max(0.5, notice_s / LOOKS_A_NOTICE) for notice_s in notices),
        )
        self.experiments = [self.experiment(number) for number in range(scenario.searches)]
        # Every machine may go away at any time: whoever loses a trial has an excuse.
        self.watches = {e.name: Watch(e, self.checkpoints, None) for e in self.experiments}

    def experiment(self, number: int) -> Experiment:
        scenario, policy = self.scenario, self.scenario.policy
        population = scenario.population
        if policy.per_machine is not None:
            most = most_machines(scenario.changes)
            population = max(4, math.ceil(policy.per_machine * most / scenario.searches))
        elasticity = policy.elasticity
        if policy.max is not None:
            elasticity["max"] = max(policy.max, population)
        return Experiment.model_validate(
            {
                "name": f"search-{number}",
                "task": "simulated",
                "space": TOYS[scenario.problem].space,
                "population": population,
                "steps": scenario.steps,
                "seed": scenario.seed + number,
                "optimizer": scenario.optimizer,
                "checkpoints": "memory://simulated",
                "elasticity": elasticity,
                "max_losses": 1_000_000,
                "history_keep": KEEP_LINES,
                "timeouts": {
                    "lease_s": policy.lease_s,
                    "quorum_s": max(60.0, scenario.durations.trial_s),
                },
            }
        )

    def next(self) -> int:
        self._made += 1
        return self._made

    async def play(self) -> Played:
        loop = virtual_loop()
        self.over = asyncio.Event()
        self.broken: Violation | None = None
        self.store = WatchedStore(self.watches, self.hear)
        for experiment in self.experiments:
            await Operator(self.store).submit(experiment)
        # Ticks come as often as in production: they end the wait for slow trials.
        tick_s = self.scenario.durations.trial_s / TICKS_A_TRIAL
        self.actor = Actor(self.store, "actor", pace_s=min(self.pace_s, tick_s / 2))
        stop = asyncio.Event()
        acting = self.guard(lambda: self.actor.run(stop))
        churning = asyncio.create_task(self.churn())
        try:
            async with asyncio.timeout(self.scenario.until_s):
                await self.over.wait()
        except TimeoutError:
            pass
        ended_s = loop.now_s
        tasks = [acting, churning, *self.later, *(m.task for m in self.machines.values())]
        for machine in self.machines.values():
            machine.trainer.leaving = False
        await cancel(*tasks)
        self.ledger.end(ended_s)
        return Played(await self.tell(ended_s), self.ledger, self.history)

    def guard(self, begin: Callable[[], Any], clock: Clock | None = None) -> asyncio.Task[None]:
        """A task, with a clock of its own, whose violation ends the simulation."""

        async def watched() -> None:
            try:
                await begin()
            except Violation as found:
                self.broken = found
                self.over.set()

        context = contextvars.copy_context()
        context.run(machine_clock.set, clock)
        return asyncio.create_task(watched(), context=context)

    def hear(self, name: str, line: Mapping[str, Any]) -> None:
        """Look at a line of history."""
        event = line["event"]
        self.counts[event] += 1
        if event in ("failed", "released"):
            self.faults[str(line["reason"])] += 1
        self.ledger.line(name, line)
        if self.golden is not None:
            self.golden.add(line, name)
        if self.scenario.history:
            self.history.append({"search": name, **line})
        if event == "result" and line["metrics"]["true_loss"] < self.best:
            self.best = line["metrics"]["true_loss"]
            now_s = virtual_loop().now_s
            self.ledger.to(now_s)
            self.ledger.curve.append((now_s, self.ledger.dollars, self.best))
        if event in ("trial", "result") and self.scenario.picture:
            self.size()
        if event in ("finished", "gave up"):
            self.ended.add(name)
            if len(self.ended) == len(self.experiments):
                self.over.set()

    def size(self) -> None:
        """Note how many machines and slots there are."""
        slots = sum(len(watch.book.parents) for watch in self.watches.values())
        sizes, now = self.ledger.sizes, (self.ledger.machines, slots)
        if not sizes or sizes[-1][1:] != now:
            sizes.append((virtual_loop().now_s, *now))

    # -- machines -------------------------------------------------------------------------------

    async def churn(self) -> None:
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
                self.strike(self.machines[change.machine], change)
            if scenario.picture:
                self.size()
        if not self.machines:
            self.over.set()

    def arrive(self, change: Change) -> None:
        scenario, policy = self.scenario, self.scenario.policy
        if change.machine in self.machines:
            return
        number, loop = self.next(), virtual_loop()
        rng = default_rng([scenario.seed, number])
        speed = change.speed
        if speed is None:
            speed = float(scenario.speeds ** rng.uniform(-0.5, 0.5))
        price = scenario.price if change.price is None else change.price
        self.ledger.arrive(change.machine, change.zone, price, loop.now_s)
        client, pace = Client(self.store, rng, scenario.latency_s), Pace(speed)
        settings = WorkerSettings(
            # A machine that comes back is another worker.
            name=f"{change.machine}-{number}",
            allow=("simulated",),
            experiments=(f"search-{number % scenario.searches}" if scenario.apart else "*",),
            grace_s=policy.grace_s,
            garbage_ms=int(2000 * policy.lease_s),
            pace_s=self.pace_s,
            host=change.machine,
            pid=1,
        )
        trainer = SimulatedTrainer(
            machine=change.machine,
            toy=TOYS[scenario.problem],
            durations=scenario.durations,
            checkpoints=self.checkpoints,
            watches=self.watches,
            pace=pace,
            rng=rng,
            numbers=self.next,
            spans=self.ledger.span,
        )
        worker, stop = Worker(client, trainer, settings), asyncio.Event()  # type: ignore[arg-type]
        clock = Clock(1.0 + float(rng.uniform(-DRIFT, DRIFT)), float(rng.uniform(0.0, AHEAD_S)))
        task = self.guard(lambda: worker.run(stop), clock)
        self.machines[change.machine] = _Machine(
            settings.name, client, pace, speed, trainer, worker, task, stop
        )

    def strike(self, machine: _Machine, change: Change) -> None:
        loop = virtual_loop()
        if change.what == "leaves":
            self.leave(change.machine)
        elif change.what == "notice":
            # By the machine's own clock, as its worker would hear of it.
            loop.call_soon(machine.worker.announce, change.seconds)
        elif change.what == "freezes":
            machine.client.frozen_until_s = loop.now_s + change.seconds
            machine.pace.change(0.0)
            loop.call_later(change.seconds, machine.pace.change, machine.speed)
        else:
            machine.speed = change.speed or machine.speed
            machine.pace.change(machine.speed)

    def leave(self, name: str) -> None:
        machine = self.machines.pop(name)
        self.ledger.leave(name, virtual_loop().now_s)
        machine.client.dead = machine.trainer.leaving = True
        machine.task.cancel()
        self.keep(machine.task)
        broker_s = self.scenario.policy.broker_s
        if broker_s is not None:
            self.keep(asyncio.create_task(self.notice(machine.name, broker_s)))

    async def notice(self, worker: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.actor.lost(worker)

    def keep(self, task: asyncio.Task[None]) -> None:
        self.later.add(task)
        task.add_done_callback(self.later.discard)

    # -- the end --------------------------------------------------------------------------------

    async def tell(self, ended_s: float) -> dict[str, Any]:
        metas = [(await self.store.load(e.name)).meta for e in self.experiments]
        ledger = self.ledger
        shares = {cause: _share(s, ledger.paid_s) for cause, s in sorted(ledger.waste_s.items())}
        counts = {
            name: sum(int(meta.get(name, 0)) for meta in metas)
            for name in ("created", "reported", "failed", "retried")
        }
        statuses = Counter(meta["status"] for meta in metas)
        return {
            "status": "broken" if self.broken else max(statuses, key=lambda s: (statuses[s], s)),
            "hours": round(ended_s / 3600, 4),
            "trials": counts["reported"],
            "best": None if math.isinf(self.best) else self.best,
            **counts,
            "goodput": _share(ledger.useful_s, ledger.paid_s),
            "waste": shares,
            "losing_branches": self.losing(),
            "machine_hours": round(ledger.paid_s / 3600, 4),
            "dollars": round(ledger.dollars, 2),
            "machines": {"arrived": ledger.arrived, "left": ledger.left},
            "faults": dict(sorted(self.faults.items())),
            "second_copies": self.counts["second copy"],
            "invariants_broken": int(self.broken is not None),
            "broken": str(self.broken or ""),
            "history_sha256": self.store.history_sha256,
            **({} if self.golden is None else {"golden_sha256": self.golden.hexdigest()}),
        }

    def losing(self) -> float | None:
        """Share of the useful seconds that did not lead to the best models."""
        best = [self.watches[e.name].book.best_checkpoint for e in self.experiments]
        led_s = sum(self.checkpoints[name].lineage_s for name in best if name in self.checkpoints)
        return _share(self.ledger.useful_s - led_s, self.ledger.useful_s)


def most_machines(changes: Sequence[Change]) -> int:
    """The largest number of machines that are there at a time."""
    n = most = 0
    for change in changes:
        n += {"arrives": 1, "leaves": -1}.get(change.what, 0)
        most = max(most, n)
    return most


def machine_seconds(changes: Sequence[Change], span_s: float) -> float:
    """How many machine seconds a trace holds."""
    total, came = 0.0, {}
    for change in changes:
        if change.what == "arrives":
            came[change.machine] = change.at_s
        elif change.what == "leaves" and change.machine in came:
            total += change.at_s - came.pop(change.machine)
    return total + sum(max(0.0, span_s - at_s) for at_s in came.values())


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def simulate(scenario: Scenario) -> Played:
    """Play a scenario to the end of its searches, or to that of the last machine."""
    return run(_World(scenario).play())
