"""Choices learned from noisy rewards: a windy grid by temporal differences, digits as a bandit.

What a search sees is the mean return of a few episodes.
"""

import numpy as np
from numpy.random import Generator, default_rng

from romul_sim.suite import data
from romul_sim.suite.networks import Mlp, policy, softmax
from romul_sim.suite.problem import (
    STEPS,
    Array,
    Problem,
    State,
    Values,
    choice,
    linear,
    log,
    whole,
)
from romul_sim.suite.training import Rule, descend, untrained

KIND = "reinforcement learning"
N_TESTED = 400
"""Episodes of a test return."""
_TEST_SEED = 99

# -- grid -----------------------------------------------------------------------------------------

_MAP = (
    "........",
    ".##.###.",
    ".#..x.#.",
    "...x..#.",
    ".x...x..",
    ".##.##.x",
    "...x....",
    "x....x.G",
)
"""G: the goal, x: a pit, #: a wall; an episode starts on any other cell."""
_MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
_LIMIT = 40
_SLIP = 0.15


class Grid:
    """The map as tables: where a move leads, what it earns, where an episode ends."""

    def __init__(self) -> None:
        """Read the map."""
        cells = np.array([list(row) for row in _MAP])
        side = len(cells)
        places = np.stack(np.divmod(np.arange(side * side), side), axis=1)
        moved = np.clip(places[:, None] + _MOVES, 0, side - 1)
        walls = cells[moved[..., 0], moved[..., 1]] == "#"
        moved = np.where(walls[..., None], places[:, None], moved)
        kinds = cells.ravel()
        self.leads = moved[..., 0] * side + moved[..., 1]
        self.earns = np.where(kinds == "G", 1.0, np.where(kinds == "x", -1.0, -0.02))
        self.ends = (kinds == "G") | (kinds == "x")
        self.starts = np.flatnonzero(kinds == ".")
        self.n_cells = side * side

    def play(self, worth: Array, n: int, rng: Generator) -> Array:
        """Returns, shape (n,), of the policy that is greedy on `worth`, shape (n_cells, 4)."""
        place: Array = rng.choice(self.starts, size=n)
        alive, total = np.ones(n), np.zeros(n)
        best = worth.argmax(1)
        for _ in range(_LIMIT):
            slips = rng.random(n) < _SLIP
            action = np.where(slips, rng.integers(4, size=n), best[place])
            place = self.leads[place, action]
            total += alive * self.earns[place]
            alive = alive * ~self.ends[place]
        return total

    def learn(self, worth: Array, values: Values, n: int, rng: Generator) -> Array:
        """`worth` after `n` episodes side by side, by temporal differences with traces.

        SARSA, expected SARSA and Q-learning (Sutton & Barto 2018, chapters 6 and 12).
        """
        worth = worth * (1.0 - values["forgetting"])
        place: Array = rng.choice(self.starts, size=n)
        alive, each = np.ones(n), np.arange(n)
        traces = np.zeros((n, *worth.shape))
        explore, discount = values["exploration"], 1.0 - values["myopia"]
        action = self._choose(worth, place, explore, rng)
        for _ in range(_LIMIT):
            done = np.where(rng.random(n) < _SLIP, rng.integers(4, size=n), action)
            after = self.leads[place, done]
            following = self._choose(worth, after, explore, rng)
            ahead = worth[after]
            if values["target"] == "sarsa":
                expected = ahead[each, following]
            elif values["target"] == "expected":
                expected = (1.0 - explore) * ahead.max(1) + explore * ahead.mean(1)
            else:
                expected = ahead.max(1)
            goes_on = ~self.ends[after]
            error = self.earns[after] + discount * goes_on * expected - worth[place, action]
            traces *= discount * values["trace"]
            traces[each, place, action] = 1.0
            change = np.tensordot(alive * error, traces, axes=1)
            worth = np.clip(worth + values["rate"] * change, -10.0, 10.0)
            alive = alive * goes_on
            place, action = after, following
        return worth

    def _choose(self, worth: Array, place: Array, explore: float, rng: Generator) -> Array:
        n = len(place)
        # A little noise breaks ties.
        greedy = (worth[place] + 1e-6 * rng.random((n, 4))).argmax(1)
        return np.where(rng.random(n) < explore, rng.integers(4, size=n), greedy)


def grid() -> Problem:
    """Find the goal of a slippery grid with pits: 3 rounds of 8 episodes a step, judged by 32."""
    world, n_seen = Grid(), 32

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        worth = np.zeros((world.n_cells, 4)) if state is None else state
        for _ in range(3):
            worth = world.learn(worth, values, 8, rng)
        return worth, -float(world.play(worth, n_seen, rng).mean())

    def test(state: State) -> float:
        return -float(world.play(state, N_TESTED, default_rng(_TEST_SEED)).mean())

    space = {
        "rate": log(1e-3, 3.0),
        "exploration": log(1e-3, 1.0),
        "myopia": log(1e-4, 1.0),
        "trace": linear(0.0, 1.0),
        "forgetting": log(1e-5, 1.0),
        "target": choice("sarsa", "expected", "q"),
    }
    identity = data.fingerprint("grid 1", _MAP, _LIMIT, _SLIP, N_TESTED, _TEST_SEED)
    return Problem("grid-td", KIND, space, STEPS, step, test, identity)


# -- bandit ---------------------------------------------------------------------------------------


def bandit() -> Problem:
    """Name digits by trial and error: a reward of 1 for the right name, with noise of 0.5."""
    split, net, n_seen = data.classes("load_digits", 600, 500, 0.0), Mlp(64, 32, 10), 40

    def gradient(weights: Array, baseline: Array, values: Values, rng: Generator) -> Array:
        rows: Array = rng.integers(len(split.train.y), size=(values["batch"],))
        images, labels, each = split.train.x[rows], split.train.y[rows], np.arange(len(rows))
        odds = softmax(net.outputs(weights, images, "tanh"))
        mixed = (1.0 - values["exploration"]) * odds + values["exploration"] / 10.0
        drawn = (mixed.cumsum(1) < rng.random((len(rows), 1))).sum(1).clip(max=9)
        rewards = (drawn == labels) + 0.5 * rng.standard_normal(len(rows))
        # What was drawn from the mixture is weighed as if the policy had drawn it.
        weighed = (rewards - baseline[0]) * odds[each, drawn] / mixed[each, drawn]
        baseline += values["baseline_rate"] * (rewards.mean() - baseline)
        derivative = policy(drawn, weighed, values["entropy"])
        return net.gradient(weights, images, derivative, "tanh")

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        trained, baseline = (
            (untrained(net.layout.initial(rng, 1.0)), np.zeros(1)) if state is None else state
        )
        baseline = baseline.copy()
        rule = Rule(values["rate"], values["momentum"], values["decay"], values["optimizer"])
        after = descend(trained, rule, 40, lambda weights: gradient(weights, baseline, values, rng))
        rows = rng.integers(len(split.validation.y), size=(n_seen,))
        part = data.Part(split.validation.x[rows], split.validation.y[rows])
        noise = 0.5 * rng.standard_normal(n_seen).mean()
        return (after, baseline), -right(part, after.weights) + float(noise)

    def right(part: data.Part, weights: Array) -> float:
        return float((net.outputs(weights, part.x, "tanh").argmax(1) == part.y).mean())

    space = {
        "rate": log(1e-5, 100.0),
        "momentum": linear(0.0, 0.99),
        "decay": log(1e-6, 10.0),
        "entropy": log(1e-4, 10.0),
        "exploration": log(1e-3, 1.0),
        "baseline_rate": log(1e-3, 1.0),
        "optimizer": choice("sgd", "adam", "rmsprop"),
        "batch": whole(8, 64, "log"),
    }
    return Problem(
        "digits-bandit",
        KIND,
        space,
        STEPS,
        step,
        lambda state: -right(split.test, state[0].weights),
        split.identity,
    )
