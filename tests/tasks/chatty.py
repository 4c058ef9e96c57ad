"""A task that prints."""

import sys
import time


def train(trial):
    print(f"to stdout {trial.id}", flush=True)  # noqa: T201
    print(f"to stderr {trial.id}", file=sys.stderr, flush=True)  # noqa: T201
    time.sleep(0.2)
    (trial.checkpoint / "nothing").write_text("")
    return trial.hyperparameters["rate"] + trial.step
