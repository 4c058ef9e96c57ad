"""Checks whether a trial's hyperparameters fit the declared space.

Any worker could have queued the trial, so it is not trusted.
"""

from collections.abc import Mapping
from functools import lru_cache

from romul_actors.core.events import TrialMessage
from romul_actors.core.space import (
    BooleanParameter,
    CategoricalParameter,
    Parameter,
    Value,
    VectorParameter,
)
from romul_actors.errors import MessageError, SpaceError
from romul_actors.protocol.experiment import from_json

Parameters = Mapping[str, Parameter | VectorParameter]
"""The parameters of a space, by name."""


@lru_cache(maxsize=1024)
def declared_parameters(text: str) -> Parameters | None:
    """The parameters of a stored experiment; the result is cached.

    Returns:
        The parameters by name. None if the declared space is invalid, which the actor reports.

    Raises:
        ExperimentError: the text is not an experiment, or belongs to an incompatible version.
    """
    try:
        return {each.name: each for each in from_json(text).search_space().parameters}
    except SpaceError:
        return None


def check_fit(trial: TrialMessage, parameters: Parameters | None) -> None:
    """Reject names that are not declared, choices that are not listed, and values of other types.

    Bounds are not checked, because an operator may have changed them since the trial was created.

    Args:
        trial: a trial from a queue.
        parameters: the result of `declared_parameters`.

    Raises:
        MessageError: a hyperparameter does not fit; the message names it.
    """
    if parameters is None:
        return
    for name, value in trial.hyperparameters.items():
        if name not in parameters:
            raise MessageError(f"trial.hyperparameters.{name:.100}: the space has no such name")
        parameter = parameters[name]
        if not isinstance(parameter, VectorParameter):
            _check(parameter, value)
        elif isinstance(value, list):
            for element in value:
                _check(parameter.element, element)
        else:
            raise MessageError(f"trial.hyperparameters.{name}: {value!r:.100} is not a list")


def _check(parameter: Parameter, value: Value) -> None:
    if isinstance(parameter, CategoricalParameter | BooleanParameter):
        try:
            parameter.encode(value)
        except SpaceError as error:
            raise MessageError(f"trial.hyperparameters.{error!s:.300}") from None
    elif isinstance(value, bool) or not isinstance(value, int | float):
        name = f"trial.hyperparameters.{parameter.name}"
        raise MessageError(f"{name}: {value!r:.100} is not a number")
