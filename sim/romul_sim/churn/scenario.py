"""A scenario for `romul sim`: machines, searches, and settings of the runtime."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from romul_actors.protocol.experiment import Experiment
from romul_sim.churn.trace import Change, most_machines
from romul_sim.cluster.training import Durations
from romul_workers.tasks.toys import TOYS

LONGEST_PACE_S = 300.0
"""Longest wait of actor and workers for something to do, in seconds."""
LOOKS_A_LEASE = 10
"""How often they look for something to do during one lease."""
LOOKS_A_NOTICE = 4
"""How often they look for something to do between the notice and a machine's end."""
KEEP_LINES = 1_000
"""Lines of history that the store keeps; a simulation reads each line when it is committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Settings of the runtime.

    Attributes:
        per_machine: slots per machine; None: use the scenario's population.
        min, max, per_worker, second_copy: elasticity, as an experiment declares it.
        lease_s: time without a heartbeat after which a trial is given to another worker.
        broker_s: time after which a broker reports a lost connection; None: there is no broker.
        grace_s: time for ending or pausing a trial before a machine goes.
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
    """A simulation's input.

    Attributes:
        changes: what happens to machines, in order of time.
        problem: name of a problem in `TOYS`.
        optimizer: name and constants, as an experiment declares them.
        population: number of slots of each search.
        steps: number of PBT steps of each slot.
        searches: number of searches at the same time.
        apart: whether each machine serves only one search; otherwise all machines serve all.
        durations: how long a trial takes.
        speeds: ratio of the fastest machine's speed to the slowest machine's.
        notice_s: notice before a machine goes, in seconds, if the trace has none; 0: no notice.
        latency_s: mean time of a message to or from the store, in seconds.
        price: price of a machine's hour, if the trace has none.
        policy: settings of the runtime.
        until_s: time at which the simulation ends at the latest; None: no limit.
        history: whether to return all lines of history.
        picture: whether to keep the data for pictures.
        golden: whether to hash the canonical form of history (`golden.py`), which takes a tenth of
            a simulation's time.
        seed: seed of everything random.
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
    """Number of slots of each search, from the policy or else the scenario."""
    if scenario.policy.per_machine is None:
        return scenario.population
    most = most_machines(scenario.changes)
    return max(4, math.ceil(scenario.policy.per_machine * most / scenario.searches))


def experiment(scenario: Scenario, number: int) -> Experiment:
    """The declaration of one search of a scenario."""
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
    """Longest wait of actor and workers for something to do, in seconds."""
    notices = [c.seconds for c in scenario.changes if c.what == "notice"]
    notices += [scenario.notice_s] if scenario.notice_s else []
    return min(
        LONGEST_PACE_S,
        scenario.policy.lease_s / LOOKS_A_LEASE,
        *(max(0.5, notice_s / LOOKS_A_NOTICE) for notice_s in notices),
    )
