"""A policy that follows a moving target, trained by an evolution strategy.

All episodes of all policies run in parallel. A search sees the mean return of a few episodes.
"""

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
    choice,
    linear,
    log,
)
from romul_sim.suite.training import Rule, descend, untrained

KIND = "reinforcement learning"
N_TESTED = 400
"""Number of episodes for the test loss."""
_TEST_SEED = 99
_HORIZON, _TICK_S = 50, 0.15
_PILOT = Mlp(6, 8, 2)
_N_WEIGHTS = _PILOT.layout.size
_PAIRS, _EPISODES, _GENERATIONS, _SEEN = 12, 3, 2, 16


def follow(policies: Array, n: int, rng: Generator) -> Array:
    """Mean distances, shape (p, n), of perceptrons, shape (p, n_weights), to a wandering target.

    The follower is a mass in the plane with drag and wind. All policies have the same `n` starts,
    targets and winds.
    """
    inward, bias, outward, offset = (
        policies[:, where].reshape(len(policies), -1, shape[-1])
        for where, shape in zip(_PILOT.layout.slices, _PILOT.layout.shapes, strict=True)
    )
    place = np.tile(rng.uniform(-2.0, 2.0, (n, 2)), (len(policies), 1, 1))
    speed = np.zeros_like(place)
    target, course = np.zeros((n, 2)), rng.standard_normal((n, 2))
    winds = 1.5 * rng.standard_normal((_HORIZON, n, 2))
    turns = rng.standard_normal((_HORIZON, n, 2))
    total = np.zeros(place.shape[:2])
    for wind, turn in zip(winds, turns, strict=True):
        # The target's velocity is random with a memory of about ten ticks; a force pulls it to 0.
        course = 0.9 * course + 0.45 * turn - 0.05 * target
        target = target + _TICK_S * course
        away = target - place
        there = np.broadcast_to(course, place.shape)
        seen = np.concatenate([away, speed, there], axis=2)
        hidden = np.tanh(0.5 * (seen @ inward) + bias)
        push = 4.0 * np.tanh(hidden @ outward + offset)
        speed = 0.95 * speed + _TICK_S * (push + wind)
        place = np.clip(place + _TICK_S * speed, -10.0, 10.0)
        total += np.sqrt((away * away).sum(2)) + 0.01 * (push * push).sum(2)
    return total / _HORIZON


def _gradient(weights: Array, values: Values, rng: Generator) -> Array:
    """Estimate the gradient of the mean distance with mirrored policies."""
    directions = rng.standard_normal((_PAIRS, _N_WEIGHTS))
    moved = values["width"] * np.concatenate([directions, -directions])
    distances = follow(weights + moved, _EPISODES, rng).mean(1)
    if values["shaping"] == "ranks":
        distances = distances.argsort().argsort() / (2 * _PAIRS - 1) - 0.5
    elif values["shaping"] == "standard":
        distances = (distances - distances.mean()) / (distances.std() + 1e-6)
    weighed = distances[:_PAIRS] - distances[_PAIRS:]
    return np.asarray(weighed @ directions / (2 * _PAIRS * values["width"]))


def pursuit() -> Problem:
    """Follow a target with an evolution strategy (Salimans et al. 2017), 2 generations per step.

    A generation has 2 x 12 mirrored perceptrons of 74 weights. The validation loss is the mean of
    16 episodes.
    """

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        if state is None:
            state = untrained(_PILOT.layout.initial(rng, 1.0).astype(float))
        rule = Rule(
            values["rate"], values["momentum"], values["decay"], values["optimizer"], values["clip"]
        )
        after = descend(state, rule, _GENERATIONS, lambda w: _gradient(w, values, rng))
        return after, loss(after, _SEEN, rng)

    def loss(state: State, n: int, rng: Generator) -> float:
        return float(follow(state.weights[None], n, rng).mean())

    space = {
        "rate": log(1e-4, 10.0),
        "width": log(1e-3, 10.0),
        "momentum": linear(0.0, 0.99),
        "decay": log(1e-5, 10.0),
        "clip": log(1e-3, 100.0),
        "shaping": choice("raw", "ranks", "standard"),
        "optimizer": choice("sgd", "adam"),
    }
    sizes = (_HORIZON, _PAIRS, _EPISODES, _GENERATIONS, _SEEN, N_TESTED, _TEST_SEED)
    return Problem(
        "pursuit-es",
        KIND,
        space,
        STEPS,
        step,
        lambda state: loss(state, N_TESTED, default_rng(_TEST_SEED)),
        fingerprint("pursuit 1", sizes),
    )
