"""Decides one event in a program without an actor: `romul.Population` and `romul replay`."""

from romul_actors.core.decide import decide
from romul_actors.core.events import Stamped
from romul_actors.core.population import Decision, Population
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
