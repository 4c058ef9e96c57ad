"""Applies an operator's changes of the core's settings to the user's declaration."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from romul_actors.core.settings import Settings
from romul_actors.core.space import FloatParameter, IntParameter
from romul_actors.protocol.experiment import Experiment, OptimizerSpec, ParameterSpec

_LIMITS = {
    "deadline_ms": "deadline",
    "max_ms": "max_hours",
    "max_trials": "max_trials",
    "target_loss": "target",
}
"""Limits of a search: their names in the settings and in the declaration."""


def redeclare(experiment: Experiment, before: Settings, after: Settings) -> Experiment:
    """The declaration that corresponds to the settings `after`.

    Args:
        experiment: the current declaration.
        before: its settings.
        after: the settings after an operator's changes.
    """
    changes: dict[str, Any] = {"steps": after.steps}
    for limit, declared in _LIMITS.items():
        if getattr(after, limit) is None:
            changes[declared] = None
    if after.n_slots != before.n_slots:
        changes |= _resized(experiment, after)
    if after.optimizer != before.optimizer:
        changes["optimizer"] = _with_constants(experiment.optimizer, before, after)
    if after.space is not before.space:
        changes["space"] = _bounded(experiment, after)
    return experiment.model_copy(update=changes)


def _bounded(experiment: Experiment, settings: Settings) -> Mapping[str, ParameterSpec]:
    """The declared space with the bounds in the core's settings."""
    space = dict(experiment.space)
    for name, spec in experiment.space.items():
        # All coordinates of a list have the same bounds.
        axis = settings.space.axes[settings.space.axes_of(name)[0]]
        if isinstance(axis, FloatParameter | IntParameter):
            space[name] = spec.model_copy(update={"min": axis.low, "max": axis.high})
    return space


def _resized(experiment: Experiment, settings: Settings) -> dict[str, Any]:
    """The keys that depend on the number of slots."""
    elastic, core = experiment.elasticity, settings.elasticity
    limits: dict[str, Any] = {"min": core.min_slots}
    if elastic.max is not None:
        limits["max"] = core.max_slots
    return {
        "population": settings.n_slots,
        "initial": experiment.initial[: settings.n_slots],
        "elasticity": elastic.model_copy(update=limits),
    }


def _with_constants(spec: OptimizerSpec, before: Settings, after: Settings) -> OptimizerSpec:
    """The declared optimizer with the changed constants."""
    made: Any = after.optimizer
    changed = {
        field.name: getattr(made, field.name)
        for field in fields(made)
        if getattr(made, field.name) != getattr(before.optimizer, field.name)
    }
    return spec.model_copy(update={"options": {**spec.options, **changed}})
