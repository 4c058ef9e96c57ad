"""A task whose trials last as long as their file says."""

import os
import signal
import time
from pathlib import Path


def train(trial):
    place = Path(trial.constants["place"])
    print(f"words of {trial.id}", flush=True)  # noqa: T201
    (place / f"{trial.id} trains").touch()
    (trial.checkpoint / "state").write_text(trial.id)
    while (place / f"{trial.id} waits").exists():
        time.sleep(0.01)
        if trial.should_stop:
            return trial.pause(trial.start)
    if (place / f"{trial.id} dies").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return 0.5
