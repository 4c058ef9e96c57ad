"""What a task returns: the metric, which must be a number, and figures beside it, which may be odd.

What cannot be a figure is left out with a warning; the trial counts all the same.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from romul_actors.errors import TaskError

MAX_FIGURES = 256
"""Figures beside the metric that a result keeps."""
MAX_NAME = 100
"""Longest name of a figure, in characters; the metric's is as long at most."""
MAX_NAMED = 10
"""So many of the things that were left out are named in a sentence."""
MAX_WARNED = 100
"""After so many names of an experiment there are no more warnings: each trial may have others."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a task returned.

    Attributes:
        value: the experiment's metric; it may be NaN or infinite.
        kept: finite numbers beside it, by name; true is 1, false is 0.
        left_out: by name, what is no such number, or one too many: its type, or why.
    """

    value: float
    kept: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def figures(returned: object, metric: str, giver: str = "the task returned") -> Figures:
    """The experiment's metric, and all other figures that the task gave.

    Numbers of numpy and torch, and their tensors of one element, are numbers.

    Args:
        returned: the metric alone, or a mapping that has it.
        metric: its name.
        giver: begins the sentence that says what is wrong.

    Raises:
        TaskError: the metric is not there, or no number.
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
    """Why something is no figure; "" if it is one."""
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
    """A number or a boolean, or a tensor or array of one of them; None: it is none."""
    plain = _plain(value)
    if not isinstance(plain, int | float):
        return None
    try:
        return float(plain)
    except OverflowError:
        # A whole number beyond all floats.
        return math.inf if plain > 0 else -math.inf


def _plain(value: Any) -> Any:
    """The element of a tensor or an array that has one only: a number, to its author."""
    if not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except Exception:  # noqa: BLE001  (any other thing with an `item` is no number)
        return value


def in_words(left_out: Mapping[str, str]) -> str:
    """What was left out, in a sentence that says what is kept."""
    named = [f"{name!r} ({why})" for name, why in islice(left_out.items(), MAX_NAMED)]
    more = len(left_out) - len(named)
    return (
        f"left out of results: {', '.join(named)}{f' and {more} more' if more else ''}; "
        f"figures are finite numbers, {MAX_FIGURES} at most beside the metric"
    )


class LeftOut:
    """Names of what was left out so far: each is warned of once in an experiment."""

    def __init__(self) -> None:
        self._warned: dict[str, set[str]] = {}

    def new(self, experiment: str, left_out: Mapping[str, str]) -> dict[str, str]:
        """What of it was never left out before."""
        warned = self._warned.setdefault(experiment, set())
        if len(warned) >= MAX_WARNED:
            return {}
        new = {name: why for name, why in left_out.items() if name not in warned}
        warned.update(new)
        return new

    def forget(self, experiment: str) -> None:
        """Begin anew with an experiment of that name."""
        self._warned.pop(experiment, None)
