"""Six problems to check optimizers on, written without knowledge of the optimizers.

They have what population based training is said to meet: noisy returns, a rate that must rise,
regularisers that pay late, a temperature that must fall. Only their difficulty was chosen, by
truncation PBT and random search. Not part of `romul_sim.suite`, whose halves are frozen.
`romul bench --suite romul_sim.suite.unseen`.
"""

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType

import numpy as np
from numpy.random import Generator, default_rng

from romul_sim.suite import data
from romul_sim.suite.images import shifted
from romul_sim.suite.networks import (
    Mlp,
    classification,
    cross_entropy,
    drop,
    policy,
    softmax,
)
from romul_sim.suite.problem import (
    STEPS,
    Array,
    Problem,
    Spec,
    State,
    Values,
    capped,
    linear,
    log,
    whole,
)
from romul_sim.suite.training import Rule, descend, untrained

CAP = 5.0
"""Loss above which only its logarithm grows."""

Told = tuple[str, str, Mapping[str, Spec]]
"""A problem's name, kind and space."""


def _problem(
    told: Told,
    net: Mlp,
    gradient: Callable[[Array, Values, Generator], Array],
    n_updates: int,
    judge: Callable[[Array, Generator | None], float],
    identity: str,
    kind: str = "sgd",
    gain: float = 2.0,
) -> Problem:
    """Make a problem of descending `gradient` so often a step.

    `judge` gives the validation loss of weights with a generator, the test loss without. `gain` is
    that of the first weights, `kind` the optimizer.
    """
    name, what, space = told

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        before = untrained(net.layout.initial(rng, gain)) if state is None else state
        rate, momentum = values["learning_rate"], values["momentum"]
        clip = values.get("max_grad_norm", np.inf)
        rule = Rule(rate, momentum, values["weight_decay"], kind, clip)
        after = descend(before, rule, n_updates, lambda w: gradient(w, values, rng))
        return after, judge(after.weights, rng)

    return Problem(
        name, what, space, STEPS, step, lambda state: judge(state.weights, None), identity
    )


def _supervised(
    told: Told,
    net: Mlp,
    gradient: Callable[[Array, Values, Generator], Array],
    n_updates: int,
    split: data.Split,
    loss: Callable[[Array, Array], float] = cross_entropy,
    kind: str = "sgd",
    gain: float = 2.0,
    used: Callable[[Array], Array] = np.asarray,
) -> Problem:
    """Make a problem judged by a loss of outputs and labels, with weights as they are `used`."""

    def judge(weights: Array, rng: Generator | None) -> float:
        part = split.test if rng is None else split.validation
        return capped(loss(net.outputs(used(weights), part.x), part.y), CAP)

    return _problem(told, net, gradient, n_updates, judge, split.identity, kind, gain)


# -- 1: noisy returns -----------------------------------------------------------------------------

_TICKS, _SEEN, _TESTED, _TEST_SEED = 30, 8, 200, 98
_BUYER = Mlp(6, 16, 6)
"""From stock, what comes in the next two ticks, the season's sine, cosine and trend: to 0 to 5
crates of four."""


def trade(weights: Array, n: int, rng: Generator) -> tuple[Array, Array, Array]:
    """What n shops see, order and earn: shapes (ticks, n, 6), (ticks, n), (ticks, n).

    A tenth of the stock spoils in a tick. Demand has a season, and a shock for each tick.
    """
    stock, near, far = np.full(n, 8.0), np.full(n, 4.0), np.full(n, 4.0)
    phase, trend = rng.uniform(0.0, 2.0 * np.pi, n), rng.uniform(-1.0, 1.0, n)
    seen, orders, earned = [], [], []
    for tick in range(_TICKS):
        angle = 2.0 * np.pi * tick / 12.0 + phase
        sine, cosine = np.sin(angle), np.cos(angle)
        view = np.stack([stock / 10.0, near / 10.0, far / 10.0, sine, cosine, trend], axis=1)
        seen.append(view.astype(np.float32))
        odds = softmax(_BUYER.outputs(weights, seen[-1], "tanh"))
        orders.append((odds.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=5))
        stock, near, far = 0.9 * stock + near, far, 4.0 * orders[-1]
        demand = rng.poisson((6.0 + 4.0 * sine + 2.0 * trend) * rng.gamma(2.0, 0.5, n))
        sold = np.minimum(stock, demand)
        stock = stock - sold
        earned.append(sold - 0.4 * far - 0.1 * stock - (far > 0.0))
    return np.stack(seen), np.stack(orders), np.stack(earned)


def inventory() -> Problem:
    """Order perishable goods that arrive two ticks later, by a policy gradient (Williams 1992).

    Noisy: eight episodes judge. Discordant: entropy costs returns while it is there, and a policy
    that loses it early stays with what it happens to know.
    """

    def gradient(weights: Array, values: Values, rng: Generator) -> Array:
        seen, orders, earned = trade(weights, values["n_episodes"], rng)
        worth, ahead = np.zeros_like(earned), np.zeros(earned.shape[1])
        for tick in range(_TICKS - 1, -1, -1):
            ahead = earned[tick] + values["gamma"] * ahead
            worth[tick] = ahead
        worth -= values["baseline"] * worth.mean(1, keepdims=True)
        worth /= worth.std() + 1e-6
        slope = policy(orders.ravel(), worth.ravel(), values["entropy_coef"])
        return _BUYER.gradient(weights, seen.reshape(-1, 6), slope, "tanh")

    def judge(weights: Array, rng: Generator | None) -> float:
        n, rng = (_TESTED, default_rng(_TEST_SEED)) if rng is None else (_SEEN, rng)
        return -float(trade(weights, n, rng)[2].mean())

    space = {
        "learning_rate": log(1e-5, 1.0),
        "momentum": linear(0.0, 0.99),
        "weight_decay": log(1e-5, 1.0),
        "gamma": linear(0.0, 1.0),
        "baseline": linear(0.0, 1.0),
        "entropy_coef": log(1e-4, 1.0),
        "n_episodes": whole(2, 16, "log"),
    }
    identity = data.fingerprint("inventory 1", _TICKS, _SEEN, _TESTED, _TEST_SEED)
    told = ("inventory-pg", "reinforcement learning", space)
    return _problem(told, _BUYER, gradient, 4, judge, identity, "adam", 1.0)


# -- 2: a rate that must rise ---------------------------------------------------------------------


def deep() -> Problem:
    """Name digits by a plain perceptron of six hidden layers, without normalisation.

    Its weights begin too large, so that the loss is steep at first: a rate that is high at once
    kills units of the rectifier for ever, and one that is safe at first is far too low later.
    """

    def gradient(weights: Array, values: Values, rng: Generator) -> Array:
        rows: Array = rng.integers(len(split.train.y), size=(values["batch_size"],))
        slope = classification(split.train.y[rows], values["label_smoothing"])
        return net.gradient(weights, split.train.x[rows], slope)

    net = Mlp(64, *[32] * 6, 10)
    space = {
        "learning_rate": log(1e-6, 1.0),
        "momentum": linear(0.0, 0.99),
        "weight_decay": log(1e-5, 1.0),
        "label_smoothing": linear(0.0, 0.3),
        "batch_size": whole(8, 64, "log"),
    }
    told, split = ("digits-deep", "image", space), data.classes("load_digits", 500, 500, 0.0)
    return _supervised(told, net, gradient, 20, split, gain=6.0)


# -- 3: a classifier ------------------------------------------------------------------------------


def focal(labels: Array, gamma: float, weights: Array) -> Callable[[Array], Array]:
    """Derivative of the focal loss (Lin et al. 2017), a mean over rows with weights, shape (n,)."""

    def derivative(logits: Array) -> Array:
        found, rows = softmax(logits), np.arange(len(labels))
        right = np.clip(found[rows, labels], 1e-6, 1.0 - 1e-6)
        wrong = 1.0 - right
        scale = wrong**gamma - gamma * right * wrong ** (gamma - 1.0) * np.log(right)
        found[rows, labels] -= 1.0
        return np.asarray(found * (scale * weights / len(labels))[:, None], dtype=logits.dtype)

    return derivative


def _balanced(outputs: Array, labels: Array) -> float:
    each = [cross_entropy(outputs[labels == c], labels[labels == c]) for c in (0, 1)]
    return float(np.mean(each))


def rare() -> Problem:
    """Find rare malignant samples: 14 in 170 rows, 15 % of the labels drawn.

    Both classes count alike where it is judged, so that weighting, focusing and mixing
    (Zhang et al. 2018) decide, each with an optimum that depends on the others.
    """

    def gradient(weights: Array, values: Values, rng: Generator) -> Array:
        pair = rng.integers(len(split.train.y), size=(2, values["batch_size"]))
        share = rng.beta(values["mixup_alpha"], values["mixup_alpha"], pair.shape[1])
        shares = np.stack([share, 1.0 - share]).astype(np.float32)
        labels, gamma = split.train.y[pair], values["focal_gamma"]
        weighed = shares * np.where(labels == 0, values["positive_weight"], 1.0)
        first, second = (focal(labels[i], gamma, weighed[i]) for i in (0, 1))
        inputs = (shares[..., None] * split.train.x[pair]).sum(0)
        return net.gradient(weights, inputs, lambda z: first(z) + second(z))

    full, net = data.classes("load_breast_cancer", 250, 150, 0.15), Mlp(30, 48, 24, 2)
    rows = np.concatenate([np.flatnonzero(full.train.y == c)[:n] for c, n in ((0, 14), (1, 250))])
    kept = data.Part(full.train.x[rows], full.train.y[rows])
    identity = data.fingerprint(full.identity, rows)
    split = data.Split(kept, full.validation, full.test, identity)
    space = {
        "learning_rate": log(1e-5, 3.0),
        "momentum": linear(0.0, 0.99),
        "weight_decay": log(1e-5, 3.0),
        "focal_gamma": linear(0.0, 5.0),
        "positive_weight": log(0.1, 100.0),
        "mixup_alpha": log(0.01, 10.0),
        "batch_size": whole(8, 64, "log"),
    }
    told = ("cancer-rare", "tabular", space)
    return _supervised(told, net, gradient, 30, split, _balanced)


# -- 4: language ----------------------------------------------------------------------------------

_MODULES = ("argparse", "difflib", "doctest", "heapq", "optparse", "random", "statistics")
_BEFORE, _N = 6, len(data.ALPHABET)


def _letters() -> data.Split:
    """Six letters, one-hot, and the next one: of docstrings in Python's library, no examples."""
    found = set[str]()
    for name in _MODULES:
        for node in ast.walk(ast.parse(inspect.getsource(import_module(name)))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                found |= set((ast.get_docstring(node) or "").lower().split("\n\n"))
    texts = sorted(text for text in found if ">>>" not in text)
    order = default_rng(data.SPLIT_SEED).permutation(len(texts))
    kept = re.sub(r"[^a-z.,()]+", " ", " ".join(texts[i] for i in order))
    codes = np.array([data.ALPHABET.index(letter) for letter in kept[:_N_LETTERS]])
    rows = np.arange(len(codes) - _BEFORE)[:, None] + np.arange(_BEFORE)
    x = np.eye(_N, dtype=np.float32)[codes[rows]].reshape(len(rows), -1)
    whole = data.Part(x, codes[_BEFORE:])
    train, validation, test = (data.Part(whole.x[a:b], whole.y[a:b]) for a, b in _PARTS)
    return data.Split(train, validation, test, data.fingerprint(codes))


_N_LETTERS = 30_000
_PARTS = ((0, 10_000), (10_006, 13_000), (13_006, _N_LETTERS))


def docstrings() -> Problem:
    """Predict the next letter of docstrings from six before it, with noise as smoothing.

    Blanked letters and targets mixed with those of a bigram (Xie et al. 2017) slow learning, and
    pay once the text is known; Adam's rate must fall meanwhile.
    """

    def gradient(weights: Array, values: Values, rng: Generator) -> Array:
        rows: Array = rng.integers(len(split.train.y), size=(values["batch_size"],))
        mask = drop((len(rows), _BEFORE, 1), values["blanking"], rng)
        inputs = (split.train.x[rows].reshape(*mask.shape[:2], _N) * mask).reshape(len(rows), -1)
        backoff = values["backoff"]
        likely = (bigram[split.train.x[rows, -_N:].argmax(1)] - 1.0 / _N) * (backoff / len(rows))
        slope = classification(split.train.y[rows], backoff)

        def mixed(logits: Array) -> Array:
            return np.asarray(slope(logits) - likely, dtype=logits.dtype)

        return net.gradient(weights, inputs, mixed, "relu", values["dropout"], rng)

    split, net = _letters(), Mlp(_BEFORE * _N, 64, _N)
    bigram = split.train.x[:, -_N:].T @ np.eye(_N)[split.train.y] + 0.5
    bigram /= bigram.sum(1, keepdims=True)
    space = {
        "learning_rate": log(1e-5, 1.0),
        "momentum": linear(0.0, 0.99),
        "weight_decay": log(1e-5, 10.0),
        "max_grad_norm": log(1e-3, 10.0),
        "backoff": linear(0.0, 0.9),
        "blanking": linear(0.0, 0.9),
        "dropout": linear(0.0, 0.9),
        "batch_size": whole(8, 128, "log"),
    }
    told = ("docstrings-mlp", "text", space)
    return _supervised(told, net, gradient, 30, split, kind="adam")


# -- 5: regularisers that pay late ----------------------------------------------------------------


def wide() -> Problem:
    """Name digits by 256 hidden units and 150 images, 40 % of them with a drawn label.

    Discordant: without dropout, decay, blanked pixels or moved images the loss is lowest in the
    first steps, until the wrong labels are learned; with them it is high first, and lower at last.
    """

    def gradient(weights: Array, values: Values, rng: Generator) -> Array:
        rows: Array = rng.integers(len(split.train.y), size=(values["batch_size"],))
        inputs: Array = split.train.x[rows].reshape(-1, 8, 8)
        moved = rng.random((len(rows), 1, 1)) < values["shift_prob"]
        inputs = np.where(moved, shifted(inputs, 1, rng), inputs).reshape(-1, 64)
        inputs = inputs * drop(inputs.shape, values["input_dropout"], rng)
        slope = classification(split.train.y[rows])
        return net.gradient(weights, inputs, slope, "relu", values["dropout"], rng)

    split, net = data.classes("load_digits", 150, 500, 0.4), Mlp(64, 256, 10)
    space = {
        "learning_rate": log(1e-4, 1.0),
        "momentum": linear(0.0, 0.99),
        "weight_decay": log(1e-5, 10.0),
        "dropout": linear(0.0, 0.9),
        "input_dropout": linear(0.0, 0.9),
        "shift_prob": linear(0.0, 1.0),
        "batch_size": whole(8, 64, "log"),
    }
    return _supervised(("digits-mislabelled", "image", space), net, gradient, 25, split)


# -- 6: a temperature that must fall --------------------------------------------------------------


def binary() -> Problem:
    """Name digits by weights of one bit each, of which a tanh is trained (as Cao et al. 2017).

    Discordant: at a low temperature the tanh is nearly the sign that is judged, and the loss is
    low now; but few weights can change any more. At a high one training goes on, unseen.
    """

    def gradient(weights: Array, values: Values, rng: Generator) -> Array:
        rows: Array = rng.integers(len(split.train.y), size=(values["batch_size"],))
        soft = np.tanh(weights / np.float32(values["temperature"]))
        slope = classification(split.train.y[rows], values["label_smoothing"])
        used = np.where(scales > 0.0, scales * soft, weights)
        found = net.gradient(used, split.train.x[rows], slope, "relu", values["dropout"], rng)
        inner = scales * (1.0 - soft * soft) / np.float32(values["temperature"])
        return np.asarray(np.where(scales > 0.0, inner, 1.0) * found, dtype=np.float32)

    def used(weights: Array) -> Array:
        return np.where(scales > 0.0, scales * np.sign(weights), weights)

    net = Mlp(64, 96, 10)
    # Biases are real numbers. What becomes bits begins as normals of deviation 1 and 0.8.
    scales = net.layout.spread([0.15, 0.0, 0.15, 0.0])
    space = {
        "learning_rate": log(1e-4, 100.0),
        "momentum": linear(0.0, 0.99),
        "weight_decay": log(1e-6, 1.0),
        "temperature": log(0.01, 10.0),
        "label_smoothing": linear(0.0, 0.5),
        "dropout": linear(0.0, 0.8),
        "batch_size": whole(8, 64, "log"),
    }
    told, split = ("digits-binary", "image", space), data.classes("load_digits", 500, 500, 0.0)
    return _supervised(told, net, gradient, 30, split, gain=64.0, used=used)


SUITE: Mapping[str, Problem] = MappingProxyType(
    {p.name: p for p in (binary(), rare(), deep(), docstrings(), inventory(), wide())}
)
"""All problems by name."""

DEVELOP, REPORT = tuple(SUITE), ()
"""The bench plays the first by default; they are for checking, not for choosing."""
