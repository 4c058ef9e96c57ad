"""The quadratic toy, but a trial ends only when its test lets one more end."""

import time
from pathlib import Path

from romul_workers.tasks.toys import quadratic


def train(trial):
    folder = Path(trial.constants["permits"])
    while not (folder / "open").exists() and not claimed(folder):
        time.sleep(0.01)
    return quadratic(trial)


def claimed(folder):
    """Take a permit, which no other trial gets then."""
    for permit in folder.glob("permit-*"):
        try:
            permit.unlink()
        except FileNotFoundError:
            continue
        return True
    return False
