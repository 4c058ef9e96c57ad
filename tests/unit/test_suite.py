"""The suite of small real training problems."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from numpy.random import default_rng

from romul_actors.errors import TaskError
from romul_sim import suite
from romul_sim.suite import DEVELOP, REPORT, SUITE, data, many, networks, training
from romul_sim.suite.control import _balance
from romul_sim.suite.images import ConvNet, shifted
from romul_sim.suite.networks import Mlp, classification, cross_entropy, policy, regression
from romul_sim.suite.problem import capped
from romul_sim.suite.pursuit import follow
from romul_sim.suite.reconstruction import Factors
from romul_sim.suite.regulator import System
from romul_sim.suite.text import Recurrent, Window
from tests.trials import declare

EVERY = pytest.mark.parametrize("name", SUITE)

SANE = {
    "cart-pole": {
        "rate": 0.1,
        "critic_rate": 0.5,
        "width": 0.3,
        "myopia": 0.02,
        "trace": 0.9,
        "momentum": 0.8,
        "decay": 1e-4,
        "clip": 10.0,
    },
    "regulator-pg": {
        "rate": 0.03,
        "width": 0.5,
        "myopia": 0.1,
        "momentum": 0.8,
        "decay": 1e-4,
        "clip": 1.0,
        "baseline": "by tick",
        "optimizer": "sgd",
    },
    "digits-bandit": {
        "rate": 0.01,
        "momentum": 0.9,
        "decay": 1e-5,
        "entropy": 0.05,
        "exploration": 0.02,
        "baseline_rate": 0.1,
        "optimizer": "adam",
        "batch": 64,
    },
    "pursuit-es": {
        "rate": 0.1,
        "width": 0.3,
        "momentum": 0.5,
        "decay": 1e-4,
        "clip": 10.0,
        "shaping": "ranks",
        "optimizer": "adam",
    },
    "digits-conv": {
        "rate": 0.1,
        "momentum": 0.8,
        "decay": 1e-4,
        "dropout": 0.2,
        "smoothing": 0.1,
        "noise": 0.1,
        "shift": 1,
    },
    "digits-mlp": {
        "rate": 0.003,
        "momentum": 0.9,
        "decay": 0.01,
        "dropout": 0.2,
        "smoothing": 0.1,
        "noise": 0.1,
        "optimizer": "adam",
        "activation": "relu",
        "batch": 32,
    },
    "letters-rnn": {
        "rate_input": 0.3,
        "rate_recurrent": 0.03,
        "rate_output": 0.3,
        "momentum": 0.8,
        "decay": 1e-6,
        "clip": 1.0,
        "dropout": 0.0,
        "horizon": 8,
    },
    "words-window": {
        "rate_embedding": 1.0,
        "rate_hidden": 0.1,
        "rate_output": 0.5,
        "decay_embedding": 1e-5,
        "decay_hidden": 1e-5,
        "decay_output": 1e-5,
        "momentum": 0.7,
        "dropout": 0.1,
        "word_dropout": 0.1,
        "smoothing": 0.05,
        "batch": 64,
    },
    "cancer-mlp": {
        "rate": 0.0003,
        "momentum": 0.9,
        "decay": 0.01,
        "dropout": 0.5,
        "smoothing": 0.0,
        "noise": 0.3,
        "optimizer": "sgd",
        "activation": "tanh",
        "batch": 32,
    },
    "diabetes-groups": {
        **{f"rate_{layer}": 0.003 for layer in ("input", "hidden", "output")},
        **{f"decay_{layer}": 0.1 for layer in ("input", "hidden", "output")},
        **{f"noise_{i}": 0.3 for i in range(10)},
        "momentum": 0.8,
        "dropout": 0.2,
        "huber": 1.0,
        "batch": 32,
    },
    "digits-features": {
        "rate": 0.003,
        "momentum": 0.8,
        "decay": 1e-3,
        "sparsity": 1e-5,
        "dropout": 0.5,
        "smoothing": 0.05,
        "batch": 32,
    },
    "wine-mlp": {"rate": 0.003, "momentum": 0.5, "decay": 0.01, "dropout": 0.3, "noise": 0.3},
    "digits-completion": {
        **{f"rate_{of}": 0.003 for of in ("rows", "columns", "biases")},
        **{f"decay_{of}": 3.0 for of in ("rows", "columns", "biases")},
        "momentum": 0.5,
        "dropout": 0.1,
    },
    "digits-denoising": {
        "rate_encoder": 0.003,
        "rate_decoder": 0.003,
        "momentum": 0.9,
        "decay": 1e-4,
        "masking": 0.4,
        "noise": 0.2,
        "dropout": 0.1,
        "optimizer": "adam",
        "batch": 32,
    },
}


def space_of(problem):
    return declare(space=problem.space).search_space()


def arrays(state):
    """All arrays and numbers of a state, as arrays."""
    if isinstance(state, tuple):
        return [array for part in state for array in arrays(part)]
    return [np.asarray(state)]


def frozen(state):
    for array in arrays(state):
        array.flags.writeable = False
    return state


def trained(problem, values, steps):
    state, losses = None, []
    for number in range(steps):
        state, loss = problem.step(state, values, number, default_rng([7, number]))
        losses.append(loss)
    return state, losses


@EVERY
def test_a_step_comes_out_the_same_and_leaves_its_state_as_it_was(name):
    problem = SUITE[name]
    space, rng = space_of(problem), default_rng(1)
    state = None
    for number in range(3):
        values = space.decode(rng.random(len(space)))
        # An array that is not writeable raises where a step writes into it.
        before = frozen(state) if state is not None else None
        state, loss = problem.step(before, values, number, default_rng(number))
        again, same = problem.step(before, values, number, default_rng(number))
        assert loss == same
        assert all(
            np.array_equal(one, other)
            for one, other in zip(arrays(state), arrays(again), strict=True)
        )
    assert problem.test(frozen(state)) == problem.test(state)


@EVERY
def test_losses_stay_finite_in_the_corners_and_training_goes_on_from_there(name):
    problem = SUITE[name]
    space, rng = space_of(problem), default_rng(2)
    middle = space.decode([0.5] * len(space))
    corners = [np.zeros(len(space)), np.ones(len(space)), *rng.integers(2, size=(4, len(space)))]
    for corner in corners:
        values = space.decode(corner.astype(float))
        state, losses = trained(problem, values, 3)
        assert all(math.isfinite(loss) for loss in losses)
        assert math.isfinite(problem.test(state))
        state, loss = problem.step(state, middle, 3, default_rng(0))
        assert math.isfinite(loss)
        assert all(np.isfinite(array).all() for array in arrays(state) if array.dtype.kind == "f")


@EVERY
def test_a_problem_trains_with_sane_hyperparameters(name):
    problem = SUITE[name]
    space_of(problem).encode(SANE[name])
    early, _ = trained(problem, SANE[name], 1)
    late, losses = trained(problem, SANE[name], problem.steps)
    assert problem.test(late) < problem.test(early)
    # The validation loss shows it, too, despite the noise of returns.
    assert np.mean(losses[-5:]) < losses[0]


def test_the_halves_are_these():
    assert DEVELOP == (
        "cancer-mlp",
        "digits-completion",
        "digits-conv",
        "pursuit-es",
        "regulator-pg",
        "wine-mlp",
        "words-window",
    )
    assert REPORT == (
        "cart-pole",
        "diabetes-groups",
        "digits-bandit",
        "digits-denoising",
        "digits-features",
        "digits-mlp",
        "letters-rnn",
    )
    assert set(DEVELOP) | set(REPORT) == set(SUITE)
    assert not set(DEVELOP) & set(REPORT)
    assert len(DEVELOP) == len(REPORT) == 7
    for kind in {problem.kind for problem in SUITE.values()}:
        sides = [[n for n in half if SUITE[n].kind == kind] for half in (DEVELOP, REPORT)]
        assert abs(len(sides[0]) - len(sides[1])) <= 1


def test_every_problem_says_what_it_is():
    for name, problem in SUITE.items():
        assert problem.name == name
        assert problem.steps == 20
        assert len(problem.identity) == 64
        assert 3 <= len(problem.space) <= 20
    assert len(SUITE["diabetes-groups"].space) == 20
    with pytest.raises(KeyError, match="no problem 'nothing'"):
        SUITE["nothing"]


ANOTHER = """
import sys
from romul_sim.suite import SUITE
print("sklearn" in sys.modules, *(problem.identity for problem in SUITE.values()))
"""


def test_an_identity_is_that_of_the_data_which_the_import_does_not_load():
    identities = {name: problem.identity for name, problem in SUITE.items()}
    assert len(set(identities.values())) == len(identities)
    # Another process, with another order of sets and hashes, gives the same.
    found = subprocess.run(
        [sys.executable, "-c", ANOTHER], capture_output=True, text=True, check=True
    ).stdout.split()
    assert found == ["False", *identities.values()]
    assert data.fingerprint(np.zeros(2)) != data.fingerprint(np.zeros(3))


def test_missing_data_are_said_with_their_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(TaskError, match="pip install"):
        data._load("load_wine")


def test_the_parts_of_a_split_share_no_row():
    split = data.classes("load_digits", 250, 500, 0.3)
    parts = [{row.tobytes() for row in p.x} for p in (split.train, split.validation, split.test)]
    for one, other in itertools.combinations(parts, 2):
        assert not one & other
    assert sum(len(part) for part in parts) == 1797
    clean = data.classes("load_digits", 250, 500, 0.0)
    # A random label is correct in one of ten cases.
    assert 0.2 < (split.train.y != clean.train.y).mean() < 0.34
    assert (split.validation.y == clean.validation.y).all()
    assert (split.test.y == clean.test.y).all()


def test_a_capped_loss_keeps_its_order_and_is_finite():
    seen = [capped(loss, 5.0) for loss in (1.0, 5.0, 50.0, 1e20, math.inf)]
    assert seen == sorted(seen)
    assert seen[:2] == [1.0, 5.0]
    assert math.isfinite(seen[-1])
    assert capped(math.nan, 5.0) == seen[-1]


# -- gradients ------------------------------------------------------------------------------------


def check_gradient(loss, gradient, flat, rng):
    """Compare derivatives along random directions with central differences."""
    found = gradient(flat)
    for _ in range(5):
        direction = rng.standard_normal(flat.size)
        width = 1e-6
        expected = (loss(flat + width * direction) - loss(flat - width * direction)) / (2 * width)
        assert found @ direction == pytest.approx(expected, rel=1e-4, abs=1e-7)


def weights_of(net, rng):
    return net.layout.initial(rng).astype(float) + 0.1 * rng.standard_normal(net.layout.size)


@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
def test_the_gradient_of_a_perceptron(activation):
    rng, net = default_rng(3), Mlp(5, 7, 6, 4)
    x, labels = rng.standard_normal((9, 5)), rng.integers(4, size=9)
    flat = weights_of(net, rng)

    def loss(weights):
        return cross_entropy(net.outputs(weights, x, activation), labels)

    check_gradient(
        loss, lambda w: net.gradient(w, x, classification(labels), activation), flat, rng
    )
    # Also with respect to the inputs, through the sums of the first layer.
    _, error = net.gradients(flat, x, classification(labels), activation)
    into = error @ net.layout.views(flat)[0].T
    moved = 1e-6 * rng.standard_normal(x.shape)
    up, down = (
        cross_entropy(net.outputs(flat, x + sign * moved, activation), labels) for sign in (1, -1)
    )
    assert (into * moved).sum() == pytest.approx((up - down) / 2, rel=1e-4)


def test_the_gradient_under_dropout_is_that_of_the_units_that_are_left():
    rng, net = default_rng(3), Mlp(5, 7, 6, 4)
    x, labels = rng.standard_normal((9, 5)), rng.integers(4, size=9)
    seen = []

    def keep(logits):
        seen.append(logits.copy())
        return classification(labels)(logits)

    def loss(weights):
        net.gradient(weights, x, keep, "tanh", 0.4, default_rng(5))
        return cross_entropy(seen[-1], labels)

    check_gradient(
        loss,
        lambda w: net.gradient(w, x, classification(labels), "tanh", 0.4, default_rng(5)),
        weights_of(net, rng),
        rng,
    )


def test_the_derivatives_of_losses():
    rng = default_rng(4)
    logits, labels = rng.standard_normal((6, 4)), rng.integers(4, size=6)
    targets, weights = rng.standard_normal((6, 4)), rng.standard_normal(6)
    rows = np.arange(6)

    def logs(z):
        return z - np.log(np.exp(z).sum(1, keepdims=True))

    def smoothed(z):
        return -(0.8 * logs(z)[rows, labels] + 0.2 * logs(z).mean(1)).mean()

    def squared(z):
        return 0.5 * ((z - targets) ** 2).sum() / 6

    def huber(z):
        errors = np.abs(z - targets)
        return np.where(errors < 0.5, 0.5 * errors**2, 0.5 * errors - 0.125).sum() / 6

    def weighed(z):
        entropy = -(np.exp(logs(z)) * logs(z)).sum(1)
        return (-weights * logs(z)[rows, labels] - 0.3 * entropy).mean()

    for loss, derivative in (
        (smoothed, classification(labels, 0.2)),
        (squared, regression(targets)),
        (huber, regression(targets, 0.5)),
        (weighed, policy(labels, weights, 0.3)),
    ):
        check_gradient(
            lambda flat, loss=loss: loss(flat.reshape(6, 4)),
            lambda flat, derivative=derivative: derivative(flat.reshape(6, 4)).ravel(),
            logits.ravel(),
            rng,
        )


def test_the_gradient_of_the_convolutional_net():
    rng, net = default_rng(5), ConvNet(3, 4)
    images, labels = rng.standard_normal((4, 8, 8)), rng.integers(10, size=4)
    flat = weights_of(net, rng)
    plain = {"dropout": 0.0, "smoothing": 0.0}
    check_gradient(
        lambda w: cross_entropy(net.outputs(w, images), labels),
        lambda w: net.gradient(w, images, labels, plain, rng),
        flat,
        rng,
    )


def test_the_convolutional_net_is_a_convolution():
    rng, net = default_rng(5), ConvNet(2, 3)
    flat = weights_of(net, rng)
    first, bias, second, offset, dense, last = net.layout.views(flat)
    image = rng.standard_normal((8, 8))
    one = np.zeros((6, 6, 2))
    for i, j in itertools.product(range(6), range(6)):
        one[i, j] = np.maximum(image[i : i + 3, j : j + 3].ravel() @ first + bias, 0)
    two = np.zeros((3, 3, 3))
    for i, j in itertools.product(range(3), range(3)):
        block = one[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel()
        two[i, j] = np.maximum(block @ second + offset, 0)
    assert net.outputs(flat, image[None])[0] == pytest.approx(two.ravel() @ dense + last)


def test_the_gradient_of_the_recurrent_net():
    rng, net = default_rng(6), Recurrent(5, 6)
    letters = rng.integers(5, size=(8, 3))
    start = np.zeros((3, 6))
    check_gradient(
        lambda w: net.loss(w, letters),
        lambda w: net.gradient(w, letters, start, 0.0, rng)[0],
        weights_of(net, rng),
        rng,
    )
    # The next letters continue from the final state.
    flat = weights_of(net, rng)
    whole = net.states(flat, letters, start)[-1]
    half = net.states(flat, letters[:4], start)[-1]
    assert net.states(flat, letters[4:], half)[-1] == pytest.approx(whole)


def test_the_gradient_of_the_word_model():
    rng, net = default_rng(7), Window(6, 3, 4, 5)
    contexts, words = rng.integers(6, size=(7, 3)), rng.integers(6, size=7)
    plain = {"dropout": 0.0, "word_dropout": 0.0, "smoothing": 0.0}
    check_gradient(
        lambda w: cross_entropy(net.outputs(w, contexts), words),
        lambda w: net.gradient(w, contexts, words, plain, rng),
        weights_of(net, rng),
        rng,
    )


def test_the_gradient_of_the_factors():
    rng, net = default_rng(8), Factors(5, 4, 3)
    matrix, shown = rng.standard_normal((5, 4)), rng.random((5, 4)) < 0.5
    check_gradient(
        lambda w: 0.5 * (((net.outputs(w) - matrix) * shown) ** 2).sum(),
        lambda w: net.gradient(w, matrix, shown),
        weights_of(net, rng),
        rng,
    )


# -- updates and worlds ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sgd", "adam", "rmsprop"])
def test_every_rule_descends_and_keeps_what_it_is_given(kind):
    start = training.untrained(np.array([3.0, -2.0]))
    rule = training.Rule(0.05, 0.5, kind=kind)
    after = training.descend(start, rule, 200, lambda w: w * np.array([1.0, 2.0]))
    assert np.abs(after.weights).max() < 0.2
    assert after.updates == 200
    assert start.weights.tolist() == [3.0, -2.0]
    assert not start.first.any()


def test_weights_that_diverge_are_bounded():
    start = training.untrained(np.array([1.0, 1.0]))
    after = training.descend(start, training.Rule(100.0, 0.9), 50, lambda w: w * np.inf)
    assert np.abs(after.weights).max() <= training.LARGEST_WEIGHT
    assert np.isfinite(after.first).all()


def test_an_image_is_shifted_by_no_more_than_it_may():
    image = np.zeros((200, 8, 8))
    image[:, 4, 4] = 1.0
    moved = shifted(image, 1, default_rng(0))
    _, rows, columns = np.nonzero(moved)
    assert (moved.sum((1, 2)) == 1.0).all()
    assert set(rows) == set(columns) == {3, 4, 5}
    assert shifted(image, 0, default_rng(0)) is image


def test_the_regulator_learns_what_control_theory_computes():
    system = System(default_rng(data.SPLIT_SEED))
    # The discrete Riccati equation by iteration, from costs |x|^2 and 0.3 |u|^2.
    moves, pushes = system.moves.T, system.pushes.T
    worth = np.eye(len(moves))
    for _ in range(500):
        gain = np.linalg.solve(
            0.3 * np.eye(pushes.shape[1]) + pushes.T @ worth @ pushes, pushes.T @ worth @ moves
        )
        worth = np.eye(len(moves)) + moves.T @ worth @ (moves - pushes @ gain)

    def cost(policy):
        return system.play(policy, 400, default_rng(0))[2].mean()

    best, idle = cost(-gain.T), cost(np.zeros_like(gain.T))
    state, _ = trained(SUITE["regulator-pg"], SANE["regulator-pg"], 20)
    learned = cost(state.weights.reshape(gain.T.shape))
    assert best < learned < best + 0.2 * (idle - best)


def test_policies_that_follow_side_by_side_are_those_of_the_perceptron():
    # A policy that pushes towards the target comes nearer than one that does nothing.
    rng, net = default_rng(0), Mlp(6, 8, 2)
    idle = np.zeros(net.layout.size)
    towards = idle.copy()
    inward, _, outward, _ = net.layout.views(towards)
    inward[0, 0] = inward[1, 1] = outward[0, 0] = outward[1, 1] = 1.0
    inward[2, 0] = inward[3, 1] = -1.0
    near, far = follow(np.stack([towards, idle]), 50, default_rng(1)).mean(1)
    assert near < 0.7 * far
    # A policy gives the same path alone as among others.
    alone = follow(towards[None], 50, default_rng(1))
    others = np.stack([towards, rng.standard_normal(idle.size)])
    assert follow(others, 50, default_rng(1))[0] == pytest.approx(alone[0])


def test_a_pole_that_has_fallen_earns_nothing_more():
    net = Mlp(4, 1)
    episodes = _balance(net, np.zeros(net.layout.size, dtype=np.float32), 50, default_rng(0))
    fallen = episodes.alive[1:] == 0.0
    assert fallen[-1].all()
    assert not episodes.rewards[fallen].any()
    assert (np.diff(episodes.alive, axis=0) <= 0.0).all()


def test_the_suite_is_made_once_a_process():
    assert suite.SUITE["wine-mlp"] is SUITE["wine-mlp"]


def test_problems_of_many_hyperparameters_are_trained_and_repeatable():
    for name, problem in many.SUITE.items():
        assert problem.name == name
        assert 18 <= len(problem.space) <= 24
        declared = declare("x", space=problem.space).search_space()
        values = declared.decode([0.5] * len(declared))
        first, loss = problem.step(None, values, 0, default_rng(1))
        again, same = problem.step(None, values, 0, default_rng(1))
        after, _ = problem.step(first, values, 1, default_rng(2))
        assert loss == same
        assert problem.test(first) == problem.test(again)
        assert math.isfinite(problem.test(after))
        assert problem.test(after) != problem.test(first)
        # Each hyperparameter changes the result.
        for axis in range(len(declared)):
            place = [0.5] * len(declared)
            place[axis] = 0.9
            other = problem.step(None, declared.decode(place), 0, default_rng(1))
            assert other[1] != loss
