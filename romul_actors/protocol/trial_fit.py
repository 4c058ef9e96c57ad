"""Whether a trial's hyperparameters are of the declared space: any worker may have queued it."""

from romul_actors.core.events import TrialMessage
from romul_actors.core.space import (
    BooleanParameter,
    CategoricalParameter,
    Parameter,
    Value,
    VectorParameter,
)
from romul_actors.errors import MessageError, SpaceError
from romul_actors.protocol.experiment import Experiment


def check_fit(trial: TrialMessage, experiment: Experiment) -> None:
    """Refuse names that are not declared, choices that are not listed, and values of another type.

    Bounds are not looked at: an operator may have changed them since the trial was made.

    Args:
        trial: from a queue.
        experiment: as it is declared now.

    Raises:
        MessageError: a hyperparameter is not of the space; the message names it.
    """
    try:
        parameters = {each.name: each for each in experiment.search_space().parameters}
    except SpaceError:
        # The declaration's fault, which its actor says.
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
