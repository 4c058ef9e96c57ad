"""Models to train in no time: a state, one step of training, and the loss that follows."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator

from romul_actors.experiment import FloatSpec, ParameterSpec

State = tuple[float, ...]
Step = Callable[[State | None, Mapping[str, float], Generator], tuple[State, float]]


def bowl(state: State | None, values: Mapping[str, float], rng: Generator) -> tuple[State, float]:
    """A bowl whose axes differ in scale by 1, 10 and 100; a checkpoint does not matter."""
    del state, rng
    centre, width = (0.3, 0.7, 0.55), (1.0, 0.1, 0.01)
    loss = sum(((v - c) / w) ** 2 for v, c, w in zip(values.values(), centre, width, strict=True))
    return (), loss


def noisy_quadratic(
    state: State | None, values: Mapping[str, float], rng: Generator
) -> tuple[State, float]:
    """SGD on a noisy quadratic of 50 dimensions (Wu et al. 2018): 25 updates, learning rate `a`.

    Dropping the rate lowers the loss at once and ruins it later.
    """
    del rng
    curvature = np.logspace(-2.5, 0.0, 50)
    mean, variance = (
        (np.full(50, 3.0), np.zeros(50)) if state is None else np.split(np.array(state), 2)
    )
    rate = 1e-4 ** (1.0 - values["a"])
    for _ in range(25):
        mean = mean * (1.0 - rate * curvature)
        variance = variance * (1.0 - rate * curvature) ** 2 + (rate * curvature) ** 2
    loss = float((curvature * (mean**2 + variance)).sum() / 2.0)
    return (*mean.tolist(), *variance.tolist()), loss


def dropout(
    state: State | None, values: Mapping[str, float], rng: Generator
) -> tuple[State, float]:
    """Regularisation that costs now and pays later (the paper's example; this project's model)."""
    fitted, memorised = (0.0, 0.0) if state is None else state
    fitted += 0.15 * (1.0 - 0.6 * values["a"])
    memorised += 0.02 * (1.0 - values["a"]) ** 2
    loss = math.exp(-fitted) + memorised
    return (fitted, memorised), loss + 0.002 * float(rng.standard_normal())


PROBLEMS: Mapping[str, tuple[Step, int]] = {
    "bowl": (bowl, 3),
    "noisy-quadratic": (noisy_quadratic, 1),
    "dropout": (dropout, 1),
}
"""By name: the step of training, and the number of hyperparameters."""


def space(dims: int) -> dict[str, ParameterSpec]:
    """Hyperparameters a, b, c ... in [0, 1]."""
    return {name: FloatSpec(type="float", min=0.0, max=1.0) for name in "abcdefgh"[:dims]}
