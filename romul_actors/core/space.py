"""The search space: named hyperparameters, and their place in the unit cube.

Optimizers see vectors in [0, 1]^d only; people and tasks see named values only. This module is the
one bridge between the two. It knows nothing of populations, losses or optimizers.

Each coordinate is an axis: one of the kinds of `parameter.py`. A hyperparameter has one axis, or as
many as its list is long; one with a condition has its axes all the time, and counts at times.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from romul_actors.core.guard import guarded_axes
from romul_actors.core.parameter import (
    BooleanParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Scale,
    Value,
    identity,
)
from romul_actors.errors import SpaceError

__all__ = [
    "BooleanParameter",
    "CategoricalParameter",
    "FloatParameter",
    "IntParameter",
    "Parameter",
    "Scale",
    "Space",
    "Value",
    "Vector",
    "VectorParameter",
    "When",
]

Vector = NDArray[np.float64]
When = Mapping[str, Sequence[Value]]
"""A condition: by the name of another hyperparameter, the values of it under which one counts."""

MIDDLE = 0.5
"""Coordinate of a hyperparameter that has no value, since it does not count."""


@dataclass(frozen=True, slots=True)
class VectorParameter:
    """A list of `size` values of one kind; each is a coordinate of its own.

    Attributes:
        element: what each value may be; its name is that of the list.
        size: length of the list.
    """

    element: Parameter
    size: int

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise SpaceError(f"{self.name}: size {self.size!r} is not a whole number above 0")

    @property
    def name(self) -> str:
        """Name of the list."""
        return self.element.name

    @property
    def axes(self) -> tuple[Parameter, ...]:
        """One parameter for each value: NAME[0], NAME[1] and so on."""
        return tuple(replace(self.element, name=f"{self.name}[{i}]") for i in range(self.size))


@dataclass(frozen=True, slots=True)
class _Test:
    """One part of a condition: the value at `axis` must be one of `allowed`.

    Attributes:
        name: the hyperparameter that decides.
        axis: its coordinate.
        allowed: identities of the values under which the other one counts.
        place: coordinate of the first of them.
    """

    name: str
    axis: int
    allowed: frozenset[str]
    place: float


class Space:
    """The hyperparameters of an experiment, in a fixed order.

    Attributes:
        parameters: hyperparameters, as declared.
        names: theirs.
        when: the conditions, by name of the hyperparameter that has one.
        axes: the coordinates.
        n_choices: by coordinate, how many choices without an order it has; 0: it is moved as a
            number is.
        choice_axes: indices of coordinates with choices that have no order.
        mutable: by coordinate, whether it may change along a line of descent.
        guarded: by coordinate, whether the default optimizer never lowers it early in a run.

    Example:
        >>> space = Space([FloatParameter("lr", 1e-4, 1.0, "log"), BooleanParameter("nesterov")])
        >>> space.decode([0.5, 0.9])
        {'lr': 0.01, 'nesterov': True}
    """

    def __init__(
        self,
        parameters: Sequence[Parameter | VectorParameter],
        when: Mapping[str, When] | None = None,
    ) -> None:
        """Take the parameters as they are ordered, with the conditions of some.

        Raises:
            SpaceError: there are none, two of one name, or a condition that cannot be met.
        """
        if not parameters:
            raise SpaceError("the space has no hyperparameter: give one at least")
        self.parameters = tuple(parameters)
        self.names = tuple(parameter.name for parameter in self.parameters)
        self.when = dict(when or {})
        groups = [p.axes if isinstance(p, VectorParameter) else (p,) for p in self.parameters]
        self.axes: tuple[Parameter, ...] = tuple(axis for group in groups for axis in group)
        self._spans: dict[str, range] = {}
        for name, group in zip(self.names, groups, strict=True):
            if name in self._spans:
                raise SpaceError(f"{name}: declared twice")
            first = sum(map(len, self._spans.values()))
            self._spans[name] = range(first, first + len(group))
        names = [axis.name for axis in self.axes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SpaceError(f"{twice[0]}: declared twice, as an element of a list too")
        self.n_choices = tuple(axis.n_choices for axis in self.axes)
        self.choice_axes = tuple(i for i, n in enumerate(self.n_choices) if n)
        self.mutable = tuple(axis.mutable for axis in self.axes)
        self.guarded = guarded_axes(self.axes)
        tests = {name: self._tests(name, when) for name, when in self.when.items()}
        self._tested = {name: tests[name] for name in _in_order(tests)}
        # Neither lists nor conditions: each coordinate is a value. Decoded often.
        self._plain = self.axes == self.parameters and not tests

    def __len__(self) -> int:
        """Number of coordinates."""
        return len(self.axes)

    def __iter__(self) -> Iterator[Parameter]:
        """The coordinates."""
        return iter(self.axes)

    def axes_of(self, name: str) -> range:
        """Indices of a hyperparameter's coordinates."""
        return self._spans[name]

    # -- what counts ------------------------------------------------------------------------------

    def active(self, vector: Sequence[float] | Vector) -> tuple[bool, ...]:
        """By coordinate, whether it counts at a place: whether its condition, if any, holds."""
        on = [True] * len(self.axes)
        for name in self._off(vector):
            for axis in self._spans[name]:
                on[axis] = False
        return tuple(on)

    def free(self, vector: Sequence[float] | Vector) -> tuple[bool, ...]:
        """By coordinate, whether it may be moved away from a place: it is mutable, and counts."""
        if not self._tested:
            return self.mutable
        pairs = zip(self.mutable, self.active(vector), strict=True)
        return tuple(mutable and on for mutable, on in pairs)

    def held(self, vector: tuple[float, ...], line: Sequence[float]) -> tuple[float, ...]:
        """`vector`, with the coordinates of `line` that must not move.

        Args:
            vector: where an optimizer moves to.
            line: the place of the trial that is continued, in the line of descent.

        Returns:
            `vector` with what is not mutable, and then what does not count there, as on the line.
        """
        if not all(self.mutable):
            vector = _chosen(vector, line, self.mutable)
        return _chosen(vector, line, self.active(vector)) if self._tested else vector

    def switched_on(self, vector: Sequence[float], axis: int) -> tuple[float, ...]:
        """The nearest place where a coordinate counts: what decides that has its first value."""
        place = list(vector)
        names = [name for name, span in self._spans.items() if axis in span]
        while names:
            for test in self._tested.get(names.pop(), ()):
                if not self._holds(test, place):
                    place[test.axis] = test.place
                names.append(test.name)
        return tuple(place)

    def _off(self, vector: Sequence[float] | Vector) -> set[str]:
        """Names of the hyperparameters that do not count at a place."""
        off: set[str] = set()
        for name, tests in self._tested.items():
            if any(test.name in off or not self._holds(test, vector) for test in tests):
                off.add(name)
        return off

    def _holds(self, test: _Test, vector: Sequence[float] | Vector) -> bool:
        return identity(self.axes[test.axis].decode(float(vector[test.axis]))) in test.allowed

    def _tests(self, name: str, when: When) -> tuple[_Test, ...]:
        if name not in self._spans:
            raise SpaceError(f"{name}: {self.not_there(name)}")
        if not when:
            raise SpaceError(f"{name}: when: names no hyperparameter")
        return tuple(self._test(name, other, values) for other, values in when.items())

    def _test(self, name: str, other: str, values: Sequence[Value]) -> _Test:
        if other not in self._spans:
            raise SpaceError(f"{name}: when: {other}: {self.not_there(other)}")
        parameter = self.parameters[self.names.index(other)]
        if isinstance(parameter, VectorParameter):
            raise SpaceError(f"{name}: when: {other}: a list of values decides nothing")
        if isinstance(parameter, FloatParameter) and parameter.step is None:
            raise SpaceError(
                f"{name}: when: {other}: a real number is never exactly one: give it a step"
            )
        if not values:
            raise SpaceError(f"{name}: when: {other}: lists no value, so it would never count")
        try:
            places = [parameter.encode(value) for value in values]
        except SpaceError as error:
            raise SpaceError(f"{name}: when: {error}") from None
        allowed = frozenset(identity(parameter.decode(place)) for place in places)
        return _Test(other, self._spans[other][0], allowed, places[0])

    def not_there(self, name: str) -> str:
        """Why a name is none of the space's: what it may have meant, or all there are."""
        ends = [known for known in self.names if known.endswith(f".{name}")]
        near = ends or get_close_matches(name, self.names, n=1)
        if near:
            return f"not in the space: did you mean {near[0]!r}?"
        return f"not in the space; it has {', '.join(self.names)}"

    # -- values and places ------------------------------------------------------------------------

    def encode(self, values: Mapping[str, object]) -> tuple[float, ...]:
        """Place of named values in the unit cube, shape (n_dims,).

        A hyperparameter that does not count needs no value; one that is given is kept.

        Raises:
            SpaceError: a value is missing, or see `encode_some`.
        """
        vector = self.completed(self.encode_some(values), [MIDDLE] * len(self.axes))
        for name in self.names:
            if name not in values and name not in self._off(vector):
                raise SpaceError(f"{name}: no value given")
        return vector

    def encode_some(self, values: Mapping[str, object]) -> tuple[float | None, ...]:
        """Place of named values, as `encode` gives it; None where there is no value.

        Raises:
            SpaceError: a value is unknown or not allowed; the message names it and the bounds.
        """
        unknown = sorted(set(values) - set(self.names))
        if unknown:
            raise SpaceError(f"{unknown[0]}: {self.not_there(unknown[0])}")
        vector: list[float | None] = []
        for parameter in self.parameters:
            if parameter.name not in values:
                vector += [None] * len(self._spans[parameter.name])
            elif isinstance(parameter, VectorParameter):
                vector += _encode_list(parameter, values[parameter.name])
            else:
                vector.append(parameter.encode(values[parameter.name]))
        return tuple(vector)

    def completed(self, some: Sequence[float | None], other: Sequence[float]) -> tuple[float, ...]:
        """What `encode_some` gave; of `other` what has no value, in the middle if it is off."""
        vector = [b if a is None else a for a, b in zip(some, other, strict=True)]
        rows = zip(some, vector, self.active(vector), strict=True)
        return tuple(MIDDLE if a is None and not on else place for a, place, on in rows)

    def decode(self, vector: Sequence[float] | Vector) -> dict[str, Value]:
        """Named values at a place in the unit cube, of what counts there.

        Raises:
            SpaceError: `vector` has not n_dims coordinates in [0, 1].
        """
        if len(vector) != len(self.axes):
            raise SpaceError(f"a vector of {len(vector)} for a space of {len(self.axes)}")
        values: dict[str, Value] = {}
        plain = self._plain
        for axis, position in zip(self.axes, vector, strict=True):
            if not 0.0 <= position <= 1.0:
                raise SpaceError(f"{axis.name}: position {position!r} is outside [0, 1]")
            if plain:
                values[axis.name] = axis.decode(float(position))
        if plain:
            return values
        off = self._off(vector)
        for parameter in self.parameters:
            if parameter.name in off:
                continue
            span = self._spans[parameter.name]
            decoded = [self.axes[i].decode(float(vector[i])) for i in span]
            is_list = isinstance(parameter, VectorParameter)
            values[parameter.name] = decoded if is_list else decoded[0]
        return values

    def by_axis(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Named values by the names of coordinates: those of a list one by one.

        What is not in the space, or does not fit it, is left out.
        """
        found: dict[str, Value] = {}
        for name, span in self._spans.items():
            if name not in values:
                continue
            is_list = isinstance(self.parameters[self.names.index(name)], VectorParameter)
            inside = values[name] if is_list else [values[name]]
            if isinstance(inside, list | tuple) and len(inside) == len(span):
                found |= {self.axes[i].name: value for i, value in zip(span, inside, strict=True)}
        return found


def _chosen(
    new: tuple[float, ...], old: Sequence[float], from_new: Sequence[bool]
) -> tuple[float, ...]:
    return tuple(a if free else b for a, b, free in zip(new, old, from_new, strict=True))


def _encode_list(parameter: VectorParameter, value: object) -> list[float]:
    if not isinstance(value, list | tuple) or len(value) != parameter.size:
        raise SpaceError(f"{parameter.name}: {value!r} is not a list of {parameter.size} values")
    return [axis.encode(inside) for axis, inside in zip(parameter.axes, value, strict=True)]


def _in_order(tests: Mapping[str, Sequence[_Test]]) -> list[str]:
    """Names with a condition, each after those that it depends on.

    Raises:
        SpaceError: one depends on itself.
    """
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise SpaceError(f"{name}: when: depends on itself: {circle}")
        if name in order:
            return
        for test in tests.get(name, ()):
            visit(test.name, (*path, name))
        if name in tests:
            order.append(name)

    for name in tests:
        visit(name, ())
    return order
