"""What an operator has changed of a recorded run's declaration, taken back: as it was at first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from romul_actors.core.amendments import with_changes
from romul_actors.core.history import BoundsChanged, Line, SearchChanged, SearchExtended
from romul_actors.core.settings import Settings
from romul_actors.protocol.experiment import Experiment
from romul_sim.record import Record


def at_the_beginning(record: Record) -> Experiment:
    """The declaration as it was when the run began.

    A record may hold it with all later changes: the lines of history say what was there before.
    """
    experiment = record.experiment
    for line in reversed(record.lines):
        changes = _before(line, experiment)
        if changes:
            experiment = experiment.model_copy(update=changes)
    return experiment


def _before(line: Line, experiment: Experiment) -> dict[str, Any]:
    """Keys of the declaration that a line has changed, with what they were."""
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
    """Limits of the settings as the declaration had them."""
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
    """Slots and constants as they were."""
    changes: dict[str, Any] = {}
    if "population" in before:
        changes["population"] = before["population"]
    if "constants" in before:
        spec = experiment.optimizer
        options = {**spec.options, **before["constants"]}
        changes["optimizer"] = spec.model_copy(update={"options": options})
    return changes


def settings_at(now: Settings, other: Settings, named: Iterable[Sequence[str]]) -> Settings:
    """Settings of a run at an event, with what another declaration names set as it says.

    Args:
        now: the run's own at that event, which an operator may have changed since and before.
        other: the other declaration's.
        named: the keys that lead to each setting of it that counts.
    """
    changed = other
    outer = {keys[0] for keys in named}
    for key, field in _SETTINGS.items():
        if key not in outer:
            changed = replace(changed, **{field: getattr(now, field)})
    constants = {keys[1] for keys in named if keys[0] == "optimizer" and len(keys) > 1}
    if constants and "name" not in constants:
        given: dict[str, Any] = {name: getattr(other.optimizer, name) for name in constants}
        changed = with_changes(replace(changed, optimizer=now.optimizer), 0, given)
    return changed


_SETTINGS = {
    "steps": "steps",
    "population": "n_slots",
    "elasticity": "elasticity",
    "optimizer": "optimizer",
    "space": "space",
}
"""Keys of a declaration that an operator may change in a run, and the fields that they become."""
