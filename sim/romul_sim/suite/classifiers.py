"""Perceptrons for classification, which problems on images and tables share.

There are few rows, some with a wrong label. The network learns the rule first and the noise later,
unless weight decay, dropout, smoothing, noise and the learning rate prevent that.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.random import Generator

from romul_sim.suite.data import Part, Split
from romul_sim.suite.networks import Mlp, classification, cross_entropy
from romul_sim.suite.problem import STEPS, Array, Problem, Spec, State, Values, capped
from romul_sim.suite.training import Rule, Trained, descend, untrained

CAP = 5.0
"""Cross-entropy, in nats, above which only its logarithm grows."""


def classifier(
    name: str, kind: str, space: Mapping[str, Spec], net: Mlp, split: Split, n_updates: int
) -> Problem:
    """Make the problem of training `net` on `split`.

    Args:
        name: name of the problem.
        kind: kind of the problem.
        space: rate, momentum, decay and dropout; optionally smoothing (of labels), noise (standard
            deviation, on inputs), optimizer, activation and batch.
        net: a network with one output for each class.
        split: the data.
        n_updates: number of gradient updates in one step.
    """

    def step(
        state: State | None, values: Values, number: int, rng: Generator
    ) -> tuple[State, float]:
        del number
        before: Trained = state[0] if state else untrained(net.layout.initial(rng))
        activation = str(values.get("activation", "relu"))
        rule = Rule(
            values["rate"], values["momentum"], values["decay"], values.get("optimizer", "sgd")
        )
        trained = descend(
            before,
            rule,
            n_updates,
            lambda weights: _gradient(net, split.train, weights, values, rng),
        )
        # The activation is a hyperparameter, and the test loss needs it.
        after = (trained, activation)
        return after, _loss(net, split.validation, after)

    return Problem(name, kind, space, STEPS, step, partial(_loss, net, split.test), split.identity)


def _gradient(net: Mlp, train: Part, weights: Array, values: Values, rng: Generator) -> Array:
    rows = rng.integers(len(train.y), size=values.get("batch", 32))
    inputs = train.x[rows]
    if "noise" in values:
        noise = rng.standard_normal(inputs.shape, dtype=np.float32)
        inputs = inputs + np.float32(values["noise"]) * noise
    derivative = classification(train.y[rows], values.get("smoothing", 0.0))
    activation = str(values.get("activation", "relu"))
    return net.gradient(weights, inputs, derivative, activation, values["dropout"], rng)


def _loss(net: Mlp, part: Part, state: State) -> float:
    logits = net.outputs(state[0].weights, part.x, state[1])
    return capped(cross_entropy(logits, part.y), CAP)
