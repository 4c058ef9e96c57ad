"""A suite of its own for the tests of the bench: problems that take no time."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Problem:
    name: str
    kind: str
    space: Any
    steps: int
    step: Any
    test: Any
    identity: str


SPACE = {"x": {"type": "float", "min": 0.0, "max": 1.0}}


def descend(state, values, number, rng):
    """The closer x is to 0.7, the faster the loss approaches 0; the validation loss is noisy."""
    loss = 1.0 if state is None else state
    loss *= 0.7 + abs(values["x"] - 0.7)
    return loss, loss + 0.05 * rng.standard_normal()


def rising(state, values, number, rng):
    """The loss rises with each step, so the first step is the best."""
    return (number, values["x"]), number + values["x"]


def gated(state, values, number, rng):
    """Wait for the file that the environment names."""
    gate = os.environ.get("BENCH_GATE")
    while gate is not None and not Path(gate).exists():
        time.sleep(0.01)
    return descend(state, values, number, rng)


def never(state, values, number, rng):
    return 0.0, float("inf")


def as_it_is(state):
    return state


def ten_and(state):
    number, x = state
    return 10.0 + number + x


SUITE = {
    problem.name: problem
    for problem in (
        Problem("bowl", "test", SPACE, 6, descend, as_it_is, "0"),
        Problem("rising", "test", SPACE, 4, rising, ten_and, "0"),
        Problem("gated", "test", SPACE, 3, gated, as_it_is, "0"),
        Problem("never", "test", SPACE, 3, never, as_it_is, "0"),
    )
}
DEVELOP, REPORT = ("bowl", "gated"), ("rising",)
