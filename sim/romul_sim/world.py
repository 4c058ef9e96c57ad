"""A simulated cluster: the real Actor and the real Worker over the memory store, in virtual time.

Only what stands below them is simulated: the clock, the machines, and the hours of training.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.random import Generator, default_rng

from romul_actors.actor import Actor
from romul_actors.errors import StoreUnavailableError
from romul_actors.events import Submitted
from romul_actors.events import Trial as TrialMessage
from romul_actors.experiment import Experiment
from romul_actors.messages import encode
from romul_actors.store.memory import MemoryStore
from romul_sim.churn import Change
from romul_sim.loop import run
from romul_workers.tasks.toys import TOYS, State
from romul_workers.trainer import Ending, Success, Trainer
from romul_workers.worker import Worker, WorkerSettings

LOOK_S = 1.0
"""How often it is looked whether the experiment has ended."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated.

    Attributes:
        changes: machines that come and go, in order of time.
        problem: a name out of `TOYS`.
        optimizer: a name of an optimizer.
        population: number of slots.
        steps: PBT steps of each slot.
        trial_s: median duration of a trial.
        spread: standard deviation of a trial's duration, in log.
        speeds: ratio of the fastest machine's speed to the slowest one's.
        notice_s: warning that a machine has before it goes; 0: none.
        lease_s: after so long without a word a trial is given to another.
        seed: all randomness derives from it.
    """

    changes: Sequence[Change]
    problem: str = "misspecified"
    optimizer: str = "romul"
    population: int = 8
    steps: int = 30
    trial_s: float = 60.0
    spread: float = 0.3
    speeds: float = 2.0
    notice_s: float = 0.0
    lease_s: float = 30.0
    seed: int = 0


@dataclass(slots=True)
class Bill:
    """What machines were paid for, in machine seconds."""

    paid_s: float = 0.0
    useful_s: float = 0.0
    lost_s: float = 0.0
    """Training that was cut short."""
    arrivals: int = 0
    departures: int = 0
    loss_by_time: list[tuple[float, float]] = field(default_factory=list)


class _SeveredStore(MemoryStore):
    """The store as one machine sees it: unreachable once the machine is gone."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.cut = False

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name == "cut":
            return object.__getattribute__(self, name)
        if self.cut:
            raise StoreUnavailableError("the machine is gone")
        return getattr(self._store, name)


class _SimulatedTrainer(Trainer):
    """Sleeps for a trial's duration, then does the problem's step."""

    def __init__(
        self, scenario: Scenario, speed: float, rng: Generator, states: dict[str, State], bill: Bill
    ) -> None:
        self._scenario = scenario
        self._speed = speed
        self._rng = rng
        self._states = states
        self._bill = bill

    async def train(self, experiment: Experiment, trial: TrialMessage) -> Ending:
        del experiment
        scenario, loop = self._scenario, asyncio.get_running_loop()
        began = loop.time()
        spread = float(self._rng.lognormal(0.0, scenario.spread))
        try:
            await asyncio.sleep(scenario.trial_s * spread / self._speed)
        except asyncio.CancelledError:
            self._bill.lost_s += loop.time() - began
            raise
        # Of the trial, not of the machine: a trial done again elsewhere comes out the same.
        rng = default_rng(trial.seed)
        parent = self._states[trial.parent] if trial.parent is not None else None
        toy = TOYS[scenario.problem]
        state, loss, _ = toy.step(parent, trial.hyperparameters, trial.step, rng)
        checkpoint = f"{trial.id}-{trial.attempt}"
        self._states[checkpoint] = state
        self._bill.useful_s += loop.time() - began
        self._bill.loss_by_time.append((loop.time(), loss))
        return Success(loss, checkpoint)

    def ask_to_stop(self) -> None:
        """Leave the trial alone: it ends in time, or is given back."""

    async def discard(self, experiment: Experiment, checkpoint: str) -> None:
        del experiment
        self._states.pop(checkpoint, None)

    async def close(self) -> None:
        return None


class _Machine:
    """One machine with its worker."""

    def __init__(self, number: int, store: MemoryStore, world: "_World") -> None:
        scenario = world.scenario
        rng = default_rng([scenario.seed, number])
        speed = float(scenario.speeds ** rng.uniform(-0.5, 0.5))
        self.store = _SeveredStore(store)
        self.came_s = asyncio.get_running_loop().time()
        self.stop = asyncio.Event()
        trainer = _SimulatedTrainer(scenario, speed, rng, world.states, world.bill)
        settings = WorkerSettings(
            name=f"machine-{number}",
            allow=("simulated",),
            # What is left of the warning is for giving the trial back.
            grace_s=0.9 * scenario.notice_s,
            host=f"machine-{number}",
            pid=1,
        )
        self.task = asyncio.create_task(Worker(self.store, trainer, settings).run(self.stop))

    async def leave(self, notice_s: float) -> None:
        """Go, with a warning or without."""
        if notice_s:
            self.stop.set()
            await asyncio.wait({self.task}, timeout=notice_s)
        self.store.cut = True
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class _World:
    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.states: dict[str, State] = {}
        self.bill = Bill()
        self.machines: dict[int, _Machine] = {}
        self.leaving: set[asyncio.Task[None]] = set()

    async def play(self) -> dict[str, Any]:
        scenario, loop = self.scenario, asyncio.get_running_loop()
        store = MemoryStore(lambda: int(1000 * loop.time()))
        experiment = Experiment.model_validate(
            {
                "name": "simulated",
                "task": "simulated",
                "space": TOYS[scenario.problem].space,
                "population": scenario.population,
                "steps": scenario.steps,
                "seed": scenario.seed,
                "optimizer": scenario.optimizer,
                "checkpoints": "memory://simulated",
                "timeouts": {"lease_s": scenario.lease_s},
            }
        )
        await store.create(experiment.name, experiment.model_dump_json(), encode(Submitted()))
        stop = asyncio.Event()
        acting = asyncio.create_task(Actor(store, "actor").run(stop))
        churning = asyncio.create_task(self.churn(store))
        while (await store.experiments())["simulated"] in ("submitted", "running"):
            await asyncio.sleep(LOOK_S)
            if churning.done() and not self.machines:
                break
        ended_s = loop.time()
        churning.cancel()
        for number in list(self.machines):
            await self.depart(number, 0.0)
        stop.set()
        await asyncio.gather(acting, churning, *self.leaving, return_exceptions=True)
        return await self.tell(store, ended_s)

    async def churn(self, store: MemoryStore) -> None:
        loop = asyncio.get_running_loop()
        for change in self.scenario.changes:
            await asyncio.sleep(max(0.0, change.at_s - loop.time()))
            if change.what == "arrives":
                self.bill.arrivals += 1
                self.machines[change.machine] = _Machine(change.machine, store, self)
            elif change.machine in self.machines:
                self.bill.departures += 1
                leaving = asyncio.create_task(self.depart(change.machine, self.scenario.notice_s))
                self.leaving.add(leaving)
                leaving.add_done_callback(self.leaving.discard)

    async def depart(self, number: int, notice_s: float) -> None:
        machine = self.machines.pop(number)
        await machine.leave(notice_s)
        self.bill.paid_s += asyncio.get_running_loop().time() - machine.came_s

    async def tell(self, store: MemoryStore, ended_s: float) -> dict[str, Any]:
        meta = (await store.load("simulated")).meta
        history = [line for _, line in await store.history("simulated", count=10**9)]
        lost = Counter(
            event["reason"]
            for event in map(json.loads, history)
            if event["event"] in ("failed", "released")
        )
        bill = self.bill
        counts = {name: int(meta.get(name, 0)) for name in ("created", "reported", "retried")}
        return {
            "status": meta["status"],
            "hours": round(ended_s / 3600, 4),
            "best": json.loads(meta["best"])["loss"] if meta.get("best") else None,
            **counts,
            "attempts_lost": dict(sorted(lost.items())),
            "machines": {"arrived": bill.arrivals, "left": bill.departures},
            "machine_hours": round(bill.paid_s / 3600, 4),
            "goodput": round(bill.useful_s / bill.paid_s, 4) if bill.paid_s else None,
            "cut_short": round(bill.lost_s / bill.paid_s, 4) if bill.paid_s else None,
            "history": history,
        }


def simulate(scenario: Scenario) -> Mapping[str, Any]:
    """Play a scenario to the experiment's end, or to that of the last machine.

    Returns:
        JSON values; `goodput` is the share of paid machine seconds that went into trials that
        ended, `cut_short` the share that went into trials that did not, `history` the lines that
        the store would show.
    """
    return run(_World(scenario).play())
