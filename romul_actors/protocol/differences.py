"""Compares a declaration with that of an existing search, and finds the changes to request.

Changes of bounds, steps, slots and constants of the optimizer become requests of an operator.
Changes that would make it another search are rejected with an explanation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from romul_actors.core.bounds import with_bounds
from romul_actors.core.space import Value
from romul_actors.errors import ExperimentError, SpaceError
from romul_actors.protocol.experiment import Experiment, ParameterSpec
from romul_actors.protocol.mistakes import shown
from romul_actors.protocol.plan import settings

_DECISIVE = (
    "task",
    "metric",
    "direction",
    "budget",
    "budget_unit",
    "seed",
    "constants",
    "initial",
)
"""Keys that determine the meaning of results; with another value, it is another search."""
_ELSEWHERE = ("name", "space", "steps", "population", "optimizer", "checkpoints")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Changes to request of a search.

    Attributes:
        bounds: new bounds, by hyperparameter.
        steps: new number of steps; None if unchanged.
        population: new number of slots; 0 if unchanged.
        constants: changed constants of the optimizer.
        kept: keys that differ but cannot be changed: the search keeps their old values.
        asked: whether the user explicitly requested `steps`, which must then be more than now.
    """

    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    steps: int | None = None
    population: int = 0
    constants: Mapping[str, Value] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    asked: bool = False

    def __bool__(self) -> bool:
        return bool(self.bounds or self.steps or self.population or self.constants)


def differences(before: Experiment, after: Experiment) -> Changes:
    """The changes that lead from one declaration to another.

    Args:
        before: the declaration of the search.
        after: the new declaration.

    Raises:
        ExperimentError: it would be another search; the message has a line for each difference.
    """
    faults = [*_decisive(before, after), *_other_space(before, after)]
    if before.optimizer.name != after.optimizer.name:
        faults.append(_was("optimizer", before.optimizer.name, after.optimizer.name))
    if after.steps < before.steps:
        faults.append(
            f"{_was('steps', before.steps, after.steps)}: steps already done cannot be undone"
        )
    bounds = {} if faults else _bounds(before, after, faults)
    if faults:
        raise ExperimentError(
            "\n".join(f"{before.name}: {fault}" for fault in faults)
            + "\nThat is a different search: give it another name. To begin it with the results of "
            f'this one, use --from-run {before.name} (in Python: from_run="{before.name}").'
        )
    return Changes(
        bounds=bounds,
        steps=after.steps if after.steps != before.steps else None,
        population=after.population if after.population != before.population else 0,
        constants=_constants(before, after),
        kept=tuple(
            key
            for key in Experiment.model_fields
            if key not in _ELSEWHERE and getattr(before, key) != getattr(after, key)
        )
        + _guarded(before, after),
    )


def _was(key: str, before: Any, after: Any) -> str:
    return f"{key} was {shown(before)} and is now {shown(after)}"


def _decisive(before: Experiment, after: Experiment) -> list[str]:
    pairs = ((key, getattr(before, key), getattr(after, key)) for key in _DECISIVE)
    return [_was(key, old, new) for key, old, new in pairs if old != new]


def _other_space(before: Experiment, after: Experiment) -> list[str]:
    """Messages for hyperparameters that were added, removed, or have another kind."""
    faults = []
    for name in [*before.space, *(name for name in after.space if name not in before.space)]:
        old, new = before.space.get(name), after.space.get(name)
        if old is None:
            faults.append(f"space: {name} was added: existing trials have no value for it")
        elif new is None:
            faults.append(f"space: {name} was removed: existing trials depend on it")
        elif _without_bounds(old) != _without_bounds(new):
            faults.append(
                f"space: {_was(name, _declared(old), _declared(new))}: only bounds may change"
            )
    return faults


def _declared(spec: ParameterSpec) -> dict[str, Any]:
    """The table of a hyperparameter, without defaults."""
    return {"type": spec.type, **spec.model_dump(mode="json", exclude_defaults=True)}


def _without_bounds(spec: ParameterSpec) -> dict[str, Any]:
    """The part of a hyperparameter's table that must not change, so that old values stay valid."""
    return spec.model_dump(mode="json", exclude={"min", "max", "guarded"})


def _guarded(before: Experiment, after: Experiment) -> tuple[str, ...]:
    """Keys `guarded` of hyperparameters, where they differ."""
    pairs = ((name, before.space[name], spec) for name, spec in after.space.items())
    return tuple(
        f"space.{name}.guarded"
        for name, old, new in pairs
        if getattr(old, "guarded", None) != getattr(new, "guarded", None)
    )


def _bounds(
    before: Experiment, after: Experiment, faults: list[str]
) -> dict[str, tuple[float, float]]:
    """New bounds, by hyperparameter; a message for each invalid change is added to `faults`."""
    space, bounds = before.search_space(), {}
    for name, spec in after.space.items():
        low, high = getattr(spec, "min", None), getattr(spec, "max", None)
        old = before.space[name]
        same = (low, high) == (getattr(old, "min", None), getattr(old, "max", None))
        if same or low is None or high is None:
            continue
        bounds[name] = (float(low), float(high))
        try:
            space = with_bounds(space, name, *bounds[name])
        except SpaceError as error:
            faults.append(f"space: {error}")
    return bounds


def _constants(before: Experiment, after: Experiment) -> dict[str, Value]:
    """Changed constants of the optimizer, including those reset to their defaults by omission."""
    old, new = settings(before, stored=True).optimizer, settings(after).optimizer
    made: Any = new
    pairs = (
        (field.name, getattr(old, field.name), getattr(new, field.name)) for field in fields(made)
    )
    return {name: value for name, was, value in pairs if was != value}
