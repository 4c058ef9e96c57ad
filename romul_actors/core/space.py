"""The search space: named hyperparameters and their mapping to the unit cube.

Optimizers work with vectors in [0, 1]^d; people and tasks with named values. Only this module
converts between them. It knows nothing of populations, losses or optimizers.

Each coordinate is an axis of one of the kinds in `parameter.py`. A hyperparameter has one axis, or
one per element if it is a list. A conditional hyperparameter always has its axes, but it is active
only where its condition holds.
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
"""A condition: names of other hyperparameters, each with the values that make one active."""

MIDDLE = 0.5
"""Coordinate of a hyperparameter that has no value because it is inactive."""


@dataclass(frozen=True, slots=True)
class VectorParameter:
    """A list of `size` values of the same kind, each with its own coordinate.

    Attributes:
        element: kind of the values; it has the name of the list.
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
        name: name of the hyperparameter that is tested.
        axis: index of its coordinate.
        allowed: identities of the values for which the condition holds.
        place: coordinate of the first of these values.
    """

    name: str
    axis: int
    allowed: frozenset[str]
    place: float


class Space:
    """The hyperparameters of an experiment, in a fixed order.

    Attributes:
        parameters: the hyperparameters as declared.
        names: names of the hyperparameters.
        when: conditions, by the name of the conditional hyperparameter.
        axes: the coordinates.
        n_choices: for each coordinate, the number of its unordered choices; 0 if it moves like a
            number.
        choice_axes: indices of the coordinates with unordered choices.
        mutable: for each coordinate, whether it may change along a line of descent.
        guarded: for each coordinate, whether the default optimizer never lowers it early in a run.

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
        """Create a space.

        Args:
            parameters: the hyperparameters, in order.
            when: conditions, by the name of the conditional hyperparameter.

        Raises:
            SpaceError: there are no parameters, a name is used twice, or a condition is invalid.
        """
        if not parameters:
            raise SpaceError("the space has no hyperparameters: declare at least one")
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
            raise SpaceError(f"{twice[0]}: declared twice: it is also an element of a list")
        self.n_choices = tuple(axis.n_choices for axis in self.axes)
        self.choice_axes = tuple(i for i, n in enumerate(self.n_choices) if n)
        self.mutable = tuple(axis.mutable for axis in self.axes)
        self.guarded = guarded_axes(self.axes)
        tests = {name: self._tests(name, when) for name, when in self.when.items()}
        self._tested = {name: tests[name] for name in _in_order(tests)}
        # Without lists and conditions, each coordinate is a value: `decode` has a fast path.
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

    # -- conditions -------------------------------------------------------------------------------

    def active(self, vector: Sequence[float] | Vector) -> tuple[bool, ...]:
        """For each coordinate, whether it is active: any condition that it has holds."""
        on = [True] * len(self.axes)
        for name in self._off(vector):
            for axis in self._spans[name]:
                on[axis] = False
        return tuple(on)

    def free(self, vector: Sequence[float] | Vector) -> tuple[bool, ...]:
        """For each coordinate, whether it may be changed: it is mutable and active."""
        if not self._tested:
            return self.mutable
        pairs = zip(self.mutable, self.active(vector), strict=True)
        return tuple(mutable and on for mutable, on in pairs)

    def held(self, vector: tuple[float, ...], line: Sequence[float]) -> tuple[float, ...]:
        """`vector`, with the coordinates that must not change taken from `line`.

        Args:
            vector: the vector that an optimizer has chosen.
            line: the vector of the trial that is continued.

        Returns:
            `vector` with the coordinates of `line` for all that are not mutable, and then for all
            that are inactive.
        """
        if not all(self.mutable):
            vector = _chosen(vector, line, self.mutable)
        return _chosen(vector, line, self.active(vector)) if self._tested else vector

    def switched_on(self, vector: Sequence[float], axis: int) -> tuple[float, ...]:
        """`vector`, changed so that a coordinate is active: conditions get their first values."""
        place = list(vector)
        names = [name for name, span in self._spans.items() if axis in span]
        while names:
            for test in self._tested.get(names.pop(), ()):
                if not self._holds(test, place):
                    place[test.axis] = test.place
                names.append(test.name)
        return tuple(place)

    def _off(self, vector: Sequence[float] | Vector) -> set[str]:
        """Names of the hyperparameters that are inactive."""
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
            raise SpaceError(f"{name}: when: {other}: a list cannot be used in a condition")
        if isinstance(parameter, FloatParameter) and parameter.step is None:
            raise SpaceError(
                f"{name}: when: {other}: a float needs a step to be used in a condition"
            )
        if not values:
            raise SpaceError(
                f"{name}: when: {other}: lists no values, so the condition never holds"
            )
        try:
            places = [parameter.encode(value) for value in values]
        except SpaceError as error:
            raise SpaceError(f"{name}: when: {error}") from None
        allowed = frozenset(identity(parameter.decode(place)) for place in places)
        return _Test(other, self._spans[other][0], allowed, places[0])

    def not_there(self, name: str) -> str:
        """A message for a name that is not in the space, with a suggestion or all names."""
        ends = [known for known in self.names if known.endswith(f".{name}")]
        near = ends or get_close_matches(name, self.names, n=1)
        if near:
            return f"not in the space: did you mean {near[0]!r}?"
        return f"not in the space; it has {', '.join(self.names)}"

    # -- values and vectors -----------------------------------------------------------------------

    def encode(self, values: Mapping[str, object]) -> tuple[float, ...]:
        """Convert named values to a vector in the unit cube, shape (n_dims,).

        Inactive hyperparameters need no values; those that are given are kept.

        Raises:
            SpaceError: a value is missing, unknown or not allowed; see `encode_some`.
        """
        vector = self.completed(self.encode_some(values), [MIDDLE] * len(self.axes))
        for name in self.names:
            if name not in values and name not in self._off(vector):
                raise SpaceError(f"{name}: no value given")
        return vector

    def encode_some(self, values: Mapping[str, object]) -> tuple[float | None, ...]:
        """Convert named values to a vector like `encode`, with None where there is no value.

        Raises:
            SpaceError: a name is unknown or a value is not allowed; the message gives the name, the
                value and the bounds.
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
        """Complete a result of `encode_some` from `other`; inactive coordinates get `MIDDLE`."""
        vector = [b if a is None else a for a, b in zip(some, other, strict=True)]
        rows = zip(some, vector, self.active(vector), strict=True)
        return tuple(MIDDLE if a is None and not on else place for a, place, on in rows)

    def decode(self, vector: Sequence[float] | Vector) -> dict[str, Value]:
        """Convert a vector to named values of the active hyperparameters.

        Raises:
            SpaceError: `vector` does not consist of n_dims coordinates in [0, 1].
        """
        if len(vector) != len(self.axes):
            raise SpaceError(
                f"a vector of {len(vector)} coordinates for a space of {len(self.axes)}"
            )
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
        """Values by the names of coordinates, so that the elements of lists have their own names.

        Values that are not in the space or do not fit it are omitted.
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
    """Names of the conditional hyperparameters, each after those that it depends on.

    Raises:
        SpaceError: the conditions contain a cycle.
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
