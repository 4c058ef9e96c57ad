"""From the user's declaration to what the decision core is given."""

from romul_actors import optimizers
from romul_actors.errors import ExperimentError, OptimizerError
from romul_actors.experiment import Experiment
from romul_actors.state import Settings


def settings(experiment: Experiment) -> Settings:
    """Make the core's settings.

    Raises:
        ExperimentError: the optimizer or one of its options is unknown.
    """
    try:
        optimizer = optimizers.make(experiment.optimizer.name, experiment.optimizer.options)
    except OptimizerError as error:
        raise ExperimentError(f"optimizer: {error}") from None
    space = experiment.search_space()
    return Settings(
        space=space,
        optimizer=optimizer,
        n_slots=experiment.population,
        steps=experiment.steps,
        budget=experiment.budget,
        seed=experiment.seed,
        maximize=experiment.direction == "maximize",
        max_attempts=experiment.max_attempts,
        initial=tuple(space.encode(values) for values in experiment.initial),
        quorum_wait_min_s=experiment.timeouts.quorum_s,
    )
