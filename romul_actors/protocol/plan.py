"""From the user's declaration to what the decision core is given."""

from romul_actors.core import optimizers
from romul_actors.core.elasticity import Elasticity
from romul_actors.core.settings import Settings
from romul_actors.errors import ExperimentError, OptimizerError
from romul_actors.protocol.experiment import Experiment


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
    elastic, deadline = experiment.elasticity, experiment.deadline
    return Settings(
        space=space,
        optimizer=optimizer,
        n_slots=experiment.population,
        steps=experiment.steps,
        budget=experiment.budget,
        seed=experiment.seed,
        maximize=experiment.direction == "maximize",
        max_attempts=experiment.max_attempts,
        max_lost_attempts=experiment.max_losses,
        initial=tuple(space.encode(values) for values in experiment.initial),
        quorum_wait_min_s=experiment.timeouts.quorum_s,
        elasticity=Elasticity(
            min_slots=elastic.min,
            max_slots=elastic.max or experiment.population,
            per_worker=elastic.per_worker,
            second_copy=elastic.second_copy,
        ),
        deadline_ms=None if deadline is None else int(1000 * deadline.timestamp()),
    )
