"""A task that records how it was run."""

import os
import random
import time

SETUPS: list[str] = []


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
        "loss": float("nan") if trial.hyperparameters.get("diverges") else count,
        "pid": os.getpid(),
        "setups": SETUPS.count(trial.context.experiment),
        "weight": trial.state.get("weight", 0),
        "random": random.random(),
    }


def pausing(trial):
    """Count seconds, report progress, and pause when asked to stop."""
    done = trial.start
    if trial.resumed and float((trial.parent / "count").read_text()) != done:
        raise ValueError(f"resumed at {done} from another place")
    while done < trial.stop:
        time.sleep(0.05)
        done += 0.01
        trial.progress(done)
        if trial.should_stop:
            (trial.checkpoint / "count").write_text(str(done))
            return trial.pause(trial.hyperparameters.get("says", done))
    (trial.checkpoint / "count").write_text(str(done))
    return {"loss": done, "start": trial.start}


def pausing_unasked(trial):
    """Pause, although the worker was not asked to stop."""
    (trial.checkpoint / "count").write_text("1")
    return trial.pause(trial.hyperparameters["says"])


def finishing(trial):
    """Train to the end, even if asked to stop."""
    trial.progress(trial.start)
    while not trial.should_stop:
        time.sleep(0.01)
    (trial.checkpoint / "count").write_text("all")
    trial.progress(trial.stop)
    return {"loss": 1.0, "stops": trial.should_stop}
