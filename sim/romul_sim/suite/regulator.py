"""A linear system kept near zero by policy gradients; a search sees a few noisy returns."""

import numpy as np
from numpy.random import Generator, default_rng

from romul_sim.suite.data import SPLIT_SEED, fingerprint
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
)
from romul_sim.suite.training import Rule, descend, untrained

KIND = "reinforcement learning"
N_TESTED = 400
"""Number of episodes for the test loss."""
_TEST_SEED = 99
_UPDATES, _EPISODES, _SEEN = 8, 12, 12
_STATES, _ACTIONS, _HORIZON = 10, 4, 25
_LARGEST = 10.0


class System:
    """An unstable linear system with random disturbances (wind) and quadratic costs."""

    def __init__(self, rng: Generator) -> None:
        """Draw a system whose fastest mode grows by 5 % per tick."""
        moves = rng.standard_normal((_STATES, _STATES))
        self.moves = (1.05 / np.abs(np.linalg.eigvals(moves)).max() * moves).T
        self.pushes = 0.5 * rng.standard_normal((_ACTIONS, _STATES))

    def play(
        self, policy: Array, n: int, rng: Generator, width: float = 0.0
    ) -> tuple[Array, Array, Array]:
        """Run `n` episodes in parallel.

        Args:
            policy: a linear policy, shape (n_states, n_actions).
            n: number of episodes.
            rng: random generator for starts, wind and noise.
            width: standard deviation of the noise on actions.

        Returns:
            States (t, n, n_states), noise (t, n, n_actions) and costs (t, n).
        """
        state = rng.standard_normal((n, _STATES))
        wind = 0.3 * rng.standard_normal((_HORIZON, n, _STATES))
        noise = width * rng.standard_normal((_HORIZON, n, _ACTIONS))
        states, actions = np.empty((_HORIZON + 1, n, _STATES)), np.empty_like(noise)
        states[0] = state
        for t in range(_HORIZON):
            actions[t] = states[t] @ policy + noise[t]
            after = states[t] @ self.moves + actions[t] @ self.pushes + wind[t]
            np.clip(after, -_LARGEST, _LARGEST, out=states[t + 1])
        costs = (states[1:] ** 2).sum(-1) + 0.3 * (actions**2).sum(-1)
        return states[:-1], noise, costs

    def gradient(self, policy: Array, values: Values, rng: Generator) -> Array:
        """Gradient of the expected discounted costs (Williams 1992), same shape as `policy`."""
        width = values["width"]
        states, noise, costs = self.play(policy, _EPISODES, rng, width)
        ahead = np.empty_like(costs)
        following = np.zeros(costs.shape[1])
        for t in range(_HORIZON - 1, -1, -1):
            ahead[t] = following = costs[t] + (1.0 - values["myopia"]) * following
        if values["baseline"] == "mean":
            ahead -= ahead.mean()
        elif values["baseline"] == "by tick":
            ahead -= ahead.mean(1, keepdims=True)
        ahead /= ahead.std() + 1e-6
        pushed = (ahead[..., None] * noise / width).reshape(-1, _ACTIONS)
        return np.asarray(states.reshape(-1, _STATES).T @ pushed / len(pushed))


def regulator() -> Problem:
    """Keep 10 states near zero with 4 actions.

    A step has 8 updates of 12 episodes; the validation loss is the mean of 12 episodes.
    """
    system = System(default_rng(SPLIT_SEED))
    shape = (_STATES, _ACTIONS)

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        trained = untrained(0.01 * rng.standard_normal(shape).ravel()) if state is None else state

        def gradient(weights: Array) -> Array:
            return system.gradient(weights.reshape(shape), values, rng).ravel()

        rule = Rule(
            values["rate"], values["momentum"], values["decay"], values["optimizer"], values["clip"]
        )
        after = descend(trained, rule, _UPDATES, gradient)
        return after, loss(after, _SEEN, rng)

    def loss(state: State, n: int, rng: Generator) -> float:
        return capped(system.play(state.weights.reshape(shape), n, rng)[2].mean(), 100.0)

    space = {
        "rate": log(1e-5, 10.0),
        "width": log(1e-3, 10.0),
        "myopia": log(1e-3, 1.0),
        "momentum": linear(0.0, 0.99),
        "decay": log(1e-5, 10.0),
        "clip": log(1e-3, 10.0),
        "baseline": choice("none", "mean", "by tick"),
        "optimizer": choice("sgd", "adam", "rmsprop"),
    }
    sizes = (_UPDATES, _EPISODES, _SEEN, _HORIZON, N_TESTED, _TEST_SEED)
    return Problem(
        "regulator-pg",
        KIND,
        space,
        STEPS,
        step,
        lambda state: loss(state, N_TESTED, default_rng(_TEST_SEED)),
        fingerprint(system.moves, system.pushes, sizes),
    )
