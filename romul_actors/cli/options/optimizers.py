"""Parse the names, such as optimizers, that are given to comparing commands."""

from collections.abc import Sequence

import typer

from romul_actors.core.optimizers import OPTIMIZERS, make
from romul_actors.errors import ExperimentError, OptimizerError
from romul_sim.baselines import PEERS, check_peer
from romul_sim.play import Conditions, optimizer_spec


def names(given: str | None, known: Sequence[str], what: str) -> list[str]:
    """Names separated by commas; all known names if none is given.

    Raises:
        typer.BadParameter: a name is unknown.
    """
    chosen = list(known) if given is None else given.split(",")
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise typer.BadParameter(f"{what} {unknown[0]!r} is not one of {', '.join(known)}")
    return chosen


def optimizers(given: str | None, conditions: Conditions) -> list[str]:
    """Optimizers and peers separated by commas, checked before hours of work.

    Args:
        given: names with options; None for all of this project's that are installed.
        conditions: the conditions under which they will run.

    Raises:
        typer.BadParameter: one is unknown, has a wrong option, is not installed, or cannot run
            under the conditions.
    """
    texts = [name for name in OPTIMIZERS if _is_there(name)] if given is None else given.split(",")
    for text in texts:
        try:
            if text in PEERS:
                check_peer(text, conditions)
                continue
            spec = optimizer_spec(text)
            make(spec.pop("name"), spec)
        except (OptimizerError, ExperimentError) as error:
            raise typer.BadParameter(str(error)) from None
    return texts


def _is_there(name: str) -> bool:
    try:
        make(name, {})
    except OptimizerError:
        return False
    return True
