"""Reconstruction of images of digits: from noisy images, and from a part of the pixels."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.random import Generator, default_rng

from romul_sim.suite import data
from romul_sim.suite.networks import Layout, Mlp, regression
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

KIND = "other"


def _corrupted(images: Array, masking: float, noise: float, rng: Generator) -> Array:
    kept = rng.random(images.shape, dtype=np.float32) >= masking
    grain = rng.standard_normal(images.shape, dtype=np.float32)
    return np.asarray(images * kept + np.float32(noise) * grain)


def autoencoder() -> Problem:
    """Denoise digits (Vincent et al. 2008) with 150 images; the corruption is to be tuned."""
    split, net = data.classes("load_digits", 150, 400, 0.0), Mlp(64, 96, 64)
    judged = default_rng(data.SPLIT_SEED)
    validation, test_part = (
        data.Part(_corrupted(part.x, 0.4, 0.2, judged), part.x)
        for part in (split.validation, split.test)
    )

    def gradient(weights: Array, values: Values, rng: Generator) -> Array:
        images = split.train.x[rng.integers(len(split.train.x), size=values["batch"])]
        inputs = _corrupted(images, values["masking"], values["noise"], rng)
        return net.gradient(weights, inputs, regression(images), "relu", values["dropout"], rng)

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        trained = untrained(net.layout.initial(rng, 0.5)) if state is None else state
        encoder, decoder = values["rate_encoder"], values["rate_decoder"]
        rates = net.layout.spread([encoder, encoder, decoder, decoder])
        rule = Rule(rates, values["momentum"], values["decay"], values["optimizer"], clip=100.0)
        after = descend(trained, rule, 40, lambda weights: gradient(weights, values, rng))
        return after, loss(validation, after)

    def loss(part: data.Part, state: State) -> float:
        errors = net.outputs(state.weights, part.x) - part.y
        return capped((errors * errors).sum(1).mean(), 10.0)

    space = {
        "rate_encoder": log(1e-5, 10.0),
        "rate_decoder": log(1e-5, 10.0),
        "momentum": linear(0.0, 0.99),
        "decay": log(1e-6, 10.0),
        "masking": linear(0.0, 0.95),
        "noise": log(1e-3, 10.0),
        "dropout": linear(0.0, 0.9),
        "optimizer": choice("sgd", "adam"),
        "batch": whole(8, 64, "log"),
    }
    test = partial(loss, test_part)
    return Problem("digits-denoising", KIND, space, STEPS, step, test, split.identity)


_RANK = 12
_SHOWN, _VALIDATED = 0.4, 0.15


class Factors:
    """Matrix factorisation with biases (Koren et al. 2009): rows (n, rank) times columns."""

    def __init__(self, n_rows: int, n_columns: int, rank: int) -> None:
        """Place factors and biases of rows and columns in the flat vector."""
        self.layout = Layout((n_rows, rank), (n_columns, rank), (n_rows,), (n_columns,))

    def outputs(self, flat: Array) -> Array:
        """The matrix, shape (n_rows, n_columns)."""
        rows, columns, row_bias, column_bias = self.layout.views(flat)
        return np.asarray(rows @ columns.T + row_bias[:, None] + column_bias)

    def gradient(self, flat: Array, matrix: Array, shown: Array) -> Array:
        """Gradient of half the sum of squared errors where `shown` is 1, shape (size,)."""
        rows, columns, *_ = self.layout.views(flat)
        error = (self.outputs(flat) - matrix) * shown
        found = np.empty_like(flat)
        to_rows, to_columns, to_row_bias, to_column_bias = self.layout.views(found)
        np.matmul(error, columns, out=to_rows)
        np.matmul(error.T, rows, out=to_columns)
        error.sum(1, out=to_row_bias)
        error.sum(0, out=to_column_bias)
        return found


def completed(name: str, kind: str, parts: Sequence[str], bands: Sequence[str]) -> Problem:
    """Complete 300 digits from 40 % of their pixels, with noise.

    Args:
        name: name of the problem.
        kind: kind of the problem.
        parts: parts that have their own rate and decay: rows, biases and all bands.
        bands: bands of columns, from the pixels with the smallest deviation to the largest.
    """
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
    for number, columns in enumerate(np.array_split(matrix.std(0).argsort(), len(bands))):
        band[columns] = number

    def spread(values: Values, what: str) -> Array:
        biases = values[f"{what}_biases"]
        flat = net.layout.spread([values[f"{what}_rows"], 0.0, biases, biases])
        columns = net.layout.views(flat)[1]
        by_band = np.array([values[f"{what}_{each}"] for each in bands], dtype=np.float32)
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

    space = {
        **{f"rate_{part}": log(1e-5, 1.0) for part in parts},
        **{f"decay_{part}": log(1e-4, 100.0) for part in parts},
        "momentum": linear(0.0, 0.99),
        "dropout": linear(0.0, 0.9),
    }
    identity = data.fingerprint(images.identity, which, seen)
    return Problem(name, kind, space, STEPS, step, partial(loss, tested), identity)


def completion() -> Problem:
    """Complete digits; rows, columns and biases have their own rate and decay."""
    parts = ("rows", "columns", "biases")
    return completed("digits-completion", KIND, parts, ("columns",))
