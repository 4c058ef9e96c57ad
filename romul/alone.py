"""Settings of the core as `Population` uses it: without workers, in the user's own program."""

from dataclasses import replace

from romul_actors.core.optimizers import Optimizer
from romul_actors.core.settings import Settings


def alone(made: Settings, own: Optimizer | None) -> Settings:
    """Settings that ignore the number of workers: no slots are added, and no second copies run.

    Args:
        made: settings of the experiment.
        own: the user's optimizer, which replaces that of the settings; None: there is none.
    """
    elasticity = replace(made.elasticity, max_slots=made.n_slots, per_worker=None, second_copy=0.0)
    return replace(made, elasticity=elasticity, optimizer=own or made.optimizer)
