"""A cart-pole balanced by policy gradients; a search sees the mean return of a few episodes.

All episodes run in parallel.
"""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng

from romul_sim.suite.data import fingerprint
from romul_sim.suite.networks import Mlp
from romul_sim.suite.problem import (
    STEPS,
    Array,
    Problem,
    State,
    Values,
    linear,
    log,
)
from romul_sim.suite.training import Rule, descend, untrained

KIND = "reinforcement learning"
N_TESTED = 400
"""Number of episodes for the test loss."""
_TEST_SEED = 99

_TRACK, _FALLEN = 2.4, 0.6
_HORIZON, _TICK_S = 60, 0.04
_N_TOLD = 10
"""Number of the critic's features: 1, the time, and the magnitudes of the policy's inputs and
their squares."""
_HOW_FAR = np.linspace(0.0, 1.0, _HORIZON + 1)[:, None]


class Episodes(NamedTuple):
    """Episodes of one policy, shape (t, n, ...).

    Attributes:
        seen: inputs of the policy, shape (t + 1, n, 4).
        actions: forces in units of 10 N, shape (t, n); clipped to [-1, 1] when applied.
        rewards: shape (t, n): 1 in the middle of the track, 0 at its ends or when fallen.
        alive: 1 while the pole stands before the action, shape (t + 1, n).
    """

    seen: Array
    actions: Array
    rewards: Array
    alive: Array


def _push(cart: Array, action: Array, wind: Array) -> Array:
    """Cart and pole, shape (4, n), after one tick with wind (Barto, Sutton & Anderson 1983)."""
    _, speed, angle, turning = cart
    sine, cosine = np.sin(angle), np.cos(angle)
    force = 10.0 * np.clip(action, -1.0, 1.0) + wind
    pushed = (force + 0.05 * turning * turning * sine) / 1.1
    turned = (9.8 * sine - cosine * pushed) / (0.5 * (4.0 / 3.0 - 0.1 / 1.1 * cosine * cosine))
    gained = pushed - 0.05 / 1.1 * turned * cosine
    return cart + _TICK_S * np.array([speed, gained, turning, turned])


def _balance(net: Mlp, weights: Array, n: int, rng: Generator, width: float = 0.0) -> Episodes:
    """Run `n` episodes of a policy; `width`: standard deviation of the noise on its forces."""
    cart = rng.uniform(-1.0, 1.0, (4, n)) * np.array([[1.2], [0.5], [0.2], [0.5]])
    winds = 4.0 * rng.standard_normal((_HORIZON, n))
    kept = np.empty((_HORIZON + 1, 4, n), dtype=np.float32)
    actions = width * rng.standard_normal((_HORIZON, n), dtype=np.float32)
    for t in range(_HORIZON):
        kept[t] = cart
        actions[t] += net.outputs(weights, kept[t].T, "tanh")[:, 0]
        # A fallen pole is simulated further, but its later ticks do not count.
        cart = np.clip(_push(cart, actions[t], winds[t]), -10.0, 10.0)
    kept[-1] = cart
    x, angle = np.abs(kept[:, 0]), np.abs(kept[:, 2])
    alive = np.logical_and.accumulate((x < _TRACK) & (angle < _FALLEN)).astype(float)
    rewards = alive[1:] * (1.0 - x[1:] / _TRACK)
    return Episodes(kept.swapaxes(1, 2), actions, rewards, alive)


def cart_pole() -> Problem:
    """Balance a pole in wind with an actor and a linear critic, 3 updates of 32 episodes per step.

    The advantages are those of Schulman et al. (2016).
    """
    net, n_seen = Mlp(4, 1), 64

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        if state is None:
            state = (untrained(net.layout.initial(rng, 0.5)), np.zeros(_N_TOLD))
        trained, critic = state

        def gradient(weights: Array) -> Array:
            nonlocal critic
            episodes = _balance(net, weights, 32, rng, values["width"])
            found, critic = _policy_gradient(net, weights, critic, episodes, values)
            return found

        rule = Rule(values["rate"], values["momentum"], values["decay"], clip=values["clip"])
        after = descend(trained, rule, 3, gradient)
        return (after, critic), loss(n_seen, rng, (after, critic))

    def loss(n: int, rng: Generator, state: State) -> float:
        return -float(_balance(net, state[0].weights, n, rng).rewards.sum(0).mean())

    space = {
        "rate": log(1e-4, 10.0),
        "critic_rate": log(1e-3, 1.0),
        "width": log(1e-2, 3.0),
        "myopia": log(1e-3, 1.0),
        "trace": linear(0.0, 1.0),
        "momentum": linear(0.0, 0.99),
        "decay": log(1e-5, 1.0),
        "clip": log(1e-2, 10.0),
    }
    identity = fingerprint("cart-pole 1", _HORIZON, N_TESTED, _TEST_SEED)
    return Problem(
        "cart-pole",
        KIND,
        space,
        STEPS,
        step,
        lambda state: loss(N_TESTED, default_rng(_TEST_SEED), state),
        identity,
    )


def _policy_gradient(
    net: Mlp, weights: Array, critic: Array, episodes: Episodes, values: Values
) -> tuple[Array, Array]:
    """Gradient of minus the advantage-weighted likelihood, and the critic after its update."""
    alive, discount = episodes.alive, 1.0 - values["myopia"]
    seen = episodes.seen
    sizes = np.minimum(np.abs(seen) / np.array([_TRACK, 2.0, _FALLEN, 2.0]), 1.0)
    features = np.concatenate([np.ones_like(sizes[..., :2]), sizes, sizes * sizes], axis=-1)
    features[..., 1] = _HOW_FAR
    worth = (features @ critic) * alive
    # There is no reward after the last tick.
    worth[-1] = 0.0
    surprises = episodes.rewards + discount * worth[1:] - worth[:-1]
    advantages = np.empty_like(surprises)
    ahead = np.zeros(surprises.shape[1])
    for t in range(len(surprises) - 1, -1, -1):
        ahead = surprises[t] + discount * values["trace"] * ahead
        advantages[t] = ahead
    lived = alive[:-1] > 0.0
    inputs, weighed = features[:-1][lived], advantages[lived]
    # A rate of 1 sets the critic to the ridge regression on these episodes.
    curvature = inputs.T @ inputs + np.eye(_N_TOLD)
    pull = np.linalg.solve(curvature, inputs.T @ weighed)
    critic = np.clip(critic + values["critic_rate"] * pull, -100.0, 100.0)
    weighed = (weighed - weighed.mean()) / (weighed.std() + 1e-6)
    actions, width = episodes.actions[lived], values["width"]

    def derivative(means: Array) -> Array:
        # Derivative of the normal log-density by its mean, in units of its width.
        pushed = weighed * (means[:, 0] - actions) / width
        return np.asarray(pushed[:, None] / len(actions), dtype=means.dtype)

    return net.gradient(weights, seen[:-1][lived], derivative, "tanh"), critic
