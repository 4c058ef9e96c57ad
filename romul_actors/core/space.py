"""The search space: what a hyperparameter may be, and its place in the unit cube.

Optimizers see vectors in [0, 1]^d only; people and tasks see named values only. This module is the
one bridge between the two. It knows nothing of populations, losses or optimizers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from romul_actors.errors import SpaceError

Value = float | int | str | bool
Scale = Literal["linear", "log"]
Vector = NDArray[np.float64]


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


def _cell(position: float, n_cells: int) -> int:
    """Index of the cell of [0, 1], cut into `n_cells` equal ones, that holds `position`."""
    return min(int(position * n_cells), n_cells - 1)


@dataclass(frozen=True, slots=True)
class FloatParameter:
    """A real number in [low, high], even on a linear or a logarithmic scale."""

    name: str
    low: float
    high: float
    scale: Scale = "linear"
    mutable: bool = True
    categorical = False

    def __post_init__(self) -> None:
        _check_bounds(self.name, self.low, self.high, self.scale)

    def encode(self, value: object) -> float:
        """Place of `value` in [0, 1]."""
        number = _number(self.name, value)
        if not self.low <= number <= self.high:
            raise SpaceError(f"{self.name}: {value!r} is outside [{self.low!r}, {self.high!r}]")
        if self.scale == "log":
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number - self.low) / (self.high - self.low)

    def decode(self, position: float) -> float:
        """Value at `position` in [0, 1]; never outside the bounds, whatever the rounding."""
        if self.scale == "log":
            value = self.low * math.exp(position * math.log(self.high / self.low))
        else:
            value = self.low + position * (self.high - self.low)
        return min(max(value, self.low), self.high)


@dataclass(frozen=True, slots=True)
class IntParameter:
    """A whole number in [low, high].

    Each number owns a cell of the unit interval (on a log scale, from its predecessor's half-way
    point to its own), so the two ends are as likely as the rest.
    """

    name: str
    low: int
    high: int
    scale: Scale = "linear"
    mutable: bool = True
    categorical = False

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            if isinstance(bound, bool) or not isinstance(bound, int):
                raise SpaceError(f"{self.name}: bound {bound!r} is not a whole number")
        _check_bounds(self.name, self.low, self.high, self.scale)

    def encode(self, value: object) -> float:
        """Place of `value` in [0, 1]: the middle of its cell."""
        number = _number(self.name, value)
        if number != int(number):
            raise SpaceError(f"{self.name}: {value!r} is not a whole number")
        if not self.low <= number <= self.high:
            raise SpaceError(f"{self.name}: {value!r} is outside [{self.low}, {self.high}]")
        if self.scale == "log":
            return math.log(number / (self.low - 0.5)) / self._log_width()
        return (number - self.low + 0.5) / (self.high - self.low + 1)

    def decode(self, position: float) -> int:
        """Value of the cell that holds `position`."""
        if self.scale == "log":
            value = round((self.low - 0.5) * math.exp(position * self._log_width()))
            return min(max(value, self.low), self.high)
        return self.low + _cell(position, self.high - self.low + 1)

    def _log_width(self) -> float:
        return math.log((self.high + 0.5) / (self.low - 0.5))


@dataclass(frozen=True, slots=True)
class CategoricalParameter:
    """One of a few choices without an order."""

    name: str
    choices: tuple[Value, ...]
    mutable: bool = True
    categorical = True

    def __post_init__(self) -> None:
        if len(self.choices) < 2:  # noqa: PLR2004
            raise SpaceError(
                f"{self.name}: {list(self.choices)!r} is not a choice: give two at least"
            )
        for choice in self.choices:
            if not isinstance(choice, str | int | float):
                raise SpaceError(
                    f"{self.name}: choice {choice!r} is not text, a number or a boolean"
                )
        # 1 == True in Python: a choice is told apart by its type as well.
        if len({(type(choice), choice) for choice in self.choices}) < len(self.choices):
            raise SpaceError(f"{self.name}: {list(self.choices)!r} holds a choice twice")

    def encode(self, value: object) -> float:
        """Place of `value` in [0, 1]: the middle of its cell."""
        for index, choice in enumerate(self.choices):
            if type(choice) is type(value) and choice == value:
                return (index + 0.5) / len(self.choices)
        raise SpaceError(f"{self.name}: {value!r} is not one of {list(self.choices)!r}")

    def decode(self, position: float) -> Value:
        """Value of the cell that holds `position`."""
        return self.choices[_cell(position, len(self.choices))]


@dataclass(frozen=True, slots=True)
class BooleanParameter:
    """False or true: a categorical parameter of two choices."""

    name: str
    mutable: bool = True
    categorical = True
    choices = (False, True)

    def encode(self, value: object) -> float:
        """Place of `value` in [0, 1]: 0.25 or 0.75."""
        if not isinstance(value, bool):
            raise SpaceError(f"{self.name}: {value!r} is not false or true")
        return 0.75 if value else 0.25

    def decode(self, position: float) -> bool:
        """Value of the half that holds `position`."""
        return position >= 0.5  # noqa: PLR2004


Parameter = FloatParameter | IntParameter | CategoricalParameter | BooleanParameter


class Space:
    """The hyperparameters of an experiment, in a fixed order.

    Example:
        >>> space = Space([FloatParameter("lr", 1e-4, 1.0, "log"), BooleanParameter("nesterov")])
        >>> space.decode([0.5, 0.9])
        {'lr': 0.01, 'nesterov': True}
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        """Take the parameters as they are ordered.

        Raises:
            SpaceError: there are none, or two of one name.
        """
        names = [parameter.name for parameter in parameters]
        if not names:
            raise SpaceError("the space has no hyperparameter: give one at least")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SpaceError(f"{twice[0]}: declared twice")
        self.parameters = tuple(parameters)
        self.names = tuple(names)
        self.n_choices = tuple(
            len(parameter.choices) if parameter.categorical else 0  # type: ignore[union-attr]
            for parameter in self.parameters
        )
        self.choice_axes = tuple(i for i, n in enumerate(self.n_choices) if n)
        self.mutable = tuple(parameter.mutable for parameter in self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def with_bounds(self, name: str, low: float, high: float) -> "Space":
        """The space with other bounds of a number.

        Raises:
            SpaceError: there is no such number, or it must not have these bounds.
        """
        if name not in self.names:
            raise SpaceError(f"{name}: not in the space; it has {', '.join(self.names)}")
        parameter = self.parameters[self.names.index(name)]
        if isinstance(parameter, IntParameter):
            if low != int(low) or high != int(high):
                raise SpaceError(f"{name}: {low!r} and {high!r} are not whole numbers")
            parameter = replace(parameter, low=int(low), high=int(high))
        elif isinstance(parameter, FloatParameter):
            parameter = replace(parameter, low=float(low), high=float(high))
        else:
            raise SpaceError(f"{name}: not a number: it has choices, and no bounds")
        return Space([parameter if p.name == name else p for p in self.parameters])

    def translate(self, vector: Sequence[float], to: "Space") -> tuple[float, ...]:
        """A place in this space as the nearest one in a space of other bounds."""
        moved = []
        for old, new, position in zip(self, to, vector, strict=True):
            if old == new or not isinstance(new, FloatParameter | IntParameter):
                moved.append(position)
            else:
                value = float(old.decode(position))
                moved.append(new.encode(min(max(value, new.low), new.high)))
        return tuple(moved)

    def encode(self, values: Mapping[str, object]) -> tuple[float, ...]:
        """Place of named values in the unit cube, shape (n_dims,).

        Raises:
            SpaceError: a value is missing, unknown or not allowed; the message names the
                parameter, the value and the bounds.
        """
        unknown = sorted(set(values) - set(self.names))
        if unknown:
            raise SpaceError(f"{unknown[0]}: not in the space; it has {', '.join(self.names)}")
        missing = [name for name in self.names if name not in values]
        if missing:
            raise SpaceError(f"{missing[0]}: no value given")
        return tuple(parameter.encode(values[parameter.name]) for parameter in self.parameters)

    def decode(self, vector: Sequence[float] | Vector) -> dict[str, Value]:
        """Named values at a place in the unit cube.

        Raises:
            SpaceError: `vector` has not n_dims coordinates in [0, 1].
        """
        if len(vector) != len(self.parameters):
            raise SpaceError(f"a vector of {len(vector)} for a space of {len(self.parameters)}")
        values: dict[str, Value] = {}
        for parameter, position in zip(self.parameters, vector, strict=True):
            if not 0.0 <= position <= 1.0:
                raise SpaceError(f"{parameter.name}: position {position!r} is outside [0, 1]")
            values[parameter.name] = parameter.decode(float(position))
        return values
