"""An experiment and its task in one file, without a framework: `romul run examples/mine.py`."""

import json
import math

from romul_actors.protocol.experiment import Experiment, FloatSpec
from romul_workers import Trial

experiment = Experiment(
    name="mine",
    task="mine",
    metric="distance",
    population=8,
    steps=20,
    budget=10,
    budget_unit="update",
    space={
        "rate": FloatSpec(type="float", min=1e-3, max=1.0, scale="log"),
        "friction": FloatSpec(type="float", min=0.0, max=1.0),
    },
)


def train(trial: Trial) -> float:
    """Roll a ball into a valley whose one wall is a hundred times steeper than the other."""
    x, y, speed_x, speed_y = 1.0, 1.0, 0.0, 0.0
    if trial.parent is not None:
        x, y, speed_x, speed_y = json.loads((trial.parent / "ball.json").read_text())
    rate = float(trial.hyperparameters["rate"])
    kept = 1.0 - float(trial.hyperparameters["friction"])
    for _ in range(int(trial.start), int(trial.stop)):
        speed_x = kept * speed_x - rate * 0.1 * x
        speed_y = kept * speed_y - rate * 10.0 * y
        x, y = x + speed_x, y + speed_y
    (trial.checkpoint / "ball.json").write_text(json.dumps([x, y, speed_x, speed_y]))
    return math.hypot(x, y)
