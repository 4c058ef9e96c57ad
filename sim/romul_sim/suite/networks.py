"""Networks on flat weights, with gradients by hand: layouts, losses and multilayer perceptrons.

Arrays have the type of the weights. This module knows no data and no hyperparameter space.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import numpy as np
from numpy.random import Generator

from romul_sim.suite.problem import Array

ACTIVATIONS = ("relu", "tanh", "softplus")


class Layout:
    """Where the arrays of a model lie in its flat vector of weights."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        """Lay out arrays of these shapes, one behind the other."""
        self.shapes = shapes
        ends = np.cumsum([prod(shape) for shape in shapes])
        self.slices = [
            slice(int(end) - prod(shape), int(end)) for shape, end in zip(shapes, ends, strict=True)
        ]
        self.size = int(ends[-1])

    def views(self, flat: Array) -> list[Array]:
        """The arrays; to write into them is to write into `flat`."""
        return [
            flat[where].reshape(shape)
            for where, shape in zip(self.slices, self.shapes, strict=True)
        ]

    def initial(self, rng: Generator, gain: float = 2.0) -> Array:
        """Draw weights, shape (size,): matrices of variance gain / rows (He et al. 2015)."""
        flat = np.zeros(self.size, dtype=np.float32)
        for view in self.views(flat):
            if view.ndim > 1:
                view[...] = rng.standard_normal(view.shape) * np.sqrt(gain / view.shape[-2])
        return flat

    def spread(self, values: Sequence[float]) -> Array:
        """One value for each array as one for each weight, shape (size,)."""
        flat = np.empty(self.size, dtype=np.float32)
        for where, value in zip(self.slices, values, strict=True):
            flat[where] = value
        return flat


def activate(kind: str, inputs: Array) -> Array:
    """One of `ACTIVATIONS`."""
    if kind == "relu":
        return np.maximum(inputs, 0.0)
    if kind == "tanh":
        return np.asarray(np.tanh(inputs))
    return np.maximum(inputs, 0.0) + np.log1p(np.exp(-np.abs(inputs)))


def slope(kind: str, outputs: Array) -> Array:
    """Derivative of an activation, from its outputs."""
    if kind == "relu":
        return np.asarray(outputs > 0.0, dtype=outputs.dtype)
    if kind == "tanh":
        return np.asarray(1.0 - outputs * outputs)
    return np.asarray(-np.expm1(-outputs))


def softmax(logits: Array) -> Array:
    """Probabilities over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def cross_entropy(logits: Array, labels: Array) -> float:
    """Mean cross-entropy, in nats, of logits (n, k) and labels (n,)."""
    top = logits.max(-1)
    norms = np.log(np.exp(logits - top[:, None]).sum(-1)) + top
    return float((norms - logits[np.arange(len(labels)), labels]).mean())


def classification(labels: Array, smoothing: float = 0.0) -> Callable[[Array], Array]:
    """Derivative of the mean cross-entropy, with smoothed labels (Szegedy et al. 2016)."""

    def derivative(logits: Array) -> Array:
        found = softmax(logits)
        found -= smoothing / logits.shape[-1]
        found[np.arange(len(labels)), labels] -= 1.0 - smoothing
        found /= len(labels)
        return found

    return derivative


def regression(targets: Array, width: float = np.inf) -> Callable[[Array], Array]:
    """Derivative of the mean of half the squares, over rows; of Huber's loss of a width."""

    def derivative(outputs: Array) -> Array:
        errors = outputs - targets
        if width < np.inf:
            errors = np.clip(errors, -width, width)
        return np.asarray(errors / len(targets))

    return derivative


def policy(actions: Array, weights: Array, entropy: float) -> Callable[[Array], Array]:
    """Derivative of minus the weighed log-likelihood of actions (Williams 1992), a mean over rows.

    Args:
        actions: what was done, shape (n,), by a softmax policy.
        weights: how good that was, shape (n,).
        entropy: weight of the policy's entropy, which is subtracted (Mnih et al. 2016).
    """

    def derivative(logits: Array) -> Array:
        odds = softmax(logits)
        logs = np.log(odds + 1e-8)
        found = odds * weights[:, None]
        found[np.arange(len(actions)), actions] -= weights
        found += entropy * odds * (logs - (odds * logs).sum(1, keepdims=True))
        return np.asarray(found / len(actions), dtype=logits.dtype)

    return derivative


class Mlp:
    """A multilayer perceptron: dense layers, one activation, linear outputs."""

    def __init__(self, *sizes: int) -> None:
        """Lay out a net of these layer sizes, inputs first."""
        self.sizes = sizes
        shapes: list[tuple[int, ...]] = []
        for n_in, n_out in pairwise(sizes):
            shapes += [(n_in, n_out), (n_out,)]
        self.layout = Layout(*shapes)

    def outputs(self, flat: Array, inputs: Array, activation: str = "relu") -> Array:
        """Outputs without dropout, shape (n, n_outputs)."""
        views, hidden = self.layout.views(flat), inputs
        for layer in range(0, len(views) - 2, 2):
            hidden = activate(activation, hidden @ views[layer] + views[layer + 1])
        return np.asarray(hidden @ views[-2] + views[-1])

    def gradient(
        self,
        flat: Array,
        inputs: Array,
        derivative: Callable[[Array], Array],
        activation: str = "relu",
        dropout: float = 0.0,
        rng: Generator | None = None,
    ) -> Array:
        """Gradient of a loss by the weights, shape (size,); see `gradients`."""
        return self.gradients(flat, inputs, derivative, activation, dropout, rng)[0]

    def gradients(
        self,
        flat: Array,
        inputs: Array,
        derivative: Callable[[Array], Array],
        activation: str = "relu",
        dropout: float = 0.0,
        rng: Generator | None = None,
    ) -> tuple[Array, Array]:
        """Gradient of a loss by the weights, shape (size,), and by the first layer's sums.

        Args:
            flat: weights, shape (size,).
            inputs: shape (n, n_inputs).
            derivative: derivative of the loss by the outputs, shape (n, n_outputs).
            activation: of the hidden layers.
            dropout: share of hidden units that are left out (Srivastava et al. 2014).
            rng: chooses them; needed with dropout only.
        """
        views = self.layout.views(flat)
        # Of each hidden layer: what it gives, and the derivative of that by its sums.
        layers, slopes = [inputs], list[Array]()
        for layer in range(0, len(views) - 2, 2):
            hidden = activate(activation, layers[-1] @ views[layer] + views[layer + 1])
            inward = slope(activation, hidden)
            if dropout > 0.0 and rng is not None:
                mask = drop(hidden.shape, dropout, rng)
                hidden = hidden * mask
                inward *= mask
            layers.append(hidden)
            slopes.append(inward)
        error = derivative(layers[-1] @ views[-2] + views[-1])
        found = np.empty_like(flat)
        gradients = self.layout.views(found)
        for layer in range(len(slopes), -1, -1):
            np.matmul(layers[layer].T, error, out=gradients[2 * layer])
            error.sum(0, out=gradients[2 * layer + 1])
            if layer:
                error = (error @ views[2 * layer].T) * slopes[layer - 1]
        return found, error


def drop(shape: tuple[int, ...], share: float, rng: Generator) -> Array:
    """A mask that leaves out a share of the units and scales up the rest."""
    kept = rng.random(shape, dtype=np.float32) >= share
    return np.asarray(kept / (1.0 - share), dtype=np.float32)
