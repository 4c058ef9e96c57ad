"""The axis of a metric, in pictures and on the dashboard: what diverged must not flatten it."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDE = 10.0
"""Ratio of values from which they are drawn on a log axis."""


@dataclass(frozen=True, slots=True)
class Axis:
    """How a metric is drawn.

    Attributes:
        logarithmic: whether on a log axis.
        edge: where the axis ends on its worse side, None: where the values do.
    """

    logarithmic: bool
    edge: float | None


def metric_axis(values: Sequence[float], medians: Sequence[float], *, maximize: bool) -> Axis:
    """Choose an axis (source: this project).

    It ends as far again from the worst of the medians as this is from the best value, on the
    scale that is drawn.

    Args:
        values: all that are drawn.
        medians: of the values of each step.
        maximize: whether higher is better.
    """
    if not values or not medians:
        return Axis(logarithmic=False, edge=None)
    low, high = min(values), max(values)
    best, worst = (high, min(medians)) if maximize else (low, max(medians))
    logarithmic = low > 0 and max(best, worst) > WIDE * min(best, worst)
    edge = worst * (worst / best) if logarithmic else worst + (worst - best)
    return Axis(logarithmic, edge if low < edge < high else None)
