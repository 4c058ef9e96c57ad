"""The quadratic toy, but each trial waits for a permit of the test before it ends."""

import time
from pathlib import Path

from romul_workers.tasks.toys import quadratic


def train(trial):
    folder = Path(trial.constants["permits"])
    while not (folder / "open").exists() and not claimed(folder):
        time.sleep(0.01)
    return quadratic(trial)


def claimed(folder):
    """Take a permit, so that no other trial gets it."""
    for permit in folder.glob("permit-*"):
        try:
            permit.unlink()
        except FileNotFoundError:
            continue
        return True
    return False
