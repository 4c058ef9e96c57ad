"""Many simulations: compares policies and optimizers on the same machines; recommends settings."""

import logging
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from romul_actors.errors import RomulError
from romul_actors.protocol.declared_tables import ElasticitySpec, Timeouts
from romul_actors.protocol.mistakes import mistakes_of
from romul_sim.churn.ledger import Ledger
from romul_sim.churn.scenario import Policy, Scenario, slots
from romul_sim.churn.simulation import simulate
from romul_sim.churn.trace import Change, machine_seconds, most_machines
from romul_sim.pool import as_ended

LEASES_A_TRIAL = 2
"""Number of default leases in a trial; more heartbeats change nothing, but take time here."""
SLOTS_A_MACHINE = 1.5
SHORTEST_LEASE_S = 10.0
"""Shortest lease that is compared for a recommendation, in seconds."""
USED = 0.8
"""Share of the machines' time that a search is planned to use, if its steps are not given."""


class SweepError(RomulError, ValueError):
    """The settings of a simulation are invalid."""


POLICIES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "patient": {"second_copy": 0.0},
    "broker": {"broker_s": 2.0},
    "parking": {"per_worker": 2.0},
    "quick": {"lease_s": 30.0},
}
"""Policies by name, as changes to the default one."""


def policy(text: str, trial_s: float) -> Policy:
    """Read a policy: "NAME", or "NAME:FIELD=NUMBER:...".

    Args:
        text: the policy.
        trial_s: median duration of a trial in seconds, for the default lease.

    Raises:
        SweepError: there is no such policy or field, or a value is invalid.
    """
    name, _, rest = text.partition(":")
    if name not in POLICIES:
        raise SweepError(f"policy {name!r} is not one of {', '.join(POLICIES)}")
    known = {field.name for field in fields(Policy)}
    values = dict(POLICIES[name])
    for part in filter(None, rest.split(":")):
        key, _, value = part.partition("=")
        if key not in known:
            raise SweepError(f"policy {text!r}: {key!r} is not one of {', '.join(sorted(known))}")
        try:
            number = float(value)
        except ValueError:
            raise SweepError(f"policy {text!r}: {value!r} is not a number") from None
        if not 0 <= number < math.inf:
            raise SweepError(f"policy {text!r}: {key}: {value} is not finite, or below 0")
        whole = key in ("min", "max") and number.is_integer()
        values[key] = int(number) if whole else number
    values.setdefault("lease_s", max(30.0, trial_s / LEASES_A_TRIAL))
    made = Policy(**values)
    if made.per_machine == 0:
        raise SweepError(f"policy {text!r}: per_machine: 0 is not above 0")
    _check(text, ElasticitySpec, made.elasticity)
    _check(text, Timeouts, {"lease_s": made.lease_s})
    return made


def _check(text: str, model: type[BaseModel], values: Mapping[str, Any]) -> None:
    """Check values with the model of an experiment's declaration.

    Raises:
        SweepError: a value is invalid.
    """
    try:
        model.model_validate(values)
    except ValidationError as error:
        raise SweepError(f"policy {text!r}: {mistakes_of(error, model)[0]}") from None


def laid_out(scenario: Scenario, span_s: float, steps: int | None) -> Scenario:
    """The scenario with an end and a number of steps, by default as many as the time allows."""
    if steps is None:
        seconds = USED * machine_seconds(scenario.changes, span_s)
        n_slots = slots(scenario) * scenario.searches
        steps = max(2, int(seconds / scenario.durations.trial_s / n_slots))
    return replace(scenario, steps=steps, until_s=span_s)


def default_population(changes: Sequence[Change]) -> int:
    """Default number of slots for a pool of machines."""
    return max(4, math.ceil(SLOTS_A_MACHINE * most_machines(changes)))


@dataclass(frozen=True, slots=True)
class SweepJob:
    """One simulation of a sweep: its names, its seed and its scenario."""

    optimizer: str
    policy: str
    seed: int
    scenario: Scenario


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The figures and the curve of one simulation; see `Simulated` and `Ledger`."""

    figures: Mapping[str, Any]
    curve: Sequence[tuple[float, float, float]]


def _play(job: SweepJob) -> SweepResult:
    # Each lost machine logs a warning, which is expected here.
    logging.disable(logging.ERROR)
    played = simulate(job.scenario)
    return SweepResult(played.figures, played.ledger.curve)


def play_all(
    jobs: Sequence[SweepJob], processes: int | None = None
) -> Iterator[tuple[SweepJob, SweepResult]]:
    """Run simulations in parallel, and yield each with its result when it ends.

    Args:
        jobs: the simulations.
        processes: number of processes; None: the number of cores.
    """
    with ProcessPoolExecutor(processes) as pool:
        for (job,), ended in as_ended(pool, _play, ((job,) for job in jobs)):
            yield job, ended


def _reached(curve: Sequence[tuple[float, float, float]], target: float) -> tuple[float, float]:
    """Seconds and dollars until the target was reached; infinite if it was not."""
    for seconds, dollars, loss in curve:
        if loss <= target:
            return seconds, dollars
    return math.inf, math.inf


def common_target(ended: Sequence[SweepResult]) -> float:
    """The loss that half of all simulations reach."""
    finals = sorted(e.curve[-1][2] if e.curve else math.inf for e in ended)
    return finals[(len(finals) - 1) // 2]


def compare(
    results: Sequence[tuple[SweepJob, SweepResult]], target: float | None
) -> list[dict[str, Any]]:
    """Medians over seeds for each optimizer and policy, ordered by the time to the target.

    Args:
        results: simulations and their results.
        target: a loss; None: the loss that half of all simulations reach.

    Returns:
        Rows of JSON values; the time to a target that was not reached is null.
    """
    pairs = sorted(results, key=lambda pair: (pair[0].optimizer, pair[0].policy, pair[0].seed))
    limit = common_target([ended for _, ended in pairs]) if target is None else target
    groups: dict[tuple[str, str], list[SweepResult]] = {}
    golden: dict[tuple[str, str], dict[int, str | None]] = {}
    for job, ended in pairs:
        hashes = golden.setdefault((job.optimizer, job.policy), {})
        hashes[job.seed] = ended.figures.get("golden_sha256")
        groups.setdefault((job.optimizer, job.policy), []).append(ended)
    rows = []
    for (optimizer, name), group in groups.items():
        reached = [_reached(ended.curve, limit) for ended in group]
        causes = sorted({cause for ended in group for cause in ended.figures["waste"]})
        rows.append(
            {
                "optimizer": optimizer,
                "policy": name,
                "seeds": len(group),
                "goodput": _median([e.figures["goodput"] or 0.0 for e in group]),
                "best": _median(
                    [e.figures["best"] for e in group if e.figures["best"] is not None]
                ),
                "target": limit,
                "hours_to_target": _median([s / 3600 for s, _ in reached]),
                "dollars_to_target": _median([d for _, d in reached]),
                "dollars": _median([e.figures["dollars"] for e in group]),
                "trials": _median([float(e.figures["trials"]) for e in group]),
                "finished": sum(e.figures["status"] == "finished" for e in group),
                "waste": {
                    cause: _median([e.figures["waste"].get(cause, 0.0) or 0.0 for e in group])
                    for cause in causes
                },
                "invariants_broken": sum(e.figures["invariants_broken"] for e in group),
            }
        )
        if all("golden_sha256" in ended.figures for ended in group):
            rows[-1]["golden_sha256"] = golden[optimizer, name]
    worst = math.inf
    rows.sort(
        key=lambda row: (
            worst if row["hours_to_target"] is None else row["hours_to_target"],
            worst if row["dollars_to_target"] is None else row["dollars_to_target"],
            row["optimizer"],
            row["policy"],
        )
    )
    return rows


def _median(values: Sequence[float]) -> float | None:
    """The median, rounded to 6 digits; None: there are no values, or it is infinite."""
    if not values or math.isinf(found := statistics.median(values)):
        return None
    return float(f"{found:.6g}")


@dataclass(frozen=True, slots=True)
class PoolSetup:
    """Settings for a pool that are compared for a recommendation."""

    per_machine: float
    lease_s: float

    @property
    def name(self) -> str:
        """The name in a comparison."""
        return f"slots={self.per_machine:g}/machine lease={self.lease_s:g}s"


def choices(trial_s: float) -> list[PoolSetup]:
    """The settings that are compared: slots per machine, and leases.

    The length of a step is not compared, because a toy problem learns as much in a short step as in
    a long one.
    """
    found = [
        PoolSetup(per_machine, max(SHORTEST_LEASE_S, share * trial_s))
        for per_machine in (1.0, 1.5, 2.0)
        for share in (0.1, 0.5, 2.0)
    ]
    # If trials are short, several settings have the shortest lease.
    return list(dict.fromkeys(found))


def chosen(scenario: Scenario, choice: PoolSetup, span_s: float) -> Scenario:
    """The scenario with the given settings, planned for the same machine time."""
    per_machine, lease_s = choice.per_machine, choice.lease_s
    policy = replace(scenario.policy, per_machine=per_machine, lease_s=lease_s)
    return laid_out(replace(scenario, policy=policy), span_s, None)


def mean_life_s(changes: Sequence[Change], span_s: float) -> float:
    """Mean time between losses of a machine: total machine time divided by the losses."""
    left = sum(change.what == "leaves" for change in changes)
    return machine_seconds(changes, span_s) / left if left else math.inf


def checkpoint_interval_s(save_s: float, life_s: float) -> float | None:
    """Best time between two checkpoints (Young 1974), in seconds.

    None if no machine is lost, or saving takes no time.
    """
    return math.sqrt(2 * save_s * life_s) if save_s > 0 and math.isfinite(life_s) else None


def picture(scenario: Scenario) -> tuple[dict[str, Any], Ledger]:
    """Run one simulation, and keep the data for pictures."""
    played = simulate(replace(scenario, picture=True))
    return played.figures, played.ledger
