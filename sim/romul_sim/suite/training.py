"""Gradient descent on one flat vector of weights, with which all networks of the suite train.

Weights, gradients and moments are bounded, so that a training that diverges has large losses but
never NaN, and can be continued. This module knows no model.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from romul_sim.suite.problem import Array

LARGEST_WEIGHT = 30.0
LARGEST_GRADIENT = 1e4
_SECOND_MOMENT = 0.98
"""Decay of the mean of squared gradients, for Adam and RMSprop; small, as trainings are short."""


class Trained(NamedTuple):
    """The state of a training.

    Attributes:
        weights: shape (n,).
        first: running mean of gradients, or heavy-ball velocity, shape (n,).
        second: running mean of squared gradients, shape (n,).
        updates: number of updates so far.
    """

    weights: Array
    first: Array
    second: Array
    updates: int


class Rule(NamedTuple):
    """The update rule.

    Attributes:
        rate: learning rate, for all weights or for each, shape (n,).
        momentum: momentum of SGD and RMSprop; for Adam the decay of the gradients' mean.
        decay: decoupled weight decay (Loshchilov & Hutter 2019), for all weights or for each.
        kind: "sgd" (heavy ball), "adam" (Kingma & Ba 2015) or "rmsprop" (Tieleman & Hinton 2012).
        clip: largest norm of a gradient; a longer gradient is scaled down.
        epsilon: added to the square root of `second`.
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
    """Update the weights `n_updates` times, without changing `trained`.

    Args:
        trained: the state to start from.
        rule: the update rule.
        n_updates: number of updates.
        gradient: returns the gradient, shape (n,), at given weights, which it must not change.
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
    """The direction of the update, shape (n,); updates the moments in place."""
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
