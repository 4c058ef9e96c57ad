"""Digits classified by trial and error; a search sees the mean reward of a few attempts."""

import numpy as np
from numpy.random import Generator

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


def bandit() -> Problem:
    """Classify digits by trial and error: reward 1 for the right class, with noise of 0.5."""
    split, net, n_seen = data.classes("load_digits", 600, 500, 0.0), Mlp(64, 32, 10), 200

    def gradient(weights: Array, baseline: Array, values: Values, rng: Generator) -> Array:
        rows: Array = rng.integers(len(split.train.y), size=(values["batch"],))
        images, labels, each = split.train.x[rows], split.train.y[rows], np.arange(len(rows))
        odds = softmax(net.outputs(weights, images, "tanh"))
        mixed = (1.0 - values["exploration"]) * odds + values["exploration"] / 10.0
        drawn = (mixed.cumsum(1) < rng.random((len(rows), 1))).sum(1).clip(max=9)
        rewards = (drawn == labels) + 0.5 * rng.standard_normal(len(rows))
        # Importance weights, because actions are drawn from the mixture, not the policy.
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
