"""Tables: perceptrons and linear models on few rows, where regularisation decides."""

from functools import partial

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
    """Tell malignant from benign by 150 rows, 40 % of them with a drawn label."""
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
    """Tell three growers by 50 rows, 40 % of them with a drawn label."""
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


_LAYERS = ("input", "hidden", "output")


def diabetes() -> Problem:
    """Predict a disease's progress by a perceptron of 20 hyperparameters.

    Each layer has a learning rate and a weight decay of its own, each of the ten measurements a
    noise of its own, by which it can be ignored.
    """
    split, net = data.targets("load_diabetes", 120, 150), Mlp(10, 48, 24, 1)

    def gradient(weights: Array, values: Values, scales: Array, rng: Generator) -> Array:
        rows = rng.integers(len(split.train.y), size=values["batch"])
        inputs = split.train.x[rows]
        inputs = inputs + scales * rng.standard_normal(inputs.shape, dtype=np.float32)
        derivative = regression(split.train.y[rows, None], values["huber"])
        return net.gradient(weights, inputs, derivative, "relu", values["dropout"], rng)

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        trained = untrained(net.layout.initial(rng)) if state is None else state
        rates, decays = (
            net.layout.spread([values[f"{what}_{layer}"] for layer in _LAYERS for _ in range(2)])
            for what in ("rate", "decay")
        )
        scales = np.array([values[f"noise_{i}"] for i in range(10)], dtype=np.float32)
        rule = Rule(rates, values["momentum"], decays, clip=10.0)
        after = descend(trained, rule, 60, lambda weights: gradient(weights, values, scales, rng))
        return after, loss(split.validation, after)

    def loss(part: data.Part, state: State) -> float:
        errors = net.outputs(state.weights, part.x)[:, 0] - part.y
        return capped((errors * errors).mean(), 3.0)

    space = {
        **{f"rate_{layer}": log(1e-5, 1.0) for layer in _LAYERS},
        **{f"decay_{layer}": log(1e-5, 10.0) for layer in _LAYERS},
        **{f"noise_{i}": log(1e-2, 10.0) for i in range(10)},
        "momentum": linear(0.0, 0.99),
        "dropout": linear(0.0, 0.9),
        "huber": log(0.01, 10.0),
        "batch": whole(4, 64, "log"),
    }
    test = partial(loss, split.test)
    return Problem("diabetes-groups", KIND, space, STEPS, step, test, split.identity)
