"""Tables: perceptrons and linear models on few rows, which depend on regularisation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from romul_sim.suite import data
from romul_sim.suite.classifiers import CAP, classifier
from romul_sim.suite.networks import (
    ACTIVATIONS,
    Mlp,
    classification,
    cross_entropy,
    regression,
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

KIND = "tabular"


def cancer() -> Problem:
    """Classify tumours as malignant or benign with 150 rows, 40 % of them with random labels."""
    space = {
        "rate": log(1e-5, 3.0),
        "momentum": linear(0.0, 0.99),
        "decay": log(1e-6, 1.0),
        "dropout": linear(0.0, 0.9),
        "smoothing": linear(0.0, 0.5),
        "noise": log(1e-3, 10.0),
        "optimizer": choice("sgd", "adam", "rmsprop"),
        "activation": choice(*ACTIVATIONS),
        "batch": whole(8, 64, "log"),
    }
    split = data.classes("load_breast_cancer", 150, 200, 0.4)
    return classifier("cancer-mlp", KIND, space, Mlp(30, 64, 32, 2), split, 60)


def wine() -> Problem:
    """Classify wines by three growers with 50 rows, 40 % of them with random labels."""
    space = {
        "rate": log(1e-5, 10.0),
        "momentum": linear(0.0, 0.99),
        "decay": log(1e-6, 10.0),
        "dropout": linear(0.0, 0.9),
        "noise": log(1e-2, 10.0),
    }
    split = data.classes("load_wine", 50, 60, 0.4)
    return classifier("wine-mlp", KIND, space, Mlp(13, 64, 64, 3), split, 60)


def features() -> Problem:
    """Softmax regression on 400 random Fourier features (Rahimi & Recht 2007) of the digits."""
    split = _fourier(data.classes("load_digits", 300, 500, 0.3), 400)
    net = Mlp(400, 10)

    def gradient(weights: Array, values: Values, rng: Generator) -> Array:
        rows = rng.integers(len(split.train.y), size=values["batch"])
        inputs = split.train.x[rows]
        inputs = inputs * (rng.random(inputs.shape, dtype=np.float32) >= values["dropout"])
        inputs /= 1.0 - values["dropout"]
        derivative = classification(split.train.y[rows], values["smoothing"])
        found = net.gradient(weights, inputs, derivative)
        return np.asarray(found + np.float32(values["sparsity"]) * np.sign(weights))

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        trained = untrained(net.layout.initial(rng, 0.01)) if state is None else state
        rule = Rule(values["rate"], values["momentum"], values["decay"])
        after = descend(trained, rule, 50, lambda weights: gradient(weights, values, rng))
        return after, loss(split.validation, after)

    def loss(part: data.Part, state: State) -> float:
        return capped(cross_entropy(net.outputs(state.weights, part.x), part.y), CAP)

    space = {
        "rate": log(1e-4, 100.0),
        "momentum": linear(0.0, 0.99),
        "decay": log(1e-7, 1.0),
        "sparsity": log(1e-7, 0.1),
        "dropout": linear(0.0, 0.9),
        "smoothing": linear(0.0, 0.9),
        "batch": whole(4, 64, "log"),
    }
    test = partial(loss, split.test)
    return Problem("digits-features", KIND, space, STEPS, step, test, split.identity)


def _fourier(split: data.Split, n_features: int) -> data.Split:
    rng = default_rng(data.SPLIT_SEED)
    directions = rng.standard_normal((split.train.x.shape[1], n_features)) * 0.6
    phases = rng.uniform(0.0, 2.0 * np.pi, n_features)

    def mapped(part: data.Part) -> data.Part:
        waves = np.sqrt(2.0) * np.cos(part.x @ directions + phases)
        return data.Part(waves.astype(np.float32), part.y)

    identity = data.fingerprint(split.identity, n_features)
    return data.Split(mapped(split.train), mapped(split.validation), mapped(split.test), identity)


LAYERS = ("input", "hidden", "output")


@dataclass(frozen=True)
class Aim:
    """The losses of a perceptron.

    Attributes:
        knob: name of the training loss's hyperparameter.
        space: range of that hyperparameter.
        derivative: takes targets and the hyperparameter, and returns the derivative of the training
            loss with respect to the outputs.
        loss: takes outputs and targets, and returns the loss by which a state is judged.
    """

    knob: str
    space: Mapping[str, Any]
    derivative: Callable[[Array, float], Callable[[Array], Array]]
    loss: Callable[[Array, Array], float]


def _squared(outputs: Array, y: Array) -> float:
    errors = outputs[:, 0] - y
    return capped((errors * errors).mean(), 3.0)


NUMBERS = Aim("huber", log(0.01, 10.0), lambda y, huber: regression(y[:, None], huber), _squared)
CLASSES = Aim(
    "smoothing",
    linear(0.0, 0.5),
    classification,
    lambda outputs, y: capped(cross_entropy(outputs, y), CAP),
)


def grouped(
    name: str,
    kind: str,
    split: data.Split,
    net: Mlp,
    layers: Sequence[str],
    groups: Sequence[int] | Array,
    aim: Aim,
) -> Problem:
    """A perceptron with a rate and a decay for each layer, and a noise for each group of inputs.

    Args:
        name: name of the problem.
        kind: kind of the problem.
        split: the data.
        net: a network with two arrays per layer, weights and biases.
        layers: names of the layers.
        groups: the group of each input, from 0. Large noise makes the network ignore a group.
        aim: the losses.
    """
    group = np.asarray(groups)
    noises = [f"noise_{g}" for g in range(int(group.max()) + 1)]

    def gradient(weights: Array, values: Values, scales: Array, rng: Generator) -> Array:
        rows = rng.integers(len(split.train.y), size=values["batch"])
        inputs = split.train.x[rows]
        inputs = inputs + scales * rng.standard_normal(inputs.shape, dtype=np.float32)
        derivative = aim.derivative(split.train.y[rows], values[aim.knob])
        return net.gradient(weights, inputs, derivative, "relu", values["dropout"], rng)

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        trained = untrained(net.layout.initial(rng)) if state is None else state
        rates, decays = (
            net.layout.spread([values[f"{what}_{layer}"] for layer in layers for _ in range(2)])
            for what in ("rate", "decay")
        )
        scales = np.array([values[noise] for noise in noises], dtype=np.float32)[group]
        rule = Rule(rates, values["momentum"], decays, clip=10.0)
        after = descend(trained, rule, 60, lambda weights: gradient(weights, values, scales, rng))
        return after, loss(split.validation, after)

    def loss(part: data.Part, state: State) -> float:
        return aim.loss(net.outputs(state.weights, part.x), part.y)

    space = {
        **{f"rate_{layer}": log(1e-5, 1.0) for layer in layers},
        **{f"decay_{layer}": log(1e-5, 10.0) for layer in layers},
        **{noise: log(1e-2, 10.0) for noise in noises},
        "momentum": linear(0.0, 0.99),
        "dropout": linear(0.0, 0.9),
        aim.knob: aim.space,
        "batch": whole(4, 64, "log"),
    }
    return Problem(name, kind, space, STEPS, step, partial(loss, split.test), split.identity)


def diabetes() -> Problem:
    """Predict the progress of a disease with a perceptron of 20 hyperparameters."""
    split, net = data.targets("load_diabetes", 120, 150), Mlp(10, 48, 24, 1)
    return grouped("diabetes-groups", KIND, split, net, LAYERS, range(10), NUMBERS)
