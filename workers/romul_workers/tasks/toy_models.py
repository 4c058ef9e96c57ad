"""Toy problems with a state, in which early steps have lasting effects, and their known bests.

The arguments of each step are (state or None, values, number of the step, generator).
"""

import math
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from romul_workers.tasks.toy_functions import State, Stepped, Values, vector

_CURVATURE = np.logspace(-2.5, 0.0, 50)
_UPDATES = 25
NOISY_STEPS = 40


def step_noisy_quadratic(
    state: State | None, values: Values, number: int, rng: Generator
) -> Stepped:
    """SGD on a noisy quadratic (short-horizon bias, Wu et al. 2018), 25 updates per step.

    A lower learning rate lowers the loss at once, but leads to a higher loss later.
    """
    del number, rng
    mean, variance = (
        (np.full(50, 3.0), np.zeros(50)) if state is None else np.split(np.array(state), 2)
    )
    rate = values["rate"]
    for _ in range(_UPDATES):
        mean = mean * (1.0 - rate * _CURVATURE)
        variance = variance * (1.0 - rate * _CURVATURE) ** 2 + (rate * _CURVATURE) ** 2
    loss = float((_CURVATURE * (mean**2 + variance)).sum() / 2.0)
    return Stepped((*mean.tolist(), *variance.tolist()), loss, loss)


def step_momentum_quadratic(
    state: State | None, values: Values, number: int, rng: Generator
) -> Stepped:
    """The noisy quadratic with heavy-ball momentum: moments of (weight, speed) in closed form."""
    del number, rng
    if state is None:
        w, v, ww, wv, vv = np.full(50, 3.0), *np.zeros((4, 50))
        ww = w * w
    else:
        w, v, ww, wv, vv = np.split(np.array(state), 5)
    rate, momentum, c = values["rate"], values["momentum"], _CURVATURE
    for _ in range(_UPDATES):
        # v' = momentum v - rate c (w + noise), w' = w + v'; second moments alike.
        new_vv = momentum**2 * vv - 2 * momentum * rate * c * wv + (rate * c) ** 2 * (ww + 1.0)
        new_wv = momentum * wv - rate * c * ww + new_vv
        ww = ww + 2 * (momentum * wv - rate * c * ww) + new_vv
        wv, vv = new_wv, new_vv
        v = momentum * v - rate * c * w
        w = w + v
        # Clipped, so that a training that diverges still has a finite loss.
        ww, wv, vv = (np.clip(moment, -1e12, 1e12) for moment in (ww, wv, vv))
        w, v = (np.clip(moment, -1e6, 1e6) for moment in (w, v))
    loss = float((c * ww).sum() / 2.0)
    return Stepped(tuple(np.concatenate([w, v, ww, wv, vv]).tolist()), loss, loss)


def best_noisy_quadratic() -> float:
    """Lowest final loss of the noisy quadratic over all schedules of 40 rates: 0.0136.

    The best constant rate reaches 0.227.
    """
    return best_rates()[0]


def _final_noisy_quadratic(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Final losses, shape (n,), of schedules, shape (n, steps), in closed form."""
    mean, variance = np.full((len(rates), 50), 9.0), np.zeros((len(rates), 50))
    for rate in rates.T[:, :, None]:
        decay = (1.0 - rate * _CURVATURE) ** (2 * _UPDATES)
        settled = rate * _CURVATURE / (2.0 - rate * _CURVATURE)
        mean, variance = mean * decay, variance * decay + settled * (1.0 - decay)
    return np.asarray((_CURVATURE * (mean + variance)).sum(-1) / 2.0)


@lru_cache
def best_rates() -> tuple[float, tuple[float, ...]]:
    """Best loss and rates, by coordinate descent on the logarithms of the rates.

    The descent starts from a rate that is constant and then falls.
    """
    low, high, final = math.log(1e-4), 0.0, _final_noisy_quadratic
    held = NOISY_STEPS // 2
    logs = np.concatenate([np.zeros(held), np.linspace(0.0, math.log(0.005), held)])
    step = 0.5
    best = float(final(np.exp(logs)[None])[0])
    while step > 0.01:  # noqa: PLR2004
        before = best
        for k in range(NOISY_STEPS):
            tries = np.repeat(logs[None], 2, axis=0)
            tries[:, k] = np.clip(logs[k] + np.array([-step, step]), low, high)
            losses = final(np.exp(tries))
            if losses.min() < best:
                best, logs = float(losses.min()), tries[int(losses.argmin())]
        if best > 0.999 * before:
            step /= 2.0
    return best, tuple(np.exp(logs).tolist())


DROPOUT_STEPS = 40


def step_dropout(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Regularisation that costs now and pays later (the paper's example; this project's model)."""
    del number
    fitted, memorised = (0.0, 0.0) if state is None else state
    u = values["x0"]
    fitted += 0.15 * (1.0 - 0.6 * u)
    memorised += 0.02 * (1.0 - u) ** 2
    loss = math.exp(-fitted) + memorised
    return Stepped((fitted, memorised), loss + 0.002 * float(rng.standard_normal()), loss)


def best_dropout() -> float:
    """Lowest final loss of the dropout problem, which the best constant reaches.

    exp(-a) + m is convex and symmetric in the values of the steps, so the best schedule is a
    constant. It is found by a search over 100,001 constants.
    """
    return best_constant()[0]


@lru_cache
def best_constant() -> tuple[float, float]:
    """Loss and value of the best constant of the dropout problem."""
    u = np.linspace(0.0, 1.0, 100_001)
    fitted = DROPOUT_STEPS * 0.15 * (1.0 - 0.6 * u)
    losses = np.exp(-fitted) + DROPOUT_STEPS * 0.02 * (1.0 - u) ** 2
    return float(losses.min()), float(u[losses.argmin()])


def step_luck(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Hyperparameters and luck change the loss equally, so the best slot may only be lucky."""
    del number
    loss = 1.0 if state is None else state[0]
    distance = ((vector(values) - np.array([0.2, 0.5, 0.8])) ** 2).sum()
    loss *= 1.0 - 0.1 * math.exp(-float(distance) / (2 * 0.15**2))
    loss *= math.exp(0.05 * float(rng.standard_normal()))
    return Stepped((loss,), loss, loss)


DRIFT_STEPS = 60


def step_drift(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """An optimum that moves from one corner to the other; the best schedule follows its path."""
    del rng
    gathered = 0.0 if state is None else state[0]
    t = number / DRIFT_STEPS
    distance = ((vector(values) - np.array([0.2 + 0.6 * t, 0.8 - 0.6 * t])) ** 2).sum()
    gathered += math.exp(-float(distance) / (2 * 0.1**2))
    loss = DRIFT_STEPS - gathered
    return Stepped((gathered,), loss, loss)


def best_path() -> dict[str, list[float]]:
    """The position of the moving optimum, by hyperparameter and step."""
    steps = [k / DRIFT_STEPS for k in range(DRIFT_STEPS)]
    return {"x0": [0.2 + 0.6 * t for t in steps], "x1": [0.8 - 0.6 * t for t in steps]}


def step_cliff(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Training is faster near a limit that moves with the loss; beyond it the loss triples."""
    del number
    loss = 5.0 if state is None else state[0]
    x, y = vector(values)
    if x > 0.75 + 0.3 * math.sin(loss):
        loss = min(3.0 * loss, 1e6)
    else:
        loss -= 0.2 * x * math.exp(-(((y - 0.6) / 0.2) ** 2))
    return Stepped((loss,), loss + 0.02 * float(rng.standard_normal()), loss)


def step_surrogate(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Maximise 1.2 - |theta|^2 with gradients of a surrogate that the hyperparameters weight.

    The toy example of Jaderberg et al. (2017): each hyperparameter scales the gradient of one
    coordinate, so neither alone can reach the maximum.
    """
    del number, rng
    theta = np.array([0.9, 0.9] if state is None else state)
    for _ in range(4):
        theta = theta - 0.01 * 2.0 * vector(values) * theta
    return Stepped(
        (float(theta[0]), float(theta[1])), float((theta**2).sum()), float((theta**2).sum())
    )


@lru_cache
def best_surrogate() -> float:
    """The lowest final |theta|^2, with both weights always at 1."""
    return float(2 * (0.9 * 0.98 ** (4 * 40)) ** 2)


HITCHHIKING_STEPS = 40
FLOOR_AT = np.array([0.0, 1.0, 0.0, 0.3, 0.5, 0.7])


def step_hitchhiking(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """One hyperparameter decides how fast the error falls; six others add a small loss.

    A slot that learns fast is copied early, together with its six other values, whose effect shows
    only at the end: a label smoothing that costs 0.1 is not seen while the loss is 2. The noise is
    10 %.
    """
    del number
    error, x = 1.0 if state is None else state[0], vector(values)
    error *= 1.0 - 0.3 * math.exp(-(((x[0] - 0.6) / 0.1) ** 2) / 2.0)
    loss = error + 0.1 * float(np.abs(x[1:] - FLOOR_AT).sum())
    return Stepped((error,), loss * math.exp(0.1 * float(rng.standard_normal())), loss)


def best_hitchhiking() -> float:
    """The error that remains if all steps have the best value: 6e-7."""
    return float(0.7**HITCHHIKING_STEPS)
