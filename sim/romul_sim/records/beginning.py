"""Restores the original declaration of a recorded run, without an operator's later changes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from romul_actors.actor.standalone import decided
from romul_actors.core.amendments import with_changes
from romul_actors.core.events import Control, Stamped
from romul_actors.core.history import BoundsChanged, Line, SearchChanged, SearchExtended
from romul_actors.core.population import Population
from romul_actors.core.settings import Settings
from romul_actors.core.space import FloatParameter, IntParameter, Space, VectorParameter
from romul_actors.protocol.experiment import Experiment
from romul_sim.records.record import Record


def at_the_beginning(record: Record) -> Experiment:
    """The declaration as it was when the run began.

    A record may hold the declaration with all later changes; the lines of history hold the values
    before each change.
    """
    experiment = record.experiment
    for line in reversed(record.lines):
        changes = _before(line, experiment)
        if changes:
            experiment = experiment.model_copy(update=changes)
    return experiment


def _before(line: Line, experiment: Experiment) -> dict[str, Any]:
    """Keys of the declaration that a line has changed, with their values before it."""
    match line:
        case SearchExtended():
            return {"steps": line.before, **_declared_limits(experiment, line.lifted)}
        case SearchChanged():
            return _unchanged(experiment, line.before)
        case BoundsChanged(before=[low, high]) if line.parameter in experiment.space:
            spec = experiment.space[line.parameter]
            bounded = spec.model_copy(update={"min": low, "max": high})
            return {"space": {**experiment.space, line.parameter: bounded}}
    return {}


def _declared_limits(experiment: Experiment, lifted: Mapping[str, Any]) -> dict[str, Any]:
    """Limits of the settings, in the form of the declaration."""
    limits: dict[str, Any] = {}
    if "deadline_ms" in lifted:
        limits["deadline"] = datetime.fromtimestamp(lifted["deadline_ms"] / 1000, UTC)
    if "max_ms" in lifted:
        limits["max_hours"] = lifted["max_ms"] / 3_600_000
    if "max_trials" in lifted:
        limits["max_trials"] = lifted["max_trials"]
    if "target_loss" in lifted:
        sign = -1.0 if experiment.direction == "maximize" else 1.0
        limits["target"] = sign * lifted["target_loss"]
    return limits


def _unchanged(experiment: Experiment, before: Mapping[str, Any]) -> dict[str, Any]:
    """Population and constants as they were before a change."""
    changes: dict[str, Any] = {}
    if "population" in before:
        changes["population"] = before["population"]
    if "constants" in before:
        spec = experiment.optimizer
        options = {**spec.options, **before["constants"]}
        changes["optimizer"] = spec.model_copy(update={"options": options})
    return changes


def settings_at(now: Settings, other: Settings, named: Iterable[Sequence[str]]) -> Settings:
    """Settings of a run at an event, with the named settings taken from another declaration.

    Args:
        now: the run's own settings at that event.
        other: the settings of the other declaration.
        named: for each setting that is taken from `other`, the keys that lead to it.
    """
    changed = now
    for key, *inner in named:
        if key == "space" and inner:
            changed = replace(changed, space=_with_parameter(changed.space, inner[0], other.space))
        elif key == "optimizer" and inner and inner != ["name"]:
            constants: dict[str, Any] = {inner[0]: getattr(other.optimizer, inner[0])}
            if type(changed.optimizer) is type(other.optimizer):
                changed = with_changes(changed, 0, constants)
        else:
            fields: dict[str, Any] = {f: getattr(other, f) for f in _FIELDS.get(key, ())}
            changed = replace(changed, **fields)
    return changed


_FIELDS: Mapping[str, Sequence[str]] = {
    "steps": ("steps",),
    "population": ("n_slots", "elasticity"),
    "elasticity": ("elasticity",),
    "optimizer": ("optimizer",),
    "space": ("space",),
    "budget": ("budget",),
    "seed": ("seed",),
    "direction": ("maximize", "target_loss"),
    "initial": ("initial",),
    "from_run": ("inherited",),
    "timeouts": ("quorum_wait_min_s",),
    "max_attempts": ("max_attempts",),
    "max_losses": ("max_lost_attempts",),
    "max_trials": ("max_trials",),
    "max_hours": ("max_ms",),
    "deadline": ("deadline_ms",),
    "target": ("target_loss",),
}
"""The settings that each key of a declaration becomes; other keys do not affect decisions."""


def _with_parameter(space: Space, name: str, other: Space) -> Space:
    """A space with one parameter and its condition taken from another space."""
    parameters = [
        other.parameters[other.names.index(name)] if p.name == name else p for p in space.parameters
    ]
    return Space(parameters, {**space.when, **{n: w for n, w in other.when.items() if n == name}})


def in_space(population: Population, space: Space, at_ms: int) -> Population:
    """A population with vectors in another space, as if its bounds had been changed just now.

    For parameters that differ in more than their bounds, the coordinates stay as they are.
    """
    for parameter, former in zip(
        space.parameters, population.settings.space.parameters, strict=True
    ):
        inside = [p.element if isinstance(p, VectorParameter) else p for p in (former, parameter)]
        bounds = [(p.low, p.high) for p in inside if isinstance(p, FloatParameter | IntParameter)]
        if len(bounds) == len(inside) and bounds[0] != bounds[1]:
            low, high = bounds[1]
            asked = Control(action="bounds", parameter=parameter.name, low=low, high=high)
            population = decided(population, Stamped(asked, at_ms)).population
    return population
