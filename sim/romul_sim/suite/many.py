"""Problems with about twenty hyperparameters: a separate suite for choosing between optimizers.

It is not part of `romul_sim.suite`, whose halves are frozen. Run it with `romul bench --suite
romul_sim.suite.many`.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from romul_sim.suite import data
from romul_sim.suite.networks import Mlp
from romul_sim.suite.problem import Problem
from romul_sim.suite.reconstruction import completed
from romul_sim.suite.tabular import CLASSES, LAYERS, grouped

KIND = "many hyperparameters"
_BANDS = tuple(map(str, range(6)))


def _wine() -> Problem:
    split, net = data.classes("load_wine", 50, 60, 0.4), Mlp(13, 48, 24, 3)
    return grouped("wine-groups", KIND, split, net, LAYERS, range(13), CLASSES)


def _cancer() -> Problem:
    """Groups: ten measurements, each with mean, error and worst value."""
    split, net = data.classes("load_breast_cancer", 150, 200, 0.4), Mlp(30, 48, 24, 2)
    return grouped("cancer-groups", KIND, split, net, LAYERS, np.arange(30) % 10, CLASSES)


def _digits() -> Problem:
    """Groups: sixteen patches of two by two pixels."""
    pixel = np.arange(64)
    patches = (pixel // 8 // 2) * 4 + pixel % 8 // 2
    split, net = data.classes("load_digits", 250, 400, 0.3), Mlp(64, 64, 10)
    return grouped("digits-patches", KIND, split, net, LAYERS[::2], patches, CLASSES)


def _completion() -> Problem:
    """Complete digits like digits-completion, with the columns in six bands by their deviation."""
    return completed("completion-groups", KIND, ("rows", "biases", *_BANDS), _BANDS)


SUITE: Mapping[str, Problem] = MappingProxyType(
    {problem.name: problem for problem in (_cancer(), _completion(), _digits(), _wine())}
)
"""All problems by name."""

DEVELOP, REPORT = tuple(SUITE), ()
"""All were used for choosing (docs/decisions/030-guarded-axes.md), so none is for reporting."""
