"""Toy problems: models that train in almost no time, each with one difficulty.

They have two uses. Real workers train them as tasks: `train`, with the constant `problem`, and
`quadratic` and `nothing` for tests and benchmarks. The laboratory steps them in its own process.

`toy_functions.py` has the problems without a state, `toy_models.py` those with one. This module has
their spaces, their known bests, and the tasks.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.random import Generator, default_rng

from romul_actors.errors import TaskError
from romul_workers.tasks import toy_functions, toy_models
from romul_workers.tasks.toy_functions import State, Stepped, Values
from romul_workers.trial import Paused, Trial

__all__ = ["TOYS", "State", "Stepped", "Toy", "nothing", "quadratic", "train"]


@dataclass(frozen=True)
class Toy:
    """A toy problem.

    Attributes:
        name: name of the problem.
        space: hyperparameters, as an experiment declares them.
        steps: number of PBT steps that the problem is designed for.
        step: one step of training; its arguments are (state or None, values, number of the step,
            generator).
        best: returns the best known true loss at the end, by construction or by search; None: not
            known.
        best_schedule: returns the hyperparameters by step that lead to it; None: not known.
    """

    name: str
    space: Mapping[str, Mapping[str, Any]]
    steps: int
    step: Callable[[State | None, Values, int, Generator], Stepped]
    best: Callable[[], float] | None
    best_schedule: Callable[[], Mapping[str, Sequence[float]]] | None = None


def _unit(n: int) -> dict[str, dict[str, Any]]:
    return {f"x{i}": {"type": "float", "min": 0.0, "max": 1.0} for i in range(n)}


def _zero() -> float:
    return 0.0


_RATE = {"rate": {"type": "float", "min": 1e-4, "max": 1.0, "scale": "log"}}

TOYS: Mapping[str, Toy] = {
    toy.name: toy
    for toy in (
        Toy("rosenbrock-2", _unit(2), 60, toy_functions.step_rosenbrock, _zero),
        Toy("rosenbrock-6", _unit(6), 60, toy_functions.step_rosenbrock, _zero),
        Toy("rosenbrock-noise", _unit(2), 60, toy_functions.step_noisy_rosenbrock, _zero),
        Toy("misspecified", _unit(3), 60, toy_functions.step_misspecified, _zero),
        Toy("ellipsoid", _unit(5), 60, toy_functions.step_ellipsoid, _zero),
        Toy(
            "mixed",
            {
                "kind": {"type": "categorical", "choices": ["narrow", "wide", "deep"]},
                "norm": {"type": "boolean"},
                "layers": {"type": "int", "min": 1, "max": 12},
                **_RATE,
            },
            40,
            toy_functions.step_mixed,
            _zero,
        ),
        Toy(
            "noisy-quadratic",
            _RATE,
            toy_models.NOISY_STEPS,
            toy_models.step_noisy_quadratic,
            toy_models.best_noisy_quadratic,
            lambda: {"rate": toy_models.best_rates()[1]},
        ),
        Toy(
            "noisy-momentum",
            {**_RATE, "momentum": {"type": "float", "min": 0.0, "max": 0.99}},
            toy_models.NOISY_STEPS,
            toy_models.step_momentum_quadratic,
            None,
        ),
        Toy(
            "dropout",
            _unit(1),
            toy_models.DROPOUT_STEPS,
            toy_models.step_dropout,
            toy_models.best_dropout,
            lambda: {"x0": [toy_models.best_constant()[1]] * toy_models.DROPOUT_STEPS},
        ),
        Toy("luck", _unit(3), 40, toy_models.step_luck, None),
        Toy(
            "drift",
            _unit(2),
            toy_models.DRIFT_STEPS,
            toy_models.step_drift,
            _zero,
            toy_models.best_path,
        ),
        Toy("cliff", _unit(2), 40, toy_models.step_cliff, None),
        Toy(
            "surrogate",
            _unit(2),
            40,
            toy_models.step_surrogate,
            toy_models.best_surrogate,
            lambda: {"x0": [1.0] * 40, "x1": [1.0] * 40},
        ),
        Toy(
            "hitchhiking",
            _unit(7),
            toy_models.HITCHHIKING_STEPS,
            toy_models.step_hitchhiking,
            toy_models.best_hitchhiking,
            lambda: {
                f"x{i}": [x] * toy_models.HITCHHIKING_STEPS
                for i, x in enumerate((0.6, *toy_models.FLOOR_AT.tolist()))
            },
        ),
    )
}
"""All toy problems by name."""


# -- as tasks -------------------------------------------------------------------------------------


def train(trial: Trial) -> Mapping[str, float]:
    """Train one step of the toy problem that the constant `problem` names.

    Constants: `problem`, and optionally `seconds`, how long a trial takes.
    """
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
    """Minimise a quadratic function whose best learning rate falls during training.

    Hyperparameters: `rate` in (0, 1], and optionally `momentum` in [0, 1). Constants: optionally
    `seconds`, how long a trial takes. The task is deterministic: the same checkpoint and
    hyperparameters give the same loss. The checkpoint counts its updates, so that an update that
    was lost or done twice is noticed.
    """
    x, speed, done = 1.0, 0.0, 0
    if trial.parent is not None:
        x, speed, done = json.loads((trial.parent / "state.json").read_text())
    if done != int(trial.start):
        raise TaskError(f"{done} updates in the checkpoint, but the trial starts at {trial.start}")
    rate = float(trial.hyperparameters["rate"])
    momentum = float(trial.hyperparameters.get("momentum", 0.0))
    # `seconds` is the time of a whole step, even if the trial resumes inside it.
    pause_s = float(trial.constants.get("seconds", 0.0)) * (trial.step + 1) / trial.stop
    for update in range(int(trial.start), int(trial.stop)):
        time.sleep(pause_s)
        # The curvature grows, so a rate that is good early overshoots later.
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
    """Do no work, so that only the cost of the system itself remains."""
    (trial.checkpoint / "empty").touch()
    return float(sum(float(value) for value in trial.hyperparameters.values()))
