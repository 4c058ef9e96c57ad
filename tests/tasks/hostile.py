"""A task with terminal control characters in all of its output."""

import sys

BAD = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202e\u2066\u2028"


def train(trial):
    print(BAD, flush=True)  # noqa: T201
    sys.stdout.buffer.write(b"\x9b31m 10 %\r 20 %\r\n")
    if trial.id == "1-0":
        raise ValueError(BAD)
    (trial.checkpoint / "state").write_text("")
    return {
        f"{BAD}loss": trial.hyperparameters[f"{BAD}x"] + trial.step,
        f"{BAD}seen": 1,
        f"{BAD}left": BAD,
    }
