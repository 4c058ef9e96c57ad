"""Reads what a task returns: the metric, which must be a number, and other figures.

A value that cannot be a figure is left out with a warning; the trial still counts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from romul_actors.errors import TaskError

MAX_FIGURES = 256
"""Most figures, beside the metric, that a result keeps."""
MAX_NAME = 100
"""Longest name of a figure or of the metric, in characters."""
MAX_NAMED = 10
"""Most names that one warning lists."""
MAX_WARNED = 100
"""Most names of an experiment that are warned about: each trial may bring new ones."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a task returned.

    Attributes:
        value: the experiment's metric; it may be NaN or infinite.
        kept: the other figures, by name: finite numbers; true is 1, false is 0.
        left_out: values that are not kept, by name: the value's type, or the reason.
    """

    value: float
    kept: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def figures(returned: object, metric: str, giver: str = "the task returned") -> Figures:
    """Find the experiment's metric and all other figures in what a task returned.

    Scalars of numpy and torch, and their arrays and tensors of one element, are numbers.

    Args:
        returned: the metric alone, or a mapping that holds it.
        metric: the metric's name.
        giver: the beginning of error messages.

    Raises:
        TaskError: the metric is missing or is not a number.
    """
    if not isinstance(returned, Mapping):
        return Figures(_metric(metric, returned, giver))
    if metric not in returned:
        given = ", ".join(str(name) for name in returned) or "nothing"
        raise TaskError(f"{giver} no {metric!r}, which the experiment goes by, but {given}")
    found = Figures(_metric(metric, returned[metric], giver))
    for key, value in returned.items():
        if key == metric:
            continue
        name, number = str(key), _number(value)
        why = _odd(name, value, number) or ("" if len(found.kept) < MAX_FIGURES else "one too many")
        if why and len(found.left_out) < MAX_FIGURES:
            found.left_out[name[:MAX_NAME]] = why
        elif number is not None and not why:
            found.kept[name] = number
    return found


def _odd(name: str, value: object, number: float | None) -> str:
    """Why a value is not a figure; "" if it is one."""
    if number is None:
        return "None" if value is None else type(value).__name__
    if not math.isfinite(number):
        return str(number)
    return "its name is too long" if len(name) > MAX_NAME else ""


def _metric(name: str, value: object, giver: str) -> float:
    plain = _plain(value)
    number = None if isinstance(plain, bool) else _number(plain)
    if number is None:
        raise TaskError(f"{giver} {name} = {value!r}, which is not a number")
    return number


def _number(value: Any) -> float | None:
    """The value as a float, if it is a number, a boolean, or an array of one such element."""
    plain = _plain(value)
    if not isinstance(plain, int | float):
        return None
    try:
        return float(plain)
    except OverflowError:
        # An integer too large for a float.
        return math.inf if plain > 0 else -math.inf


def _plain(value: Any) -> Any:
    """The element of an array or tensor of one element; any other value unchanged."""
    if not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except Exception:  # noqa: BLE001  (other types may have an `item` too)
        return value


def in_words(left_out: Mapping[str, str]) -> str:
    """A sentence that names what was left out and says what is kept."""
    named = [f"{name!r} ({why})" for name, why in islice(left_out.items(), MAX_NAMED)]
    more = len(left_out) - len(named)
    return (
        f"left out of results: {', '.join(named)}{f' and {more} more' if more else ''}; "
        f"figures are finite numbers, {MAX_FIGURES} at most beside the metric"
    )


class LeftOut:
    """The names that were left out so far; there is one warning per name and experiment."""

    def __init__(self) -> None:
        self._warned: dict[str, set[str]] = {}

    def new(self, experiment: str, left_out: Mapping[str, str]) -> dict[str, str]:
        """The part of `left_out` whose names are left out for the first time."""
        warned = self._warned.setdefault(experiment, set())
        if len(warned) >= MAX_WARNED:
            return {}
        new = {name: why for name, why in left_out.items() if name not in warned}
        warned.update(new)
        return new

    def forget(self, experiment: str) -> None:
        """Forget an experiment: it was removed, or another one has its name."""
        self._warned.pop(experiment, None)
