"""Tables: perceptrons and linear models on few rows, where regularisation decides."""

from functools import partial

import numpy as np
from numpy.random import Generator, default_rng

from romul_sim.suite import data
from romul_sim.suite.networks import ACTIVATIONS, Mlp, classification, cross_entropy
from romul_sim.suite.problem import (
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
from romul_sim.suite.training import Rule, Trained, descend, untrained

KIND = "tabular"
STEPS = 20


def _classify(
    net: Mlp,
    split: data.Split,
    n_updates: int,
    state: State | None,
    values: Values,
    number: int,
    rng: Generator,
) -> tuple[State, float]:
    """Train a perceptron with whatever regularisers `values` names."""
    del number
    trained: Trained = state[0] if state else untrained(net.layout.initial(rng))
    train, activation = split.train, str(values.get("activation", "relu"))
    noise, smoothing = values.get("noise", 0.0), values.get("smoothing", 0.0)

    def gradient(weights: Array) -> Array:
        rows = rng.integers(len(train.y), size=values.get("batch", 32))
        inputs = train.x[rows]
        if noise:
            inputs = inputs + noise * rng.standard_normal(inputs.shape, dtype=np.float32)
        derivative = classification(train.y[rows], smoothing)
        return net.gradient(weights, inputs, derivative, activation, values["dropout"], rng)

    rule = Rule(values["rate"], values["momentum"], values["decay"], values.get("optimizer", "sgd"))
    # The activation is the step's, so the judge must know it.
    after = (descend(trained, rule, n_updates, gradient), activation)
    return after, _loss(net, split.validation, after)


def _loss(net: Mlp, part: data.Part, state: State) -> float:
    return capped(cross_entropy(net.outputs(state[0].weights, part.x, state[1]), part.y), 5.0)


def cancer() -> Problem:
    """Tell malignant from benign by 150 rows, 30 of them with a drawn label."""
    split = data.classes("load_breast_cancer", 150, 200, 0.4)
    net = Mlp(30, 64, 32, 2)
    return Problem(
        "cancer-mlp",
        KIND,
        {
            "rate": log(1e-5, 3.0),
            "momentum": linear(0.0, 0.99),
            "decay": log(1e-6, 1.0),
            "dropout": linear(0.0, 0.9),
            "smoothing": linear(0.0, 0.5),
            "noise": log(1e-3, 10.0),
            "optimizer": choice("sgd", "adam", "rmsprop"),
            "activation": choice(*ACTIVATIONS),
            "batch": whole(8, 64, "log"),
        },
        STEPS,
        partial(_classify, net, split, 60),
        partial(_loss, net, split.test),
        split.identity,
    )


def features() -> Problem:
    """Softmax regression on 400 random Fourier features (Rahimi & Recht 2007) of the digits."""
    split = _fourier(data.classes("load_digits", 300, 500, 0.3), 400)
    net = Mlp(400, 10)

    def gradient(weights: Array, values: Values, rng: Generator) -> Array:
        rows = rng.integers(len(split.train.y), size=values["batch"])
        inputs = split.train.x[rows]
        inputs = inputs * (rng.random(inputs.shape, dtype=np.float32) >= values["dropout"])
        inputs /= 1.0 - values["dropout"]
        found = net.gradient(
            weights, inputs, classification(split.train.y[rows], values["smoothing"])
        )
        return np.asarray(found + values["sparsity"] * np.sign(weights))

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        trained = untrained(net.layout.initial(rng, 0.01)) if state is None else state
        rule = Rule(values["rate"], values["momentum"], values["decay"])
        after = descend(trained, rule, 50, lambda weights: gradient(weights, values, rng))
        return after, loss(split.validation, after)

    def loss(part: data.Part, state: State) -> float:
        return capped(cross_entropy(net.outputs(state.weights, part.x), part.y), 5.0)

    return Problem(
        "digits-features",
        KIND,
        {
            "rate": log(1e-4, 100.0),
            "momentum": linear(0.0, 0.99),
            "decay": log(1e-7, 1.0),
            "sparsity": log(1e-7, 0.1),
            "dropout": linear(0.0, 0.9),
            "smoothing": linear(0.0, 0.9),
            "batch": whole(4, 64, "log"),
        },
        STEPS,
        step,
        partial(loss, split.test),
        split.identity,
    )


def _fourier(split: data.Split, n_features: int) -> data.Split:
    rng = default_rng(data.SPLIT_SEED)
    directions = rng.standard_normal((split.train.x.shape[1], n_features)) * 0.6
    phases = rng.uniform(0.0, 2.0 * np.pi, n_features)

    def mapped(part: data.Part) -> data.Part:
        waves = np.sqrt(2.0) * np.cos(part.x @ directions + phases)
        return data.Part(waves.astype(np.float32), part.y)

    identity = data.fingerprint(split.identity, n_features)
    return data.Split(mapped(split.train), mapped(split.validation), mapped(split.test), identity)
