"""Problems of about twenty hyperparameters: a suite of its own, to choose optimizers by.

Not part of `romul_sim.suite`, whose halves are frozen. `romul bench --suite romul_sim.suite.many`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.random import Generator, default_rng

from romul_sim.suite import data
from romul_sim.suite.classifiers import CAP
from romul_sim.suite.networks import Mlp, classification, cross_entropy
from romul_sim.suite.problem import (
    STEPS,
    Array,
    Problem,
    State,
    Values,
    capped,
    linear,
    log,
    whole,
)
from romul_sim.suite.reconstruction import Factors
from romul_sim.suite.training import Rule, descend, untrained

KIND = "many hyperparameters"
_LAYERS = ("input", "hidden", "output")
_RANK, _BANDS = 12, 6
_SHOWN, _VALIDATED = 0.4, 0.15


def _noisy(
    name: str, split: data.Split, net: Mlp, layers: Sequence[str], groups: Sequence[int] | Array
) -> Problem:
    """Classify with a rate and a decay for each layer, and a noise for each group of inputs.

    Args:
        name: of the problem.
        split: the data.
        net: with two arrays, weights and biases, a layer.
        layers: their names.
        groups: by input, its group, from 0.
    """
    group = np.asarray(groups)
    noises = [f"noise_{g}" for g in range(int(group.max()) + 1)]

    def gradient(weights: Array, values: Values, scales: Array, rng: Generator) -> Array:
        rows = rng.integers(len(split.train.y), size=values["batch"])
        inputs = split.train.x[rows]
        inputs = inputs + scales * rng.standard_normal(inputs.shape, dtype=np.float32)
        derivative = classification(split.train.y[rows], values["smoothing"])
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
        return capped(cross_entropy(net.outputs(state.weights, part.x), part.y), CAP)

    space = {
        **{f"rate_{layer}": log(1e-5, 1.0) for layer in layers},
        **{f"decay_{layer}": log(1e-5, 10.0) for layer in layers},
        **{noise: log(1e-2, 10.0) for noise in noises},
        "momentum": linear(0.0, 0.99),
        "dropout": linear(0.0, 0.9),
        "smoothing": linear(0.0, 0.5),
        "batch": whole(4, 64, "log"),
    }
    return Problem(name, KIND, space, STEPS, step, partial(loss, split.test), split.identity)


def _wine() -> Problem:
    split = data.classes("load_wine", 50, 60, 0.4)
    return _noisy("wine-groups", split, Mlp(13, 48, 24, 3), _LAYERS, range(13))


def _cancer() -> Problem:
    """Each of ten measurements comes as mean, error and worst."""
    split = data.classes("load_breast_cancer", 150, 200, 0.4)
    return _noisy("cancer-groups", split, Mlp(30, 48, 24, 2), _LAYERS, np.arange(30) % 10)


def _digits() -> Problem:
    """Sixteen patches of two by two pixels."""
    pixel = np.arange(64)
    patches = (pixel // 8 // 2) * 4 + pixel % 8 // 2
    split = data.classes("load_digits", 250, 400, 0.3)
    return _noisy("digits-patches", split, Mlp(64, 64, 10), _LAYERS[::2], patches)


def _completion() -> Problem:
    """Complete digits as digits-completion does, with columns in six bands of their spread."""
    images = data.classes("load_digits", 300, 400, 0.0)
    matrix = images.train.x - images.train.x.mean()
    chosen = default_rng(data.SPLIT_SEED)
    seen = (matrix + 0.1 * chosen.standard_normal(matrix.shape)).astype(np.float32)
    which = chosen.random(matrix.shape)
    shown = (which < _SHOWN).astype(np.float32)
    validated = (which >= _SHOWN) & (which < _SHOWN + _VALIDATED)
    tested = which >= _SHOWN + _VALIDATED
    net = Factors(len(matrix), matrix.shape[1], _RANK)
    band = np.empty(matrix.shape[1], int)
    for number, columns in enumerate(np.array_split(matrix.std(0).argsort(), _BANDS)):
        band[columns] = number

    def spread(values: Values, what: str) -> Array:
        biases = values[f"{what}_biases"]
        flat = net.layout.spread([values[f"{what}_rows"], 0.0, biases, biases])
        columns = net.layout.views(flat)[1]
        by_band = np.array([values[f"{what}_{b}"] for b in range(_BANDS)], dtype=np.float32)
        columns[...] = by_band[band][:, None]
        return flat

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        trained = untrained(0.3 * net.layout.initial(rng, _RANK)) if state is None else state

        def gradient(weights: Array) -> Array:
            kept = rng.random(shown.shape, dtype=np.float32) >= values["dropout"]
            return net.gradient(weights, seen, shown * kept)

        rule = Rule(spread(values, "rate"), values["momentum"], spread(values, "decay"), clip=1e3)
        after = descend(trained, rule, 40, gradient)
        return after, loss(validated, after)

    def loss(where: Array, state: State) -> float:
        errors = (net.outputs(state.weights) - matrix)[where]
        return capped(64.0 * (errors * errors).mean(), 20.0)

    parts = ("rows", "biases", *map(str, range(_BANDS)))
    space = {
        **{f"rate_{part}": log(1e-5, 1.0) for part in parts},
        **{f"decay_{part}": log(1e-4, 100.0) for part in parts},
        "momentum": linear(0.0, 0.99),
        "dropout": linear(0.0, 0.9),
    }
    identity = data.fingerprint(images.identity, which, seen)
    test = partial(loss, tested)
    return Problem("completion-groups", KIND, space, STEPS, step, test, identity)


SUITE: Mapping[str, Problem] = MappingProxyType(
    {problem.name: problem for problem in (_cancer(), _completion(), _digits(), _wine())}
)
"""All problems by name."""

DEVELOP, REPORT = tuple(SUITE), ()
"""All were used to choose (docs/decisions/030-guarded-axes.md); there is nothing to report on."""
