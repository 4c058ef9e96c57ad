"""Toy problems: models to train in no time, each with one difficulty of its own.

Two uses: as tasks of real workers (`train`, with the constant `problem`; `quadratic` and `nothing`
for tests and benchmarks), and in the laboratory, which steps them in its own process.

A toy's state is a tuple of numbers. `observed` is what a search sees, `true` what it is judged by.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from romul_actors.errors import TaskError
from romul_workers.trial import Paused, Trial

State = tuple[float, ...]
Values = Mapping[str, Any]


class Stepped(NamedTuple):
    """What one step of training leads to."""

    state: State
    observed: float
    true: float


@dataclass(frozen=True)
class Toy:
    """A toy problem.

    Attributes:
        name: its name.
        space: hyperparameters, as an experiment declares them.
        steps: PBT steps that it is meant for.
        step: one step of training: (state or None, values, number of the step, generator).
        best: the known best true loss at the end; None where none is known.
        reference: where that figure comes from.
        best_schedule: the hyperparameters by step that lead to it; None where none is known.
    """

    name: str
    space: Mapping[str, Mapping[str, Any]]
    steps: int
    step: Callable[[State | None, Values, int, Generator], Stepped]
    best: Callable[[], float] | None
    reference: str
    best_schedule: Callable[[], Mapping[str, Sequence[float]]] | None = None


def _unit(n: int) -> dict[str, dict[str, Any]]:
    return {f"x{i}": {"type": "float", "min": 0.0, "max": 1.0} for i in range(n)}


def _vector(values: Values) -> NDArray[np.float64]:
    return np.array(list(values.values()), dtype=float)


def _zero() -> float:
    return 0.0


# -- functions without a state: what is learned is where to look ----------------------------------


def _rosenbrock(values: Values) -> float:
    x = 4.0 * _vector(values) - 2.0
    return float((100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum())


def _step_rosenbrock(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Rosenbrock's valley on [-2, 2]^n: two directions, a hundred times apart in scale."""
    del state, number, rng
    loss = _rosenbrock(values)
    return Stepped((), loss, loss)


def _step_noisy_rosenbrock(
    state: State | None, values: Values, number: int, rng: Generator
) -> Stepped:
    """Measure the same through noise of 10 % and 0.1."""
    del state, number
    loss = _rosenbrock(values)
    noise = rng.standard_normal(2)
    return Stepped((), loss * (1.0 + 0.1 * float(noise[0])) + 0.1 * float(noise[1]), loss)


def _step_misspecified(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """A bowl in ranges that are right, ten times and a hundred times too wide."""
    del state, number, rng
    centre, width = np.array([0.3, 0.7, 0.55]), np.array([1.0, 0.1, 0.01])
    loss = float((((_vector(values) - centre) / width) ** 2).sum())
    return Stepped((), loss, loss)


@lru_cache
def _rotation(n: int) -> NDArray[np.float64]:
    q, _ = np.linalg.qr(default_rng(4).standard_normal((n, n)))
    return np.asarray(q)


def _step_ellipsoid(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """A rotated ellipsoid in 5 dimensions, axes 1 to 1000: no coordinate can be improved alone."""
    del state, number, rng
    x = _rotation(5) @ (_vector(values) - 0.6)
    loss = float((np.logspace(0.0, 3.0, 5) * x**2).sum())
    return Stepped((), loss, loss)


def _step_mixed(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Choices and whole numbers beside a real one; the best of each depends on the choice."""
    del state, number, rng
    layers = {"narrow": 3, "wide": 6, "deep": 9}[values["kind"]]
    loss = 0.2 * (values["kind"] != "deep") + 0.1 * (not values["norm"])
    loss += 0.05 * abs(values["layers"] - layers) + (math.log10(values["rate"]) + 2.0) ** 2
    return Stepped((), loss, loss)


# -- models with a state: what is done early lasts ------------------------------------------------

_CURVATURE = np.logspace(-2.5, 0.0, 50)
_UPDATES = 25
_NOISY_STEPS = 40


def _step_noisy_quadratic(
    state: State | None, values: Values, number: int, rng: Generator
) -> Stepped:
    """SGD on a noisy quadratic (short-horizon bias, Wu et al. 2018), 25 updates a step.

    Dropping the learning rate lowers the loss at once and ruins it later.
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


def _step_momentum_quadratic(
    state: State | None, values: Values, number: int, rng: Generator
) -> Stepped:
    """Do the same with heavy-ball momentum: the moments of (weight, speed) in closed form."""
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
        # A speed that diverges stays a number: the loss says how bad it is.
        ww, wv, vv = (np.clip(moment, -1e12, 1e12) for moment in (ww, wv, vv))
        w, v = (np.clip(moment, -1e6, 1e6) for moment in (w, v))
    loss = float((c * ww).sum() / 2.0)
    return Stepped(tuple(np.concatenate([w, v, ww, wv, vv]).tolist()), loss, loss)


def best_noisy_quadratic() -> float:
    """Lowest final loss of the noisy quadratic of all schedules of 40 rates: 0.0136.

    The best constant rate ends at 0.227.
    """
    return _best_rates()[0]


def best_two_rates() -> float:
    """Lowest final loss of the noisy quadratic of schedules that change their rate once: 0.0287.

    By search over each step to change at and 60 values of either rate.
    """
    rates = np.logspace(-4.0, 0.0, 60)
    first, second = (grid.ravel()[:, None] for grid in np.meshgrid(rates, rates))
    return min(
        float(
            _final_noisy_quadratic(
                np.hstack([first.repeat(k, 1), second.repeat(_NOISY_STEPS - k, 1)])
            ).min()
        )
        for k in range(1, _NOISY_STEPS)
    )


def _final_noisy_quadratic(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Final losses, shape (n,), of schedules, shape (n, steps), in closed form."""
    mean, variance = np.full((len(rates), 50), 9.0), np.zeros((len(rates), 50))
    for rate in rates.T[:, :, None]:
        decay = (1.0 - rate * _CURVATURE) ** (2 * _UPDATES)
        settled = rate * _CURVATURE / (2.0 - rate * _CURVATURE)
        mean, variance = mean * decay, variance * decay + settled * (1.0 - decay)
    return np.asarray((_CURVATURE * (mean + variance)).sum(-1) / 2.0)


@lru_cache
def _best_rates() -> tuple[float, tuple[float, ...]]:
    """Best loss and rates, by coordinate descent over the rates' logarithms, in closed form.

    It starts from a rate that is held and then falls.
    """
    low, high, final = math.log(1e-4), 0.0, _final_noisy_quadratic
    held = _NOISY_STEPS // 2
    logs = np.concatenate([np.zeros(held), np.linspace(0.0, math.log(0.005), held)])
    step = 0.5
    best = float(final(np.exp(logs)[None])[0])
    while step > 0.01:  # noqa: PLR2004
        before = best
        for k in range(_NOISY_STEPS):
            tries = np.repeat(logs[None], 2, axis=0)
            tries[:, k] = np.clip(logs[k] + np.array([-step, step]), low, high)
            losses = final(np.exp(tries))
            if losses.min() < best:
                best, logs = float(losses.min()), tries[int(losses.argmin())]
        if best > 0.999 * before:
            step /= 2.0
    return best, tuple(np.exp(logs).tolist())


_DROPOUT_STEPS = 40


def _step_dropout(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Regularise at a cost now that pays later (the paper's example; this project's model)."""
    del number
    fitted, memorised = (0.0, 0.0) if state is None else state
    u = values["x0"]
    fitted += 0.15 * (1.0 - 0.6 * u)
    memorised += 0.02 * (1.0 - u) ** 2
    loss = math.exp(-fitted) + memorised
    return Stepped((fitted, memorised), loss + 0.002 * float(rng.standard_normal()), loss)


def best_dropout() -> float:
    """Lowest final loss of the dropout problem: that of the best constant.

    exp(-a) + m is convex in the steps' values, which it treats alike: the best schedule is a
    constant. By search over 100,001 of them.
    """
    return _best_constant()[0]


@lru_cache
def _best_constant() -> tuple[float, float]:
    """Its loss and its value."""
    u = np.linspace(0.0, 1.0, 100_001)
    fitted = _DROPOUT_STEPS * 0.15 * (1.0 - 0.6 * u)
    losses = np.exp(-fitted) + _DROPOUT_STEPS * 0.02 * (1.0 - u) ** 2
    return float(losses.min()), float(u[losses.argmin()])


def _step_luck(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Improve by the hyperparameters a little and by luck as much: who deserves to be copied?"""
    del number
    loss = 1.0 if state is None else state[0]
    distance = ((_vector(values) - np.array([0.2, 0.5, 0.8])) ** 2).sum()
    loss *= 1.0 - 0.1 * math.exp(-float(distance) / (2 * 0.15**2))
    loss *= math.exp(0.05 * float(rng.standard_normal()))
    return Stepped((loss,), loss, loss)


_DRIFT_STEPS = 60


def _step_drift(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Follow an optimum that moves from one corner to the other: the best schedule is the path."""
    del rng
    gathered = 0.0 if state is None else state[0]
    t = number / _DRIFT_STEPS
    distance = ((_vector(values) - np.array([0.2 + 0.6 * t, 0.8 - 0.6 * t])) ** 2).sum()
    gathered += math.exp(-float(distance) / (2 * 0.1**2))
    loss = _DRIFT_STEPS - gathered
    return Stepped((gathered,), loss, loss)


def _path() -> dict[str, list[float]]:
    steps = [k / _DRIFT_STEPS for k in range(_DRIFT_STEPS)]
    return {"x0": [0.2 + 0.6 * t for t in steps], "x1": [0.8 - 0.6 * t for t in steps]}


def _step_cliff(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Train faster the closer to divergence, which triples the loss and moves with it."""
    del number
    loss = 5.0 if state is None else state[0]
    x, y = _vector(values)
    if x > 0.75 + 0.3 * math.sin(loss):
        loss = min(3.0 * loss, 1e6)
    else:
        loss -= 0.2 * x * math.exp(-(((y - 0.6) / 0.2) ** 2))
    return Stepped((loss,), loss + 0.02 * float(rng.standard_normal()), loss)


def _step_surrogate(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Climb 1.2 - |theta|^2 by gradients of a surrogate that the hyperparameters weigh.

    Jaderberg et al. (2017), the toy example: each hyperparameter switches one coordinate's gradient
    on; either one alone cannot reach the top.
    """
    del number, rng
    theta = np.array([0.9, 0.9] if state is None else state)
    for _ in range(4):
        theta = theta - 0.01 * 2.0 * _vector(values) * theta
    return Stepped(
        (float(theta[0]), float(theta[1])), float((theta**2).sum()), float((theta**2).sum())
    )


@lru_cache
def best_surrogate() -> float:
    """1.2 minus the top: both weights at 1 all the time."""
    return float(2 * (0.9 * 0.98 ** (4 * 40)) ** 2)


_HITCHHIKING_STEPS = 40
_FLOOR_AT = np.array([0.0, 1.0, 0.0, 0.3, 0.5, 0.7])


def _step_hitchhiking(state: State | None, values: Values, number: int, rng: Generator) -> Stepped:
    """Learn by one hyperparameter; six others raise the loss by little, which counts at the end.

    Whoever learns first is copied, and its six bystanders with it, before they can be judged (a
    label smoothing that costs 0.1 is not seen while the loss is 2). Noise of 10 %.
    """
    del number
    error, x = 1.0 if state is None else state[0], _vector(values)
    error *= 1.0 - 0.3 * math.exp(-(((x[0] - 0.6) / 0.1) ** 2) / 2.0)
    loss = error + 0.1 * float(np.abs(x[1:] - _FLOOR_AT).sum())
    return Stepped((error,), loss * math.exp(0.1 * float(rng.standard_normal())), loss)


def best_hitchhiking() -> float:
    """What is left of the error after steps at the best rate: 6e-7."""
    return float(0.7**_HITCHHIKING_STEPS)


_RATE = {"rate": {"type": "float", "min": 1e-4, "max": 1.0, "scale": "log"}}
_SEEN = "by construction"

TOYS: Mapping[str, Toy] = {
    toy.name: toy
    for toy in (
        Toy("rosenbrock-2", _unit(2), 60, _step_rosenbrock, _zero, _SEEN),
        Toy("rosenbrock-6", _unit(6), 60, _step_rosenbrock, _zero, _SEEN),
        Toy("rosenbrock-noise", _unit(2), 60, _step_noisy_rosenbrock, _zero, _SEEN),
        Toy("misspecified", _unit(3), 60, _step_misspecified, _zero, _SEEN),
        Toy("ellipsoid", _unit(5), 60, _step_ellipsoid, _zero, _SEEN),
        Toy(
            "mixed",
            {
                "kind": {"type": "categorical", "choices": ["narrow", "wide", "deep"]},
                "norm": {"type": "boolean"},
                "layers": {"type": "int", "min": 1, "max": 12},
                **_RATE,
            },
            40,
            _step_mixed,
            _zero,
            _SEEN,
        ),
        Toy(
            "noisy-quadratic",
            _RATE,
            _NOISY_STEPS,
            _step_noisy_quadratic,
            best_noisy_quadratic,
            "best schedule of 40 rates, by coordinate descent in closed form",
            lambda: {"rate": _best_rates()[1]},
        ),
        Toy(
            "noisy-momentum",
            {**_RATE, "momentum": {"type": "float", "min": 0.0, "max": 0.99}},
            _NOISY_STEPS,
            _step_momentum_quadratic,
            None,
            "none known",
        ),
        Toy(
            "dropout",
            _unit(1),
            _DROPOUT_STEPS,
            _step_dropout,
            best_dropout,
            "best constant, which is the best schedule, by search",
            lambda: {"x0": [_best_constant()[1]] * _DROPOUT_STEPS},
        ),
        Toy("luck", _unit(3), 40, _step_luck, None, "none known"),
        Toy("drift", _unit(2), _DRIFT_STEPS, _step_drift, _zero, "the path itself", _path),
        Toy("cliff", _unit(2), 40, _step_cliff, None, "none known"),
        Toy(
            "surrogate",
            _unit(2),
            40,
            _step_surrogate,
            best_surrogate,
            "both weights at 1",
            lambda: {"x0": [1.0] * 40, "x1": [1.0] * 40},
        ),
        Toy(
            "hitchhiking",
            _unit(7),
            _HITCHHIKING_STEPS,
            _step_hitchhiking,
            best_hitchhiking,
            "all seven at their best",
            lambda: {
                f"x{i}": [x] * _HITCHHIKING_STEPS for i, x in enumerate((0.6, *_FLOOR_AT.tolist()))
            },
        ),
    )
}
"""All toy problems by name."""


# -- as tasks -------------------------------------------------------------------------------------


def train(trial: Trial) -> Mapping[str, float]:
    """Train one step of the toy that the constant `problem` names; `seconds`: how long it takes."""
    time.sleep(float(trial.constants.get("seconds", 0.0)))
    name = str(trial.constants.get("problem"))
    if name not in TOYS:
        raise TaskError(f"constant problem = {name!r} is not one of {', '.join(TOYS)}")
    state = None
    if trial.parent is not None:
        state = tuple(json.loads((trial.parent / "state.json").read_text()))
    stepped = TOYS[name].step(state, trial.hyperparameters, trial.step, default_rng(trial.seed))
    (trial.checkpoint / "state.json").write_text(json.dumps(stepped.state))
    return {"loss": stepped.observed, "true_loss": stepped.true}


def quadratic(trial: Trial) -> float | Paused:
    """Go down a bowl whose best learning rate shrinks as training goes on.

    Hyperparameters: `rate` in (0, 1]; if there, `momentum` in [0, 1). Constants: `seconds`, how
    long a trial takes. Deterministic: the same checkpoint and hyperparameters, the same loss. The
    checkpoint counts the updates that led to it, so that none can be lost or done twice unseen.
    """
    x, speed, done = 1.0, 0.0, 0
    if trial.parent is not None:
        x, speed, done = json.loads((trial.parent / "state.json").read_text())
    if done != int(trial.start):
        raise TaskError(f"{done} updates in the checkpoint, but the trial starts at {trial.start}")
    rate = float(trial.hyperparameters["rate"])
    momentum = float(trial.hyperparameters.get("momentum", 0.0))
    # Of a whole step, also for a trial that goes on inside it.
    pause_s = float(trial.constants.get("seconds", 0.0)) * (trial.step + 1) / trial.stop
    for update in range(int(trial.start), int(trial.stop)):
        time.sleep(pause_s)
        # Curvature grows: what was a good rate early overshoots later.
        gradient = (1.0 + 0.1 * update) * x
        speed = momentum * speed - rate * gradient
        x += speed
        if update + 1 < trial.stop and trial.should_stop:
            _write_quadratic(trial, x, speed, update + 1)
            return trial.pause(update + 1)
    _write_quadratic(trial, x, speed, int(trial.stop))
    return abs(x)


def _write_quadratic(trial: Trial, x: float, speed: float, done: int) -> None:
    (trial.checkpoint / "state.json").write_text(json.dumps([x, speed, done]))


def nothing(trial: Trial) -> float:
    """Do no work at all: what is left is the cost of the system itself."""
    (trial.checkpoint / "empty").touch()
    return float(sum(float(value) for value in trial.hyperparameters.values()))
