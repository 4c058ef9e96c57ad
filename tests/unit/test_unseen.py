"""The suite of problems on which nothing was chosen: romul_sim.suite.unseen."""

import math
import subprocess
import sys

import numpy as np
import pytest
from numpy.random import default_rng

from romul_sim.suite.networks import softmax
from romul_sim.suite.unseen import DEVELOP, REPORT, SUITE, focal, trade
from tests.trials import declare

EVERY = pytest.mark.parametrize("name", SUITE)


@EVERY
def test_unseen_problems_are_trained_and_repeatable(name):
    problem = SUITE[name]
    assert problem.name == name
    assert problem.steps == 20
    assert 3 <= len(problem.space) <= 8
    declared = declare("x", space=problem.space).search_space()
    values = declared.decode([0.5] * len(declared))
    first, loss = problem.step(None, values, 0, default_rng(1))
    for array in first[:3]:
        # An array that is not writeable raises where a step writes into it.
        array.flags.writeable = False
    again, same = problem.step(None, values, 0, default_rng(1))
    after, _ = problem.step(first, values, 1, default_rng(2))
    assert loss == same
    assert problem.test(first) == problem.test(again)
    assert problem.test(after) != problem.test(first)
    # Each hyperparameter changes the resulting weights.
    for axis in range(len(declared)):
        place = [0.5] * len(declared)
        place[axis] = 0.9
        other, _ = problem.step(first, declared.decode(place), 0, default_rng(1))
        base, _ = problem.step(first, values, 0, default_rng(1))
        assert not np.array_equal(other.weights, base.weights)


@EVERY
def test_unseen_losses_stay_finite_in_the_corners(name):
    problem = SUITE[name]
    space, rng = declare("x", space=problem.space).search_space(), default_rng(2)
    n = len(space)
    for corner in (np.zeros(n), np.ones(n), *rng.integers(2, size=(4, n))):
        state = None
        for number in range(3):
            state, loss = problem.step(state, space.decode(corner.astype(float)), number, rng)
            assert math.isfinite(loss)
        assert math.isfinite(problem.test(state))


def test_identities_are_those_of_another_process():
    code = (
        "from romul_sim.suite.unseen import SUITE\n"
        "print(*(problem.identity for problem in SUITE.values()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    identities = [problem.identity for problem in SUITE.values()]
    assert found.stdout.split() == identities
    assert tuple(sorted(DEVELOP + REPORT)) == tuple(sorted(SUITE))


def test_the_derivative_of_the_focal_loss():
    rng = default_rng(3)
    logits, labels, weights = rng.standard_normal((6, 2)), rng.integers(2, size=6), rng.random(6)

    def loss(z):
        right = softmax(z)[np.arange(6), labels]
        return -(weights * (1.0 - right) ** 1.7 * np.log(right)).mean()

    moved = 1e-6 * rng.standard_normal((6, 2))
    slope = focal(labels, 1.7, weights)(logits)
    expected = (loss(logits + moved) - loss(logits - moved)) / 2
    assert (slope * moved).sum() == pytest.approx(expected, rel=1e-4)


def test_a_shop_that_orders_nothing_earns_what_its_first_stock_is_worth():
    weights = np.zeros(6 * 16 + 16 + 16 * 6 + 6, dtype=np.float32)
    weights[-6] = 30.0  # no crate, whatever is seen
    _, orders, earned = trade(weights, 50, default_rng(0))
    assert not orders.any()
    # Eight in stock and eight on their way: sold, or spoiled, or kept at a price.
    assert (earned.sum(0) <= 16.0).all()
    assert earned.sum(0).mean() > 5.0
