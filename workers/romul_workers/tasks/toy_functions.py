"""Toy problems without a state: functions whose minimum is to be found.

A step ignores the state, the number of the step and, if there is no noise, the generator.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

State = tuple[float, ...]
Values = Mapping[str, Any]


class Stepped(NamedTuple):
    """The result of one step of training.

    Attributes:
        state: the new state of the toy's model.
        observed: the loss that the search sees.
        true: the loss by which the search is judged.
    """

    state: State
    observed: float
    true: float


def vector(values: Values) -> NDArray[np.float64]:
    """Hyperparameters as numbers, shape (n,), in the order of the space."""
    return np.array(list(values.values()), dtype=float)


def _rosenbrock(values: Values) -> float:
    x = 4.0 * vector(values) - 2.0
    return float((100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum())


def step_rosenbrock(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Rosenbrock's valley on [-2, 2]^n: two directions whose scales differ by a factor of 100."""
    del state, number, rng
    loss = _rosenbrock(values)
    return Stepped((), loss, loss)


def step_noisy_rosenbrock(
    state: State | None, values: Values, number: int, rng: Generator
) -> Stepped:
    """Rosenbrock's valley with relative noise of 10 % and absolute noise of 0.1."""
    del state, number
    loss = _rosenbrock(values)
    noise = rng.standard_normal(2)
    return Stepped((), loss * (1.0 + 0.1 * float(noise[0])) + 0.1 * float(noise[1]), loss)


def step_misspecified(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """A quadratic whose three ranges are right, 10 times and 100 times too wide."""
    del state, number, rng
    # Without numpy, which takes ten times as long for three numbers: the simulator uses this toy.
    x, y, z = map(float, values.values())
    x, y, z = x - 0.3, (y - 0.7) / 0.1, (z - 0.55) / 0.01
    loss = x * x + y * y + z * z
    return Stepped((), loss, loss)


@lru_cache
def _rotation(n: int) -> NDArray[np.float64]:
    q, _ = np.linalg.qr(default_rng(4).standard_normal((n, n)))
    return np.asarray(q)


def step_ellipsoid(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """A rotated ellipsoid in 5 dimensions, axes 1 to 1000: coordinates depend on each other."""
    del state, number, rng
    x = _rotation(5) @ (vector(values) - 0.6)
    loss = float((np.logspace(0.0, 3.0, 5) * x**2).sum())
    return Stepped((), loss, loss)


def step_mixed(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """A choice, a boolean, an integer and a float; the best integer depends on the choice."""
    del state, number, rng
    layers = {"narrow": 3, "wide": 6, "deep": 9}[values["kind"]]
    loss = 0.2 * (values["kind"] != "deep") + 0.1 * (not values["norm"])
    loss += 0.05 * abs(values["layers"] - layers) + (math.log10(values["rate"]) + 2.0) ** 2
    return Stepped((), loss, loss)
