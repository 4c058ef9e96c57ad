"""What a program tells of a trial that it asked for, and what is wrong with it."""

from collections.abc import Iterable, Mapping
from typing import Any

from romul_actors.core.events import TrialMessage
from romul_actors.core.population import Population
from romul_actors.errors import TaskError, TellError
from romul_workers.figures import Figures, figures


def figures_of(trial: TrialMessage, told: Mapping[str, Any], metric: str) -> Figures:
    """The metric of a trial, and the figures beside it.

    Raises:
        TellError: the metric is not there, or is not a finite number.
    """
    try:
        found = figures(told, metric, "the result has")
    except TaskError as error:
        raise TellError(f"trial {trial.id}: {error}") from None
    if not abs(found.value) < float("inf"):
        raise TellError(
            f"trial {trial.id}: {metric} is {found.value}: a result must be finite; say "
            "population.failed(trial, again=False) for a trial that diverged"
        )
    return found


def why_not_out(
    trial: str, population: Population, ready: Iterable[TrialMessage], out: Iterable[str]
) -> str:
    """Why nothing can be told of a trial, in a sentence.

    Args:
        trial: its id, as a program gave it.
        population: as it is now.
        ready: trials that were not asked for yet.
        out: ids of those that were asked for, and not told.
    """
    if any(trial == other.id for other in ready):
        return f"trial {trial} was not asked for yet: ask() gives it"
    slot, _, step = trial.partition("-")
    slots = population.slots
    known = slot.isdecimal() and step.isdecimal() and int(slot) < len(slots)
    if known and int(step) <= slots[int(slot)].step:
        return f"trial {trial} has ended: a trial is told once"
    return f"trial {trial!r} is unknown; trials that are out: {', '.join(out) or 'none'}"
