"""Kinds of hyperparameters, and the mapping of their values to the unit interval.

Each kind is one coordinate: a number, a number on a grid, a choice, or an ordered choice.
`space.py` combines several of them into points of the unit cube.
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
"""Tolerance for rounding errors in numbers on a grid, in steps."""
_MAX_INT = 2**63
"""Integers are stored in 64 bits."""


def identity(value: Value) -> str:
    """A text that two values share only if they have the same type and value, at every depth.

    In Python True == 1 == 1.0; as hyperparameters they are three values. A tuple counts as a list.

    Raises:
        SpaceError: it is not a JSON value; the message does not name it.
    """
    _check_json(value)
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except ValueError:
        raise SpaceError("not a finite number") from None


def _check_json(value: Value) -> None:
    """Check that a value is JSON. `json.dumps` alone would convert the keys of tables to text."""
    if isinstance(value, dict):
        for key, inside in value.items():
            if not isinstance(key, str):
                raise SpaceError(f"a table with the key {key!r}, which is not text")
            _check_json(inside)
    elif isinstance(value, list | tuple):
        for inside in value:
            _check_json(inside)
    elif isinstance(value, int) and not -_MAX_INT <= value < _MAX_INT:
        raise SpaceError("a whole number of more than 64 bits")
    elif not (value is None or isinstance(value, str | bool | int | float)):
        raise SpaceError("not text, a number, a boolean, null, or a list or table of these")


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
        raise SpaceError(f"{name}: step {step!r} exceeds the range from {low!r} to {high!r}")
    if abs(steps - round(steps)) > ON_GRID * max(1.0, steps):
        below = _on_grid(low, step, math.floor(steps))
        above = _on_grid(low, step, math.ceil(steps))
        raise SpaceError(
            f"{name}: max {high!r} is not a whole number of steps of {step!r} above min {low!r}: "
            f"make it {below!r} or {above!r}"
        )
    if scale == "log" and step > low:
        raise SpaceError(
            f"{name}: step {step!r} is above min {low!r} on a log scale: raise min, or omit "
            "step or scale"
        )


def _on_grid(low: float, step: float, index: int) -> float:
    """Value number `index` of a grid, rounded as people write it: 0.3, not 0.30000000000000004."""
    if isinstance(low, int) and isinstance(step, int):
        return low + index * step
    return float(Decimal(repr(low)) + index * Decimal(repr(step)))


def cell(position: float, n_cells: int) -> int:
    """Index of the cell that contains `position`, for [0, 1] divided into `n_cells` equal cells."""
    return min(int(position * n_cells), n_cells - 1)


class _Grid:
    """Maps equally spaced numbers to cells of the unit interval.

    On a log scale, the cell of a number extends from half a step below it to half a step above it,
    so that both bounds have full cells.
    """

    __slots__ = ("high", "log", "low", "n", "step")

    def __init__(self, low: float, high: float, step: float, scale: Scale) -> None:
        self.low, self.high, self.step, self.log = low, high, step, scale == "log"
        self.n = round((high - low) / step) + 1

    def encode(self, number: float) -> float:
        """Middle of the cell of `number`, which must be on the grid."""
        if self.log:
            return math.log(number / (self.low - self.step / 2)) / self._log_width()
        return (round((number - self.low) / self.step) + 0.5) / self.n

    def decode(self, position: float) -> int:
        """Index of the number whose cell contains `position`."""
        if not self.log:
            return cell(position, self.n)
        number = (self.low - self.step / 2) * math.exp(position * self._log_width())
        return min(max(round((number - self.low) / self.step), 0), self.n - 1)

    def index(self, number: float) -> int:
        """Index of the nearest number on the grid."""
        return min(max(round((number - self.low) / self.step), 0), self.n - 1)

    def _log_width(self) -> float:
        half = self.step / 2
        return math.log((self.high + half) / (self.low - half))


@dataclass(frozen=True, slots=True)
class FloatParameter:
    """A float in [low, high], uniform on a linear or a logarithmic scale.

    With `step`, it is one of low, low + step, low + 2 step ... high. For `guarded`, see `guard.py`.
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
        """Position of `value` in [0, 1]; on a grid, the middle of its cell.

        Raises:
            SpaceError: the value is not allowed.
        """
        number = _number(self.name, value)
        if not self.low <= number <= self.high:
            raise SpaceError(f"{self.name}: {value!r} is outside [{self.low!r}, {self.high!r}]")
        if self.step is not None:
            near = self.nearest(number)
            if abs(near - number) > ON_GRID * self.step:
                raise SpaceError(
                    f"{self.name}: {value!r} is not a whole number of steps of {self.step!r} above "
                    f"{self.low!r}; the nearest is {near!r}"
                )
            return self._grid().encode(near)
        if self.scale == "log":
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number - self.low) / (self.high - self.low)

    def decode(self, position: float) -> float:
        """Value at `position` in [0, 1], never outside the bounds despite rounding errors."""
        if self.step is not None:
            return self._at(self._grid().decode(position))
        if self.scale == "log":
            value = self.low * math.exp(position * math.log(self.high / self.low))
        else:
            value = self.low + position * (self.high - self.low)
        # Called for each coordinate of each trial: faster than `min` and `max`.
        if value < self.low:
            return self.low
        if value > self.high:
            return self.high
        return value

    def nearest(self, number: float) -> float:
        """The allowed value nearest to a number."""
        if self.step is not None:
            return self._at(self._grid().index(number))
        return min(max(number, self.low), self.high)

    def scaled(self, position: float, factor: float) -> float:
        """Position of the value at `position` times a factor; on a grid, at least one step away."""
        value = self.decode(position) * factor
        if self.step is not None:
            steps = (value - self.low) / self.step
            value = self.low + self.step * (math.ceil(steps) if factor > 1 else math.floor(steps))
        return self.encode(self.nearest(value))

    def _at(self, index: int) -> float:
        value = _on_grid(float(self.low), float(self.step or 1.0), index)
        return min(max(value, float(self.low)), float(self.high))

    def figure(self, value: Value) -> float:
        """The value as a number for plots: itself."""
        return float(value)


@dataclass(frozen=True, slots=True)
class IntParameter:
    """An integer in [low, high], or one of low, low + step, low + 2 step ... high.

    Each number has a cell of the unit interval. On a log scale, it extends from half a step below
    the number to half a step above it, so that both bounds have full cells.
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
        """Position of `value` in [0, 1]: the middle of its cell.

        Raises:
            SpaceError: the value is not allowed.
        """
        number = _number(self.name, value)
        if number != int(number):
            raise SpaceError(f"{self.name}: {value!r} is not a whole number")
        if not self.low <= number <= self.high:
            raise SpaceError(f"{self.name}: {value!r} is outside [{self.low}, {self.high}]")
        if (int(number) - self.low) % self.step:
            raise SpaceError(
                f"{self.name}: {value!r} is not a whole number of steps of {self.step} above "
                f"{self.low}; the nearest is {self.nearest(number)}"
            )
        return self._grid().encode(number)

    def decode(self, position: float) -> int:
        """Value of the cell that contains `position`."""
        return self.low + self.step * self._grid().decode(position)

    def nearest(self, number: float) -> int:
        """The allowed value nearest to a number."""
        return self.low + self.step * self._grid().index(number)

    def scaled(self, position: float, factor: float) -> float:
        """Position of the value at `position` times a factor, at least one step away."""
        # Rounding away from the value lets even small numbers move.
        value, towards = self.decode(position) * factor, math.ceil if factor > 1 else math.floor
        if self.step == 1:
            return self.encode(self.nearest(towards(value)))
        return self.encode(
            self.nearest(self.low + self.step * towards((value - self.low) / self.step))
        )

    def figure(self, value: Value) -> float:
        """The value as a number for plots: itself."""
        return float(value)


@dataclass(frozen=True, slots=True)
class CategoricalParameter:
    """One of a few choices, each any JSON value; with `ordinal` they are ordered.

    Unordered choices are drawn or copied, but never used in arithmetic. Ordered choices move like
    numbers, by their ranks.
    """

    name: str
    choices: tuple[Value, ...]
    mutable: bool = True
    ordinal: bool = False

    def __post_init__(self) -> None:
        if len(self.choices) < 2:  # noqa: PLR2004
            raise SpaceError(
                f"{self.name}: {list(self.choices)!r} has too few choices: give at least two"
            )
        seen = set()
        for choice in self.choices:
            try:
                seen.add(identity(choice))
            except SpaceError as error:
                raise SpaceError(f"{self.name}: choice {choice!r} is {error}") from None
        if len(seen) < len(self.choices):
            raise SpaceError(f"{self.name}: {list(self.choices)!r} contains a choice twice")

    @property
    def n_choices(self) -> int:
        """Number of choices if they are unordered, else 0."""
        return 0 if self.ordinal else len(self.choices)

    @property
    def labels(self) -> tuple[str, ...]:
        """The choices as distinct texts, for display."""
        texts = tuple(
            json.dumps(choice) if isinstance(choice, list | tuple | dict) else str(choice)
            for choice in self.choices
        )
        # The number 1 and the text "1", for instance, have the same `str`.
        return texts if len(set(texts)) == len(texts) else tuple(map(repr, self.choices))

    def rank(self, value: object) -> int:
        """Index of a choice, from 0; choices are compared by type and value.

        Raises:
            SpaceError: the value is not one of the choices.
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
        """Position of `value` in [0, 1]: the middle of its cell."""
        return (self.rank(value) + 0.5) / len(self.choices)

    def decode(self, position: float) -> Value:
        """Value of the cell that contains `position`; lists and tables are copied."""
        return copy.deepcopy(self.choices[cell(position, len(self.choices))])

    def scaled(self, position: float, factor: float) -> float:
        """Position of the next choice in order, upwards if the factor is above 1."""
        rank = cell(position, len(self.choices)) + (1 if factor > 1 else -1)
        return (min(max(rank, 0), len(self.choices) - 1) + 0.5) / len(self.choices)

    def figure(self, value: Value) -> float:
        """The value as a number for plots: its rank."""
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
        """Position of `value` in [0, 1]: 0.25 or 0.75."""
        if not isinstance(value, bool):
            raise SpaceError(f"{self.name}: {value!r} is not false or true")
        return 0.75 if value else 0.25

    def decode(self, position: float) -> bool:
        """Value of the half that contains `position`."""
        return position >= 0.5  # noqa: PLR2004

    def figure(self, value: Value) -> float:
        """The value as a number for plots: 0 or 1."""
        return float(value)


Parameter = FloatParameter | IntParameter | CategoricalParameter | BooleanParameter
