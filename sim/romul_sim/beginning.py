"""What an operator has changed of a recorded run's declaration, taken back: as it was at first."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from romul_actors.core.history import BoundsChanged, Line, SearchChanged, SearchExtended
from romul_actors.core.settings import Settings
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import settings
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


def settings_at(now: Settings, recorded: Experiment, other: Experiment) -> Settings:
    """Settings of another declaration at an event of a run.

    Args:
        now: the run's own settings at that event.
        recorded: the run's declaration.
        other: the other one; where it is the same, the run's settings count: they may have been
            others at that event.
    """
    core = settings(other)
    if other.steps == recorded.steps:
        core = replace(core, steps=now.steps)
    if (other.population, other.elasticity) == (recorded.population, recorded.elasticity):
        core = replace(core, n_slots=now.n_slots, elasticity=now.elasticity)
    if other.optimizer == recorded.optimizer:
        core = replace(core, optimizer=now.optimizer)
    if other.space == recorded.space:
        core = replace(core, space=now.space)
    return core
