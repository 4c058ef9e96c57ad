"""Images: a convolutional network and a perceptron on few digits, some with wrong labels."""

from functools import partial

import numpy as np
from numpy.random import Generator, default_rng

from romul_sim.suite import data
from romul_sim.suite.classifiers import CAP, classifier
from romul_sim.suite.networks import (
    ACTIVATIONS,
    Layout,
    Mlp,
    activate,
    classification,
    cross_entropy,
    drop,
)
from romul_sim.suite.problem import (
    STEPS,
    Array,
    Problem,
    State,
    Values,
    capped,
    choice,
    linear,
    log,
    whole,
)
from romul_sim.suite.training import Rule, descend, untrained

KIND = "image"
_SIDE = 8
_LARGEST_SHIFT = 3


def perceptron() -> Problem:
    """Classify digits with a perceptron and 250 images, 30 % of them with random labels."""
    space = {
        "rate": log(1e-5, 10.0),
        "momentum": linear(0.0, 0.99),
        "decay": log(1e-6, 10.0),
        "dropout": linear(0.0, 0.9),
        "smoothing": linear(0.0, 0.9),
        "noise": log(1e-3, 10.0),
        "optimizer": choice("sgd", "adam", "rmsprop"),
        "activation": choice(*ACTIVATIONS),
        "batch": whole(8, 64, "log"),
    }
    split = data.classes("load_digits", 250, 500, 0.3)
    return classifier("digits-mlp", KIND, space, Mlp(64, 64, 10), split, 60)


class ConvNet:
    """Filters of 3 x 3, then of 2 x 2 with stride 2, then a dense layer; relu activations.

    Images (n, 8, 8) become (n, 6, 6, first), (n, 3, 3, second) and logits (n, 10).
    """

    def __init__(self, first: int, second: int) -> None:
        """Make a network with these numbers of filters."""
        self.first, self.second = first, second
        self.layout = Layout(
            (9, first), (first,), (4 * first, second), (second,), (9 * second, 10), (10,)
        )
        corners = np.arange(_SIDE * _SIDE).reshape(_SIDE, _SIDE)[:6, :6]
        offsets = np.arange(3)[:, None] * _SIDE + np.arange(3)
        self._windows = corners.reshape(-1, 1) + offsets.reshape(1, -1)

    def outputs(self, flat: Array, images: Array) -> Array:
        """Logits, shape (n, 10), without dropout."""
        return self._forward(self.layout.views(flat), images)[-1]

    def _forward(
        self, views: list[Array], images: Array, mask: Array | None = None
    ) -> tuple[Array, Array, Array, Array]:
        n = len(images)
        windows = images.reshape(n, -1)[:, self._windows].reshape(n * 36, 9)
        one = activate("relu", windows @ views[0] + views[1])
        # (n, 6, 6, first) in blocks of 2 x 2.
        blocks = one.reshape(n, 3, 2, 3, 2, self.first).swapaxes(2, 3).reshape(n * 9, -1)
        two = activate("relu", blocks @ views[2] + views[3]).reshape(n, -1)
        if mask is not None:
            two = two * mask
        return windows, blocks, two, two @ views[4] + views[5]

    def gradient(
        self, flat: Array, images: Array, labels: Array, values: Values, rng: Generator
    ) -> Array:
        """Gradient of the cross-entropy, shape (size,), with `smoothing` and `dropout`."""
        views, n = self.layout.views(flat), len(images)
        mask = drop((n, 9 * self.second), values["dropout"], rng)
        windows, blocks, two, logits = self._forward(views, images, mask)
        error = classification(labels, values["smoothing"])(logits)
        found = np.empty_like(flat)
        gradients = self.layout.views(found)
        np.matmul(two.T, error, out=gradients[4])
        error.sum(0, out=gradients[5])
        error = ((error @ views[4].T) * mask * (two > 0.0)).reshape(n * 9, -1)
        np.matmul(blocks.T, error, out=gradients[2])
        error.sum(0, out=gradients[3])
        error = (error @ views[2].T) * (blocks > 0.0)
        error = error.reshape(n, 3, 3, 2, 2, self.first).swapaxes(2, 3).reshape(n * 36, -1)
        np.matmul(windows.T, error, out=gradients[0])
        error.sum(0, out=gradients[1])
        return found


def shifted(images: Array, shift: int, rng: Generator) -> Array:
    """Shift each image, shape (n, 8, 8), by up to `shift` pixels in each direction."""
    if not shift:
        return images
    n, edge = len(images), _LARGEST_SHIFT
    padded = np.pad(images, ((0, 0), (edge, edge), (edge, edge)))
    across, down = rng.integers(edge - shift, edge + shift + 1, size=(2, n, 1))
    rows, columns = down + np.arange(_SIDE), across + np.arange(_SIDE)
    return np.asarray(padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]])


def convolutional() -> Problem:
    """Classify digits with a convolutional network and 200 images, 30 % with random labels.

    Validation and test images are shifted by up to one pixel, so training with `shift` helps.
    """
    split, net = data.classes("load_digits", 200, 400, 0.3), ConvNet(8, 24)
    moved = default_rng(data.SPLIT_SEED)
    validation, test_part = (
        data.Part(shifted(part.x.reshape(-1, _SIDE, _SIDE), 1, moved), part.y)
        for part in (split.validation, split.test)
    )

    def gradient(weights: Array, values: Values, rng: Generator) -> Array:
        rows = rng.integers(len(split.train.y), size=32)
        images = shifted(split.train.x[rows].reshape(-1, _SIDE, _SIDE), values["shift"], rng)
        noise = rng.standard_normal(images.shape, dtype=np.float32)
        images = images + np.float32(values["noise"]) * noise
        return net.gradient(weights, images, split.train.y[rows], values, rng)

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        trained = untrained(net.layout.initial(rng)) if state is None else state
        rule = Rule(values["rate"], values["momentum"], values["decay"])
        after = descend(trained, rule, 32, lambda weights: gradient(weights, values, rng))
        return after, loss(validation, after)

    def loss(part: data.Part, state: State) -> float:
        return capped(cross_entropy(net.outputs(state.weights, part.x), part.y), CAP)

    space = {
        "rate": log(1e-3, 10.0),
        "momentum": linear(0.0, 0.99),
        "decay": log(1e-6, 1.0),
        "dropout": linear(0.0, 0.9),
        "smoothing": linear(0.0, 0.5),
        "noise": log(1e-3, 3.0),
        "shift": whole(0, _LARGEST_SHIFT),
    }
    test = partial(loss, test_part)
    return Problem("digits-conv", KIND, space, STEPS, step, test, split.identity)
