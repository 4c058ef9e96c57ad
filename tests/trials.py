"""What many tests start from: a declaration, one of its trials, and lines of history."""

from typing import Any

from romul_actors.core.events import TrialMessage
from romul_actors.core.history import TrialCreated, TrialFailed, TrialReported
from romul_actors.protocol.experiment import Experiment

TRIAL = TrialMessage(
    id="0-0",
    slot=0,
    step=0,
    attempt=1,
    hyperparameters={"x": 0.5},
    parent=None,
    start=0.0,
    stop=1.0,
    seed=1,
)


def declare(*names, **keys):
    """An experiment of hyperparameters from 0 to 1, one `x` if none is named."""
    space = {name: {"type": "float", "min": 0.0, "max": 1.0} for name in names or "x"}
    return Experiment.model_validate({"name": "e", "task": "t", "steps": 1, "space": space, **keys})


def created(trial="0-0", **fields):
    slot, step = map(int, trial.split("-"))
    given: dict[str, Any] = {"at_ms": 0, "parent": None, "hyperparameters": {"x": 0.5}}
    given |= {"trial": trial, "slot": slot, "step": step, "vector": (0.5,)}
    return TrialCreated(**{**given, **fields})


def reported(trial="0-0", **fields):
    slot, step = map(int, trial.split("-"))
    given: dict[str, Any] = {"at_ms": 0, "attempt": 1, "worker": "w", "value": 1.0, "seconds": 1.0}
    given |= {"trial": trial, "slot": slot, "step": step, "checkpoint": f"{trial}-1"}
    return TrialReported(**{**given, **fields})


def failed(trial="0-0", **fields):
    slot, step = map(int, trial.split("-"))
    given: dict[str, Any] = {"at_ms": 0, "attempt": 1, "worker": "w", "message": ""}
    given |= {"trial": trial, "slot": slot, "step": step, "reason": "exception", "again": False}
    return TrialFailed(**{**given, **fields})
