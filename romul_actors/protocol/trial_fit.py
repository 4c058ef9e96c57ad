"""Whether a trial's hyperparameters are of the declared space: any worker may have queued it."""

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
"""Those of a space, by name."""


@lru_cache(maxsize=1024)
def declared_parameters(text: str) -> Parameters | None:
    """The parameters of an experiment as the store keeps it; the same for the same text.

    Returns:
        None: no space can be made of them, which is the declaration's fault; its actor says so.

    Raises:
        ExperimentError: the text is no experiment, or one of another version.
    """
    try:
        return {each.name: each for each in from_json(text).search_space().parameters}
    except SpaceError:
        return None


def check_fit(trial: TrialMessage, parameters: Parameters | None) -> None:
    """Refuse names that are not declared, choices that are not listed, and values of another type.

    Bounds are not looked at: an operator may have changed them since the trial was made.

    Args:
        trial: from a queue.
        parameters: see `declared_parameters`.

    Raises:
        MessageError: a hyperparameter is not of the space; the message names it.
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
