"""Networks on flat vectors of weights, with explicit gradients: layouts, losses, perceptrons.

Arrays have the dtype of the weights. This module knows no data and no hyperparameters.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import numpy as np
from numpy.random import Generator

from romul_sim.suite.problem import Array

ACTIVATIONS = ("relu", "tanh", "softplus")


class Layout:
    """The positions of a model's arrays in its flat vector of weights."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        """Place arrays of these shapes one after the other."""
        self.shapes = shapes
        ends = np.cumsum([prod(shape) for shape in shapes])
        self.slices = [
            slice(int(end) - prod(shape), int(end)) for shape, end in zip(shapes, ends, strict=True)
        ]
        self.size = int(ends[-1])

    def views(self, flat: Array) -> list[Array]:
        """The arrays as views: a write to them changes `flat`."""
        return [
            flat[where].reshape(shape)
            for where, shape in zip(self.slices, self.shapes, strict=True)
        ]

    def initial(self, rng: Generator, gain: float = 2.0) -> Array:
        """Draw weights, shape (size,): matrices with variance gain / rows (He et al. 2015)."""
        flat = np.zeros(self.size, dtype=np.float32)
        for view in self.views(flat):
            if view.ndim > 1:
                view[...] = rng.standard_normal(view.shape) * np.sqrt(gain / view.shape[-2])
        return flat

    def spread(self, values: Sequence[float]) -> Array:
        """Expand one value for each array to one for each weight, shape (size,)."""
        flat = np.empty(self.size, dtype=np.float32)
        for where, value in zip(self.slices, values, strict=True):
            flat[where] = value
        return flat


def activate(kind: str, inputs: Array) -> Array:
    """Apply an activation function; `kind` is one of `ACTIVATIONS`."""
    if kind == "relu":
        return np.maximum(inputs, 0.0)
    if kind == "tanh":
        return np.asarray(np.tanh(inputs))
    return np.maximum(inputs, 0.0) + np.log1p(np.exp(-np.abs(inputs)))


def slope(kind: str, outputs: Array) -> Array:
    """Derivative of an activation function, computed from its outputs."""
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
    """Derivative of half the mean squared error over rows; with `width`, of Huber's loss."""

    def derivative(outputs: Array) -> Array:
        errors = outputs - targets
        if width < np.inf:
            errors = np.clip(errors, -width, width)
        return np.asarray(errors / len(targets))

    return derivative


def policy(actions: Array, weights: Array, entropy: float) -> Callable[[Array], Array]:
    """Derivative of minus the weighted log-likelihood of actions (Williams 1992), mean over rows.

    Args:
        actions: actions of a softmax policy, shape (n,).
        weights: weights of the actions, such as advantages, shape (n,).
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
    """A multilayer perceptron: dense layers, one activation function, linear outputs."""

    def __init__(self, *sizes: int) -> None:
        """Make a network with these layer sizes, inputs first."""
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
        """Gradient of a loss with respect to the weights, shape (size,); see `gradients`."""
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
        """Gradients of a loss.

        Args:
            flat: weights, shape (size,).
            inputs: shape (n, n_inputs).
            derivative: takes the outputs, and returns the derivative of the loss with respect to
                them, shape (n, n_outputs).
            activation: activation function of the hidden layers.
            dropout: share of hidden units that are dropped (Srivastava et al. 2014).
            rng: random generator for dropout.

        Returns:
            The gradients with respect to the weights, shape (size,), and to the pre-activations of
            the first layer.
        """
        views = self.layout.views(flat)
        # The outputs of each hidden layer, and their derivatives by the pre-activations.
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
    """A mask that drops a share of the units and scales up the others."""
    kept = rng.random(shape, dtype=np.float32) >= share
    return np.asarray(kept / (1.0 - share), dtype=np.float32)
