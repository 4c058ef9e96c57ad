"""Turns the user's declaration into the settings of the decision core."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from romul_actors.core.elasticity import Elasticity
from romul_actors.core.settings import Inherited, Settings
from romul_actors.core.space import (
    FloatParameter,
    IntParameter,
    Parameter,
    Space,
    Value,
    VectorParameter,
)
from romul_actors.errors import ExperimentError, OptimizerError, SpaceError
from romul_actors.protocol import experiment as declaration
from romul_actors.protocol.experiment import Experiment, OptimizerSpec
from romul_actors.protocol.messages import MOST_STEPS
from romul_actors.protocol.mistakes import Mistake
from romul_actors.protocol.optimizer_options import check_ranges, make, make_stored
from romul_actors.protocol.statuses import OVER

LONGEST = 1e9
"""Upper bound of times, in seconds or in hours."""


def load(path: Path) -> Experiment:
    """Read an experiment from a file like `experiment.load`, and check its optimizer too.

    Raises:
        ExperimentError: the file cannot be read or the declaration is invalid; the message lists
            all mistakes.
    """
    experiment = declaration.load(path, _optimizer_mistakes)
    check(experiment)
    return experiment


def _optimizer_mistakes(content: Mapping[str, Any]) -> list[Mistake]:
    """Mistakes in the name and the options of a declared optimizer."""
    try:
        spec = OptimizerSpec.model_validate(content.get("optimizer", {}))
    except ValidationError:
        # This mistake is found with the rest of the declaration.
        return []
    mistakes = []
    for options in ({}, *({key: value} for key, value in spec.options.items())):
        try:
            make(spec.name, options)
            check_ranges(spec.name, options)
        except OptimizerError as error:
            mistakes.append(Mistake(("optimizer", *options), str(error), named=True))
            if not options:
                break
    return mistakes


def check(experiment: Experiment) -> Settings:
    """Check a new declaration, and return the core's settings.

    Raises:
        ExperimentError: an option of the optimizer is out of range, or the total budget overflows;
            or see `settings`.
    """
    core = settings(experiment)
    if math.isinf(experiment.budget * experiment.steps):
        raise ExperimentError(
            f"budget: {experiment.steps} steps of {experiment.budget:g} are too long in total"
        )
    try:
        check_ranges(experiment.optimizer.name, experiment.optimizer.options)
    except OptimizerError as error:
        raise ExperimentError(str(error)) from None
    return core


def settings(experiment: Experiment, *, stored: bool = False) -> Settings:
    """The core's settings for a declaration.

    Args:
        experiment: the declaration.
        stored: whether to ignore options that the optimizer does not accept, because another
            version may have stored them; see `left_out`.

    Raises:
        ExperimentError: the optimizer or one of its options is unknown, a time is too long to be
            counted in milliseconds, or there are too many steps.
    """
    times = {"timeouts.lease_s": experiment.timeouts.lease_s, "max_hours": experiment.max_hours}
    for key, value in times.items():
        if value is not None and value > LONGEST:
            raise ExperimentError(f"{key}: {value:g} is above {LONGEST:g}")
    if experiment.steps > MOST_STEPS:
        raise ExperimentError(f"steps: {experiment.steps} is above {MOST_STEPS}")
    given = experiment.optimizer.name, experiment.optimizer.options
    try:
        optimizer = make_stored(*given)[0] if stored else make(*given)
    except OptimizerError as error:
        raise ExperimentError(str(error)) from None
    space = experiment.search_space()
    elastic, deadline, hours = experiment.elasticity, experiment.deadline, experiment.max_hours
    target, is_maximum = experiment.target, experiment.direction == "maximize"
    return Settings(
        space=space,
        optimizer=optimizer,
        n_slots=experiment.population,
        steps=experiment.steps,
        budget=experiment.budget,
        seed=experiment.seed,
        maximize=is_maximum,
        max_attempts=experiment.max_attempts,
        max_lost_attempts=experiment.max_losses,
        initial=tuple(
            space.encode_some(_inside(space, values) if stored else values)
            for values in experiment.initial
        ),
        inherited=_inherited(experiment, space, stored=stored),
        quorum_wait_min_s=experiment.timeouts.quorum_s,
        elasticity=Elasticity(
            min_slots=elastic.min,
            max_slots=elastic.max or experiment.population,
            per_worker=elastic.per_worker,
            second_copy=elastic.second_copy,
        ),
        deadline_ms=None if deadline is None else int(1000 * deadline.timestamp()),
        max_ms=None if hours is None else int(3_600_000 * hours),
        max_trials=experiment.max_trials,
        target_loss=-target if target is not None and is_maximum else target,
    )


def left_out(experiment: Experiment, status: str = "", said: str = "") -> Sequence[str]:
    """Options of a stored search that its optimizer does not accept and that are ignored.

    Args:
        experiment: the stored declaration.
        status: status of the search; for one that has ended, the result is empty.
        said: the stored field `left_out`: the sentences of the actor that decides, one per line.

    Returns:
        A sentence for each option.
    """
    if status in OVER:
        return []
    try:
        found = make_stored(experiment.optimizer.name, experiment.optimizer.options)[1]
    except Exception:  # noqa: BLE001  (an installed package may raise any)
        # The plugin may be installed where the actor runs; if not, the actor reports it.
        found = []
    elsewhere = [text for text in said.splitlines() if text not in found]
    return [*found, *(f"according to an actor of another version, {text}" for text in elsewhere)]


def _inherited(experiment: Experiment, space: Space, *, stored: bool) -> tuple[Inherited, ...]:
    """The checkpoints of another search from which the slots begin."""
    origin = experiment.from_run
    if origin is None:
        return ()
    return tuple(
        Inherited(
            each.name,
            f"{origin.name} {each.trial}",
            space.encode(_inside(space, each.hyperparameters) if stored else each.hyperparameters),
        )
        for each in origin.checkpoints
    )


def _inside(space: Space, values: Mapping[str, Value]) -> dict[str, Value]:
    """Values of a first trial, with numbers moved within bounds that have been changed since."""
    moved = dict(values)
    for parameter in space.parameters:
        value = values.get(parameter.name)
        if isinstance(parameter, VectorParameter) and isinstance(value, list):
            moved[parameter.name] = [_nearest(parameter.element, one) for one in value]
        elif isinstance(parameter, FloatParameter | IntParameter) and value is not None:
            moved[parameter.name] = _nearest(parameter, value)
    return moved


def _nearest(axis: Parameter, value: Value) -> Value:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and isinstance(axis, FloatParameter | IntParameter)):
        return value
    try:
        axis.encode(value)
    except SpaceError:
        return axis.nearest(value)
    return value
