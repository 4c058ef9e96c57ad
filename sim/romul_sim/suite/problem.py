"""What a problem of the suite is: a small real training, its hyperparameters and its judge.

This module knows no data, no model and no optimizer.
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
"""PBT steps of every problem."""

State = Any
"""Whatever a problem keeps between steps: immutable; `step` never writes into the given one."""


@dataclass(frozen=True)
class Problem:
    """A real training problem, small enough to be trained thousands of times.

    Attributes:
        name: its name.
        kind: "reinforcement learning", "image", "text", "tabular" or "other".
        space: hyperparameters, as an experiment declares them.
        steps: PBT steps that it is meant for.
        step: one step of training: (state or None, values, number of the step, generator) to the
            new state and its validation loss, which is finite; everything random comes from the
            generator.
        test: test loss of a state, which no search sees; for returns: minus the mean return of at
            least 200 episodes that are the same for every state.
        identity: SHA-256 of what the data is made of, hexadecimal.
    """

    name: str
    kind: str
    space: Mapping[str, Mapping[str, Any]]
    steps: int
    step: Callable[[State | None, Values, int, Generator], tuple[State, float]]
    test: Callable[[State], float]
    identity: str


def log(low: float, high: float) -> Spec:
    """Declare a real number, even on a logarithmic scale."""
    return {"type": "float", "min": low, "max": high, "scale": "log"}


def linear(low: float, high: float) -> Spec:
    """Declare a real number, even on a linear scale."""
    return {"type": "float", "min": low, "max": high}


def whole(low: int, high: int, scale: str = "linear") -> Spec:
    """Declare a whole number."""
    return {"type": "int", "min": low, "max": high, "scale": scale}


def choice(*choices: str) -> Spec:
    """Declare one of a few words."""
    return {"type": "categorical", "choices": list(choices)}


def capped(loss: float | np.floating[Any], cap: float) -> float:
    """The loss; above `cap` only its logarithm grows, so that diverged models keep their order.

    Not a number counts as 1e30.
    """
    value = min(float(loss), 1e30) if not math.isnan(loss) else 1e30
    return value if value <= cap else cap * (1.0 + math.log(value / cap))
