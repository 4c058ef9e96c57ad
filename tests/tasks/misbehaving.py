"""A task that does whatever its hyperparameter says, most of it wrong."""

import os
import signal
import subprocess
import sys
import time

DONE = "state.txt"


def train(trial):
    how = trial.hyperparameters["how"]
    if how == "raises":
        raise ValueError("the task's own words")
    if how == "kills itself":
        print("last words", flush=True)  # noqa: T201
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exits":
        sys.exit(3)
    if how == "hangs":
        time.sleep(3600)
    if how == "out of memory":
        raise MemoryError("no more")
    if how != "writes nothing":
        (trial.checkpoint / DONE).write_text("done")
    answers = {
        "is not a number": float("nan"),
        "is infinite": float("inf"),
        "is text": "0.5",
        "is nothing": None,
        "lacks the metric": {"accuracy": 0.5},
        "is many": {"loss": trial.hyperparameters["x"], "accuracy": 0.5},
    }
    return answers.get(how, trial.hyperparameters["x"])


def slow(trial):
    """Train for a minute, unless asked to stop."""
    (trial.checkpoint / DONE).write_text("done")
    for _ in range(600):
        if trial.should_stop:
            return 0.0
        time.sleep(0.1)
    return 0.0


def writing(trial):
    """Write output for a minute."""
    for _ in range(1_200):
        (trial.checkpoint / DONE).write_text("done")
        time.sleep(0.05)
    return 0.0


TRAINED: list[str] = []


def first_at_once(trial):
    """End the first trial of a process at once; train for a minute in all others."""
    TRAINED.append(trial.id)
    if len(TRAINED) > 1:
        return slow(trial)
    (trial.checkpoint / DONE).write_text("done")
    return 0.0


def sick(trial):
    """Train normally, but fail on a machine with the variable SICK."""
    if "SICK" in os.environ:
        raise RuntimeError("no such device")
    time.sleep(0.3)
    (trial.checkpoint / DONE).write_text("done")
    return trial.hyperparameters["x"]


def deaf(trial):
    """Ignore requests to stop for a minute; also start processes, known by `marked`.

    One is in a session of its own, as those that torchrun starts.
    """
    for own_session in (False, True):
        command = ["sleep", str(trial.constants["marked"])]
        subprocess.Popen(command, start_new_session=own_session)
    if trial.constants.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    return 0.0
