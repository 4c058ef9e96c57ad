"""Gradient descent on one flat vector of weights, as every network of the suite is trained.

Weights, gradients and moments are bounded, so that training that diverges gives large losses and
a state that can still be continued, never a NaN. This module knows no model.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from romul_sim.suite.problem import Array

LARGEST_WEIGHT = 30.0
LARGEST_GRADIENT = 1e4
_SECOND_MOMENT = 0.98
"""Decay of the squared gradients' mean, for Adam and RMSprop: trainings are short."""


class Trained(NamedTuple):
    """Weights in training.

    Attributes:
        weights: shape (n,).
        first: running mean of gradients, or heavy-ball speed, shape (n,).
        second: running mean of squared gradients, shape (n,).
        updates: how many led here.
    """

    weights: Array
    first: Array
    second: Array
    updates: int


class Rule(NamedTuple):
    """How a gradient becomes an update.

    Attributes:
        rate: learning rate; of all weights or of each, shape (n,).
        momentum: of SGD and RMSprop; for Adam the decay of the gradients' mean.
        decay: weight decay, apart from the gradient (Loshchilov & Hutter 2019); like `rate`.
        kind: "sgd" (heavy ball), "adam" (Kingma & Ba 2015) or "rmsprop" (Tieleman & Hinton 2012).
        clip: largest norm of a gradient; longer ones are scaled down.
        epsilon: added to the root of `second`.
    """

    rate: float | Array
    momentum: float = 0.0
    decay: float | Array = 0.0
    kind: str = "sgd"
    clip: float = np.inf
    epsilon: float = 1e-6


def untrained(weights: Array) -> Trained:
    """Weights before the first update."""
    return Trained(weights, np.zeros_like(weights), np.zeros_like(weights), 0)


def descend(
    trained: Trained, rule: Rule, n_updates: int, gradient: Callable[[Array], Array]
) -> Trained:
    """Update the weights `n_updates` times; `trained` stays as it is.

    Args:
        trained: what to start from.
        rule: how to update.
        n_updates: how often.
        gradient: gradient, shape (n,), at weights that it must not write into.
    """
    weights, first, second = (array.copy() for array in trained[:3])
    count = trained.updates
    kept = np.maximum(0.0, 1.0 - np.multiply(rule.rate, rule.decay)).astype(weights.dtype)
    rate = np.asarray(rule.rate, dtype=weights.dtype)
    with np.errstate(all="ignore"):
        for _ in range(n_updates):
            count += 1
            slope = _bounded(gradient(weights), rule.clip)
            weights *= kept
            weights -= rate * _direction(rule, slope, first, second, count)
            np.clip(weights, -LARGEST_WEIGHT, LARGEST_WEIGHT, out=weights)
    return Trained(weights, first, second, count)


def _bounded(slope: Array, clip: float) -> Array:
    norm = float(np.sqrt(slope @ slope))
    if norm > clip:
        slope = slope * (clip / norm)
    if norm < LARGEST_GRADIENT:
        return slope
    finite = np.nan_to_num(slope)
    return np.asarray(np.clip(finite, -LARGEST_GRADIENT, LARGEST_GRADIENT))


def _direction(rule: Rule, slope: Array, first: Array, second: Array, count: int) -> Array:
    """Where to go; the moments are updated in place."""
    if rule.kind != "sgd":
        second *= _SECOND_MOMENT
        second += (1.0 - _SECOND_MOMENT) * slope * slope
    if rule.kind == "rmsprop":
        slope = slope / (np.sqrt(second) + rule.epsilon)
    first *= rule.momentum
    if rule.kind != "adam":
        first += slope
        return np.clip(first, -LARGEST_GRADIENT, LARGEST_GRADIENT, out=first)
    first += (1.0 - rule.momentum) * slope
    mean = first / (1.0 - rule.momentum**count)
    square = second / (1.0 - _SECOND_MOMENT**count)
    return np.asarray(mean / (np.sqrt(square) + rule.epsilon))
