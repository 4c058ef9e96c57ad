"""Decisions in a program without actor and workers: `romul.Population` and `romul replay`."""

from dataclasses import replace

from romul_actors.core.decide import decide
from romul_actors.core.events import Stamped
from romul_actors.core.optimizers import Optimizer
from romul_actors.core.population import Decision, Population
from romul_actors.core.settings import Settings
from romul_actors.errors import OptimizerError


def decided(population: Population, stamped: Stamped) -> Decision:
    """Decide an event.

    Raises:
        OptimizerError: the optimizer made a move that cannot be carried out, or called sys.exit,
            which would end the user's program without a message.
    """
    try:
        return decide(population, stamped)
    except SystemExit as error:
        name = population.settings.optimizer.name
        raise OptimizerError(f"optimizer {name!r}: SystemExit: {error}") from error


def without_workers(made: Settings, own: Optimizer | None) -> Settings:
    """Settings that ignore the number of workers: no slots are added, and no second copies run.

    Args:
        made: settings of the experiment.
        own: the user's optimizer, which replaces that of the settings; None: there is none.
    """
    elasticity = replace(made.elasticity, max_slots=made.n_slots, per_worker=None, second_copy=0.0)
    return replace(made, elasticity=elasticity, optimizer=own or made.optimizer)
