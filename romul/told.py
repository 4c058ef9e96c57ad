"""Checks results that a program passes to `Population.tell`."""

from collections.abc import Iterable, Mapping
from typing import Any

from romul_actors.core.events import TrialMessage
from romul_actors.core.population import Population
from romul_actors.errors import TaskError, TellError
from romul_workers.figures import Figures, figures


def figures_of(trial: TrialMessage, told: Mapping[str, Any], metric: str) -> Figures:
    """The metric of a trial, and its other metrics.

    Raises:
        TellError: the metric is missing, or is not a finite number.
    """
    try:
        found = figures(told, metric, "the result has")
    except TaskError as error:
        raise TellError(f"trial {trial.id}: {error}") from None
    if not abs(found.value) < float("inf"):
        raise TellError(
            f"trial {trial.id}: {metric} is {found.value}: a result must be finite; if the trial "
            "diverged, call population.failed(trial, again=False)"
        )
    return found


def why_not_out(
    trial: str, population: Population, ready: Iterable[TrialMessage], out: Iterable[str]
) -> str:
    """Explain why a trial is not waiting for a result.

    Args:
        trial: id that the program gave.
        population: current state.
        ready: trials that have not been asked for yet.
        out: ids of the trials that are waiting for a result.
    """
    if any(trial == other.id for other in ready):
        return f"trial {trial} has not been asked for yet: get it from ask() first"
    slot, _, step = trial.partition("-")
    slots = population.slots
    known = slot.isdecimal() and step.isdecimal() and int(slot) < len(slots)
    if known and int(step) <= slots[int(slot)].step:
        return f"trial {trial} has already ended: report each trial only once"
    return f"trial {trial!r} is unknown; trials that wait for a result: {', '.join(out) or 'none'}"
