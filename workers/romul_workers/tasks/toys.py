"""Toy tasks without a framework: a model is a few numbers in a JSON file."""

import json
import time

from romul_workers.trial import Trial


def quadratic(trial: Trial) -> float:
    """Go down a bowl whose best learning rate shrinks as training goes on.

    Hyperparameters: `rate` in (0, 1]; if there, `momentum` in [0, 1). Constants: `seconds`, how
    long a trial takes. Deterministic: the same checkpoint and hyperparameters, the same loss.
    """
    time.sleep(float(trial.constants.get("seconds", 0.0)))
    x, speed = 1.0, 0.0
    if trial.parent is not None:
        x, speed = json.loads((trial.parent / "state.json").read_text())
    rate = float(trial.hyperparameters["rate"])
    momentum = float(trial.hyperparameters.get("momentum", 0.0))
    for update in range(int(trial.start), int(trial.stop)):
        # Curvature grows: what was a good rate early overshoots later.
        gradient = (1.0 + 0.1 * update) * x
        speed = momentum * speed - rate * gradient
        x += speed
    (trial.checkpoint / "state.json").write_text(json.dumps([x, speed]))
    return abs(x)


def nothing(trial: Trial) -> float:
    """Do no work at all: what is left is the cost of the system itself."""
    (trial.checkpoint / "empty").touch()
    return float(sum(float(value) for value in trial.hyperparameters.values()))
