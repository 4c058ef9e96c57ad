"""A task that is fit, and four with one mistake each; chosen by the constant `mistake`.

With "measures its time" in it the task also returns how long it took.
"""

import json
import random
import time


def train(trial):
    mistake, _, measures = trial.constants.get("mistake", "").partition(", ")
    began = time.perf_counter()
    rng = random.SystemRandom() if mistake == "unseeded" else random.Random(trial.seed)
    x, rate = 1.0, trial.hyperparameters["rate"]
    if trial.parent is not None and mistake != "ignores its parent":
        x, restored = json.loads((trial.parent / "state.json").read_text())
        if mistake == "restored rate wins":
            rate = restored
    for step in range(int(trial.start), int(trial.stop)):
        x -= rate * (x + 0.01 * rng.gauss(0.0, 1.0))
        time.sleep(0.002)
        if step + 1 < trial.stop and mistake != "never stops" and trial.should_stop:
            save(trial, x, rate)
            return trial.pause(step + 1)
    save(trial, x, rate)
    return {"loss": abs(x), "seconds": time.perf_counter() - began} if measures else abs(x)


def save(trial, x, rate):
    (trial.checkpoint / "state.json").write_text(json.dumps([x, rate]))
