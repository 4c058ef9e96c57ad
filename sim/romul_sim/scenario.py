"""What is simulated by `romul sim`: machines, searches, and how the runtime is set up."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from romul_actors.protocol.experiment import Experiment
from romul_sim.churn import Change, most_machines
from romul_sim.fakes import Durations
from romul_workers.tasks.toys import TOYS

LONGEST_PACE_S = 300.0
"""Actor and workers wait no longer at a time for what comes next, whatever the lease."""
LOOKS_A_LEASE = 10
"""How often in a lease they look for something to do."""
LOOKS_A_NOTICE = 4
"""The same in the time between the warning and a machine's end."""
KEEP_LINES = 1_000
"""History lines that the store keeps; a simulation reads each line when it is committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How the runtime is set up.

    Attributes:
        per_machine: slots for each machine; None: the scenario's population.
        min, max, per_worker, second_copy: elasticity, as an experiment declares it.
        lease_s: after so long without a heartbeat a trial is given to another worker.
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
        notice_s: warning before a machine goes, where the trace has none; 0: none.
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


def slots(scenario: Scenario) -> int:
    """Number of slots of each search: the policy's, or else the scenario's."""
    if scenario.policy.per_machine is None:
        return scenario.population
    most = most_machines(scenario.changes)
    return max(4, math.ceil(scenario.policy.per_machine * most / scenario.searches))


def experiment(scenario: Scenario, number: int) -> Experiment:
    """One search of a scenario, as a user would declare it."""
    policy, population = scenario.policy, slots(scenario)
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


def longest_pace_s(scenario: Scenario) -> float:
    """How long actor and workers wait at a time, at most."""
    notices = [c.seconds for c in scenario.changes if c.what == "notice"]
    notices += [scenario.notice_s] if scenario.notice_s else []
    return min(
        LONGEST_PACE_S,
        scenario.policy.lease_s / LOOKS_A_LEASE,
        *(max(0.5, notice_s / LOOKS_A_NOTICE) for notice_s in notices),
    )
