"""A task that is fit, and four with one mistake each; chosen by the constant `mistake`."""

import json
import random
import time


def train(trial):
    mistake = trial.constants.get("mistake", "")
    rng = random.SystemRandom() if mistake == "unseeded" else random.Random(trial.seed)
    x, rate = 1.0, trial.hyperparameters["rate"]
    if trial.parent is not None and mistake != "ignores its parent":
        x, restored = json.loads((trial.parent / "state.json").read_text())
        if mistake == "restored rate wins":
            rate = restored
    for step in range(int(trial.start), int(trial.stop)):
        x -= rate * (x + 0.01 * rng.gauss(0.0, 1.0))
        time.sleep(0.002)
        if mistake != "never stops" and trial.should_stop and step + 1 < trial.stop:
            save(trial, x, rate)
            return trial.pause(step + 1)
    save(trial, x, rate)
    return abs(x)


def save(trial, x, rate):
    (trial.checkpoint / "state.json").write_text(json.dumps([x, rate]))
