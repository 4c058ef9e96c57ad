"""A task that tells how it was run."""

import os
import random

SETUPS = []


def setup(context):
    SETUPS.append(context.experiment)
    return dict(context.constants)


def train(trial):
    if trial.hyperparameters["x"] < 0:
        raise ValueError("x is below 0")
    count = 1
    if trial.parent is not None:
        count += int((trial.parent / "count").read_text())
    (trial.checkpoint / "count").write_text(str(count))
    return {
        "loss": count,
        "pid": os.getpid(),
        "setups": SETUPS.count(trial.context.experiment),
        "weight": trial.state.get("weight", 0),
        "random": random.random(),
    }
