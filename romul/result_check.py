"""Checks results that a program passes to `Population.tell`."""

import os
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from romul_actors.core.events import TrialMessage
from romul_actors.core.population import Population
from romul_actors.errors import TaskError, TellError
from romul_actors.sendable import is_text
from romul_workers.child.figures import Figures, figures


def figures_of(trial: TrialMessage, returned: Mapping[str, Any], metric: str) -> Figures:
    """The metric of a trial, and its other metrics.

    Raises:
        TellError: the metric is missing, or is not a finite number, or a name is not valid Unicode.
    """
    try:
        found = figures(returned, metric, "the result has")
    except TaskError as error:
        raise TellError(f"trial {trial.id}: {error}") from None
    for name in found.kept:
        _check_unicode(trial, "metrics", name)
    if not isfinite(found.value):
        raise TellError(
            f"trial {trial.id}: {metric} is {found.value}: a result must be finite; if the trial "
            "diverged, call population.failed(trial, again=False)"
        )
    return found


def checkpoint_name(trial: TrialMessage, given: str | os.PathLike[str]) -> str:
    """The name of a trial's checkpoint as text.

    Raises:
        TellError: it is neither a text nor a path, or is empty, or is not valid Unicode.
    """
    name = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    # Not "": a stored slot with an empty checkpoint has none.
    if not isinstance(name, str) or not name:
        raise TellError(
            f"trial {trial.id}: checkpoint: {given!r} is not a name: give a text that is not "
            "empty, or a path"
        )
    _check_unicode(trial, "checkpoint", name)
    return name


def duration(trial: TrialMessage, given: float) -> float:
    """The duration of a trial in seconds; scalars of NumPy and torch are accepted.

    Raises:
        TellError: it is not a finite number, or is negative.
    """
    try:
        seconds = figures({"seconds": given}, "seconds", "the result has").value
    except TaskError as error:
        raise TellError(f"trial {trial.id}: {error}") from None
    if not (isfinite(seconds) and seconds >= 0):
        raise TellError(f"trial {trial.id}: seconds: {seconds} is not finite and at least 0")
    return seconds


def _check_unicode(trial: TrialMessage, argument: str, text: str) -> None:
    """Refuse lone surrogates, as in names of files that are not UTF-8: JSON cannot hold them."""
    if not is_text(text):
        raise TellError(f"trial {trial.id}: {argument}: {text!r} is not valid Unicode")


def waiting(
    given: TrialMessage | str,
    out: Mapping[str, tuple[TrialMessage, float]],
    population: Population,
    ready: Iterable[TrialMessage],
) -> tuple[TrialMessage, float]:
    """A trial that waits for its result, and when it was asked for.

    Args:
        given: the trial that the program reports, or its id.
        out: all trials that wait for a result, by id, and when they were asked for.
        population: current state.
        ready: trials that have not been asked for yet.

    Raises:
        TellError: the trial is not waiting for a result; the message says why.
    """
    trial = given if isinstance(given, str) else getattr(given, "id", None)
    if not isinstance(trial, str):
        raise TellError(f"{given!r} is not a trial: give the trial from ask(), or its id")
    if trial not in out:
        raise TellError(_why_not_out(trial, population, ready, out))
    now = out[trial][0].attempt
    if not isinstance(given, str) and given.attempt != now:
        raise TellError(
            f"trial {trial}: attempt {given.attempt} has failed; attempt {now} is running"
        )
    return out[trial]


def _why_not_out(
    trial: str, population: Population, ready: Iterable[TrialMessage], out: Iterable[str]
) -> str:
    """Explain why a trial is not waiting for a result."""
    if any(trial == other.id for other in ready):
        return f"trial {trial} has not been asked for yet: get it from ask() first"
    slot, _, step = trial.partition("-")
    slots = population.slots
    known = slot.isdecimal() and step.isdecimal() and int(slot) < len(slots)
    if known and int(step) <= slots[int(slot)].step:
        return f"trial {trial} has already ended: report each trial only once"
    return f"trial {trial!r} is unknown; trials that wait for a result: {', '.join(out) or 'none'}"
