"""What one hyperparameter may be, and the place of its value on the unit interval.

Each kind is one coordinate: a number, a number on a grid, a choice, a choice with an order. What
`space.py` makes of several of them is a point in the unit cube.
"""

import copy
import json
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from romul_actors.errors import SpaceError

Value = Any
"""A JSON value: null, a boolean, a number, text, a list of them, or a table from text to them."""
Scale = Literal["linear", "log"]

ON_GRID = 1e-9
"""How far from a grid's value a number may lie, in steps: rounding, no more."""
_MAX_INT = 2**63
"""Whole numbers travel in 64 bits."""


def identity(value: Value) -> str:
    """A text that two values share only if they are the same by type and value, all the way down.

    In Python True == 1 == 1.0; as hyperparameters they are three values. A tuple is a list.

    Raises:
        SpaceError: it is not a JSON value; the message does not name it.
    """
    _check_json(value)
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except ValueError:
        raise SpaceError("not a finite number") from None


def _check_json(value: Value) -> None:
    """Check that a value is JSON; json.dumps alone would turn a table's keys into text."""
    if isinstance(value, dict):
        for key, inside in value.items():
            if not isinstance(key, str):
                raise SpaceError(f"its key {key!r} is not text")
            _check_json(inside)
    elif isinstance(value, list | tuple):
        for inside in value:
            _check_json(inside)
    elif isinstance(value, int) and not -_MAX_INT <= value < _MAX_INT:
        raise SpaceError("a whole number of more than 64 bits")
    elif not (value is None or isinstance(value, str | bool | int | float)):
        raise SpaceError("not text, a number, a boolean, null, or a list or table of them")


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpaceError(f"{name}: {value!r} is not a finite number")
    return value


def _check_bounds(name: str, low: float, high: float, scale: Scale) -> None:
    for bound in (low, high):
        _number(name, bound)
    if scale not in ("linear", "log"):
        raise SpaceError(f"{name}: scale {scale!r} is not 'linear' or 'log'")
    if low >= high:
        raise SpaceError(f"{name}: min {low!r} is not below max {high!r}")
    if scale == "log" and low <= 0:
        raise SpaceError(
            f"{name}: min {low!r} on a log scale: the range must lie above 0 (max is {high!r})"
        )


def _check_grid(name: str, low: float, high: float, step: float, scale: Scale) -> None:
    """Check that `step` leads from `low` to `high`."""
    if _number(name, step) <= 0:
        raise SpaceError(f"{name}: step {step!r} is not above 0")
    steps = (high - low) / step
    if steps < 1 - ON_GRID:
        raise SpaceError(f"{name}: step {step!r} is longer than from min {low!r} to max {high!r}")
    if abs(steps - round(steps)) > ON_GRID * max(1.0, steps):
        below = _on_grid(low, step, math.floor(steps))
        above = _on_grid(low, step, math.ceil(steps))
        raise SpaceError(
            f"{name}: max {high!r} is no whole number of steps of {step!r} above min {low!r}: "
            f"make it {below!r} or {above!r}"
        )
    if scale == "log" and step > low:
        raise SpaceError(
            f"{name}: step {step!r} is above min {low!r} on a log scale: raise min, or leave out "
            "one of the two"
        )


def _on_grid(low: float, step: float, index: int) -> float:
    """Value number `index` of a grid, as people write it: 0.3, and not 0.30000000000000004."""
    if isinstance(low, int) and isinstance(step, int):
        return low + index * step
    return float(Decimal(repr(low)) + index * Decimal(repr(step)))


def cell(position: float, n_cells: int) -> int:
    """Index of the cell of [0, 1], cut into `n_cells` equal ones, that holds `position`."""
    return min(int(position * n_cells), n_cells - 1)


class _Grid:
    """Positions of equally spaced numbers, each of which owns a cell of the unit interval.

    On a log scale the cell of a number reaches from half a step below it to half a step above, so
    the two ends are as likely as the rest.
    """

    __slots__ = ("high", "log", "low", "n", "step")

    def __init__(self, low: float, high: float, step: float, scale: Scale) -> None:
        self.low, self.high, self.step, self.log = low, high, step, scale == "log"
        self.n = round((high - low) / step) + 1

    def encode(self, number: float) -> float:
        """Middle of the cell of `number`, which is on the grid."""
        if self.log:
            return math.log(number / (self.low - self.step / 2)) / self._log_width()
        return (round((number - self.low) / self.step) + 0.5) / self.n

    def decode(self, position: float) -> int:
        """Index of the number whose cell holds `position`."""
        if not self.log:
            return cell(position, self.n)
        number = (self.low - self.step / 2) * math.exp(position * self._log_width())
        return min(max(round((number - self.low) / self.step), 0), self.n - 1)

    def index(self, number: float) -> int:
        """Index of the number of the grid that is nearest."""
        return min(max(round((number - self.low) / self.step), 0), self.n - 1)

    def _log_width(self) -> float:
        half = self.step / 2
        return math.log((self.high + half) / (self.low - half))


@dataclass(frozen=True, slots=True)
class FloatParameter:
    """A real number in [low, high], even on a linear or a logarithmic scale.

    With `step` it is one of low, low + step, low + 2 step ... high. `guarded`: see `guard`.
    """

    name: str
    low: float
    high: float
    scale: Scale = "linear"
    mutable: bool = True
    step: float | None = None
    guarded: bool | None = None
    n_choices = 0
    labels = ()

    def __post_init__(self) -> None:
        _check_bounds(self.name, self.low, self.high, self.scale)
        if self.step is not None:
            _check_grid(self.name, self.low, self.high, self.step, self.scale)

    def _grid(self) -> _Grid:
        return _Grid(self.low, self.high, self.step or 1.0, self.scale)

    def encode(self, value: object) -> float:
        """Place of `value` in [0, 1]; on a grid, the middle of its cell.

        Raises:
            SpaceError: it is no such number.
        """
        number = _number(self.name, value)
        if not self.low <= number <= self.high:
            raise SpaceError(f"{self.name}: {value!r} is outside [{self.low!r}, {self.high!r}]")
        if self.step is not None:
            near = self.nearest(number)
            if abs(near - number) > ON_GRID * self.step:
                raise SpaceError(
                    f"{self.name}: {value!r} is no whole number of steps of {self.step!r} above "
                    f"{self.low!r}; the nearest is {near!r}"
                )
            return self._grid().encode(near)
        if self.scale == "log":
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number - self.low) / (self.high - self.low)

    def decode(self, position: float) -> float:
        """Value at `position` in [0, 1]; never outside the bounds, whatever the rounding."""
        if self.step is not None:
            return self._at(self._grid().decode(position))
        if self.scale == "log":
            value = self.low * math.exp(position * math.log(self.high / self.low))
        else:
            value = self.low + position * (self.high - self.low)
        # Called for each coordinate of each trial, hence without `min` and `max`.
        if value < self.low:
            return self.low
        if value > self.high:
            return self.high
        return value

    def nearest(self, number: float) -> float:
        """The allowed value that is nearest to a number."""
        if self.step is not None:
            return self._at(self._grid().index(number))
        return min(max(number, self.low), self.high)

    def scaled(self, position: float, factor: float) -> float:
        """Place of the value at `position` times a factor; on a grid, one step on at least."""
        value = self.decode(position) * factor
        if self.step is not None:
            steps = (value - self.low) / self.step
            value = self.low + self.step * (math.ceil(steps) if factor > 1 else math.floor(steps))
        return self.encode(self.nearest(value))

    def _at(self, index: int) -> float:
        value = _on_grid(float(self.low), float(self.step or 1.0), index)
        return min(max(value, float(self.low)), float(self.high))

    def figure(self, value: Value) -> float:
        """The value on an axis of figures: itself."""
        return float(value)


@dataclass(frozen=True, slots=True)
class IntParameter:
    """A whole number in [low, high], or one of low, low + step, low + 2 step ... high.

    Each number owns a cell of the unit interval (on a log scale, from its predecessor's half-way
    point to its own), so the two ends are as likely as the rest.
    """

    name: str
    low: int
    high: int
    scale: Scale = "linear"
    mutable: bool = True
    step: int = 1
    guarded: bool | None = None
    n_choices = 0
    labels = ()

    def __post_init__(self) -> None:
        for what, number in (("bound", self.low), ("bound", self.high), ("step", self.step)):
            if isinstance(number, bool) or not isinstance(number, int):
                raise SpaceError(f"{self.name}: {what} {number!r} is not a whole number")
            if not -_MAX_INT <= number < _MAX_INT:
                raise SpaceError(f"{self.name}: {what} {number!r} has more than 64 bits")
        _check_bounds(self.name, self.low, self.high, self.scale)
        _check_grid(self.name, self.low, self.high, self.step, self.scale)

    def _grid(self) -> _Grid:
        return _Grid(self.low, self.high, self.step, self.scale)

    def encode(self, value: object) -> float:
        """Place of `value` in [0, 1]: the middle of its cell.

        Raises:
            SpaceError: it is no such number.
        """
        number = _number(self.name, value)
        if number != int(number):
            raise SpaceError(f"{self.name}: {value!r} is not a whole number")
        if not self.low <= number <= self.high:
            raise SpaceError(f"{self.name}: {value!r} is outside [{self.low}, {self.high}]")
        if (int(number) - self.low) % self.step:
            raise SpaceError(
                f"{self.name}: {value!r} is no whole number of steps of {self.step} above "
                f"{self.low}; the nearest is {self.nearest(number)}"
            )
        return self._grid().encode(number)

    def decode(self, position: float) -> int:
        """Value of the cell that holds `position`."""
        return self.low + self.step * self._grid().decode(position)

    def nearest(self, number: float) -> int:
        """The allowed value that is nearest to a number."""
        return self.low + self.step * self._grid().index(number)

    def scaled(self, position: float, factor: float) -> float:
        """Place of the value at `position` times a factor, one step on at least."""
        # A small number must be able to move at all.
        value, towards = self.decode(position) * factor, math.ceil if factor > 1 else math.floor
        if self.step == 1:
            return self.encode(self.nearest(towards(value)))
        return self.encode(
            self.nearest(self.low + self.step * towards((value - self.low) / self.step))
        )

    def figure(self, value: Value) -> float:
        """The value on an axis of figures: itself."""
        return float(value)


@dataclass(frozen=True, slots=True)
class CategoricalParameter:
    """One of a few choices, each any JSON value; `ordinal`: in an order.

    Choices without an order are drawn and taken over, but never added up. Those with one are moved
    as numbers are, on their ranks.
    """

    name: str
    choices: tuple[Value, ...]
    mutable: bool = True
    ordinal: bool = False

    def __post_init__(self) -> None:
        if len(self.choices) < 2:  # noqa: PLR2004
            raise SpaceError(
                f"{self.name}: {list(self.choices)!r} is not a choice: give two at least"
            )
        seen = set()
        for choice in self.choices:
            try:
                seen.add(identity(choice))
            except SpaceError as error:
                raise SpaceError(f"{self.name}: choice {choice!r} is {error}") from None
        if len(seen) < len(self.choices):
            raise SpaceError(f"{self.name}: {list(self.choices)!r} holds a choice twice")

    @property
    def n_choices(self) -> int:
        """How many choices without an order; 0: they have one."""
        return 0 if self.ordinal else len(self.choices)

    @property
    def labels(self) -> tuple[str, ...]:
        """The choices as texts that tell them apart, for people."""
        texts = tuple(
            json.dumps(choice) if isinstance(choice, list | tuple | dict) else str(choice)
            for choice in self.choices
        )
        # The number 1 beside the text "1".
        return texts if len(set(texts)) == len(texts) else tuple(map(repr, self.choices))

    def rank(self, value: object) -> int:
        """Which of the choices, from 0; distinguished by type and value.

        Raises:
            SpaceError: none.
        """
        try:
            wanted = identity(value)
        except SpaceError:
            wanted = ""
        for index, choice in enumerate(self.choices):
            if identity(choice) == wanted:
                return index
        raise SpaceError(f"{self.name}: {value!r} is not one of {list(self.choices)!r}")

    def encode(self, value: object) -> float:
        """Place of `value` in [0, 1]: the middle of its cell."""
        return (self.rank(value) + 0.5) / len(self.choices)

    def decode(self, position: float) -> Value:
        """Value of the cell that holds `position`; a list or a table is a copy."""
        return copy.deepcopy(self.choices[cell(position, len(self.choices))])

    def scaled(self, position: float, factor: float) -> float:
        """Place of the next choice of an order: upwards if the factor is above 1."""
        rank = cell(position, len(self.choices)) + (1 if factor > 1 else -1)
        return (min(max(rank, 0), len(self.choices) - 1) + 0.5) / len(self.choices)

    def figure(self, value: Value) -> float:
        """The value on an axis of figures: its rank."""
        return float(self.rank(value))


@dataclass(frozen=True, slots=True)
class BooleanParameter:
    """False or true: a categorical parameter of two choices."""

    name: str
    mutable: bool = True
    choices = (False, True)
    n_choices = 2
    labels = ("False", "True")

    def encode(self, value: object) -> float:
        """Place of `value` in [0, 1]: 0.25 or 0.75."""
        if not isinstance(value, bool):
            raise SpaceError(f"{self.name}: {value!r} is not false or true")
        return 0.75 if value else 0.25

    def decode(self, position: float) -> bool:
        """Value of the half that holds `position`."""
        return position >= 0.5  # noqa: PLR2004

    def figure(self, value: Value) -> float:
        """The value on an axis of figures: 0 or 1."""
        return float(value)


Parameter = FloatParameter | IntParameter | CategoricalParameter | BooleanParameter
