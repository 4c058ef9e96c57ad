"""The interface of a problem in the suite: a small real training and its hyperparameters.

This module knows no data, model or optimizer.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[Any]
Values = Mapping[str, Any]
Spec = dict[str, Any]

STEPS = 20
"""Number of PBT steps of every problem."""

State = Any
"""The state of a problem between steps; `step` never writes to the state that it is given."""


@dataclass(frozen=True)
class Problem:
    """A real training problem, small enough to be trained thousands of times.

    Attributes:
        name: name of the problem.
        kind: "reinforcement learning", "image", "text", "tabular" or "other".
        space: hyperparameters, as an experiment declares them.
        steps: number of PBT steps that the problem is designed for.
        step: one step of training. It takes (state or None, values, number of the step, generator)
            and returns the new state and its validation loss, which is finite. All random numbers
            come from the generator.
        test: returns the test loss of a state, which a search does not see. In reinforcement
            learning it is minus the mean return of at least 200 episodes, the same for each state.
        identity: SHA-256 of the data, hexadecimal.
    """

    name: str
    kind: str
    space: Mapping[str, Mapping[str, Any]]
    steps: int
    step: Callable[[State | None, Values, int, Generator], tuple[State, float]]
    test: Callable[[State], float]
    identity: str


def log(low: float, high: float) -> Spec:
    """Declare a float on a logarithmic scale."""
    return {"type": "float", "min": low, "max": high, "scale": "log"}


def linear(low: float, high: float) -> Spec:
    """Declare a float on a linear scale."""
    return {"type": "float", "min": low, "max": high}


def whole(low: int, high: int, scale: str = "linear") -> Spec:
    """Declare an integer."""
    return {"type": "int", "min": low, "max": high, "scale": scale}


def choice(*choices: str) -> Spec:
    """Declare a categorical hyperparameter."""
    return {"type": "categorical", "choices": list(choices)}


def capped(loss: float | np.floating[Any], cap: float) -> float:
    """The loss with logarithmic growth above `cap`, so that diverged models keep their order.

    NaN counts as 1e30.
    """
    value = min(float(loss), 1e30) if not math.isnan(loss) else 1e30
    return value if value <= cap else cap * (1.0 + math.log(value / cap))
