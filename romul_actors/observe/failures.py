"""Failed attempts: the latest of each cause, and their numbers by part of the search space."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from romul_actors.core.history import Line, TrialCreated, TrialFailed, TrialReported
from romul_actors.core.parameter import FloatParameter, IntParameter, Parameter, Value, cell
from romul_actors.observe.explain import last_line
from romul_actors.protocol.experiment import Experiment

QUARTERS = 4
"""Number of parts of a numeric range by which failures are counted."""


def latest_by_cause(lines: Sequence[Line]) -> dict[str, dict[str, str]]:
    """The latest failure of each cause: trial, worker, and the last line of its message."""
    latest = {line.reason: line for line in lines if isinstance(line, TrialFailed)}
    return {
        cause: {"trial": line.trial, "worker": line.worker, "message": last_line(line.message)}
        for cause, line in sorted(latest.items())
    }


def by_region(experiment: Experiment, lines: Sequence[Line]) -> dict[str, list[dict[str, Any]]]:
    """Failures by hyperparameter and part of its range: a quarter of the range, or a choice.

    Attempts that ended with a result count as successes.
    """
    space = experiment.search_space()
    decided = {line.trial: line.hyperparameters for line in lines if isinstance(line, TrialCreated)}
    ended = [
        (line.trial, line.reason if isinstance(line, TrialFailed) else None)
        for line in lines
        if isinstance(line, TrialFailed | TrialReported) and line.trial in decided
    ]
    values = {trial: space.by_axis(decided[trial]) for trial in dict.fromkeys(t for t, _ in ended)}
    return {axis.name: _regions_of(axis, values, ended) for axis in space.axes}


def _regions_of(
    parameter: Parameter,
    values: Mapping[str, Mapping[str, Value]],
    ended: Sequence[tuple[str, str | None]],
) -> list[dict[str, Any]]:
    """A row for each part of one hyperparameter's present range.

    Args:
        parameter: the hyperparameter.
        values: values of each trial that ended, by names of coordinates. A value outside the range
            counts in the nearest part.
        ended: trial of each attempt that ended, and the reason if it failed.
    """
    n = len(parameter.labels) or QUARTERS
    attempts: Counter[int] = Counter()
    reasons: dict[int, Counter[str]] = defaultdict(Counter)
    part_of = _parts(parameter, values, n)
    for trial, reason in ended:
        if (part := part_of[trial]) is None:
            # A hyperparameter that is inactive in a trial has no part in its failure.
            continue
        attempts[part] += 1
        if reason is not None:
            reasons[part][reason] += 1
    rows = []
    for part in range(n):
        low, high = parameter.decode(part / n), parameter.decode((part + 1) / n)
        rows.append(
            {
                "region": parameter.labels[part]
                if parameter.labels
                else f"{low:.4g} to {high:.4g}",
                "attempts": attempts[part],
                "failed": sum(reasons[part].values()),
                "reasons": dict(reasons[part]),
            }
        )
    return rows


def _parts(
    parameter: Parameter, values: Mapping[str, Mapping[str, Value]], n: int
) -> dict[str, int | None]:
    """By trial, the index of the part (of `n`) that holds its value; None if it has no value."""
    # Trials keep values of their parents: each value is looked up once.
    known: dict[str, int] = {}
    found: dict[str, int | None] = {}
    for trial, here in values.items():
        if parameter.name not in here:
            found[trial] = None
            continue
        value = here[parameter.name]
        if (same := repr(value)) not in known:
            if isinstance(parameter, FloatParameter | IntParameter):
                value = parameter.nearest(parameter.figure(value))
            known[same] = cell(parameter.encode(value), n)
        found[trial] = known[same]
    return found
