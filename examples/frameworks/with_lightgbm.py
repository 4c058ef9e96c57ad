"""LightGBM: `romul run examples/frameworks/with_lightgbm.py`."""

import lightgbm
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss

from romul_actors.protocol.experiment import Experiment, FloatSpec, IntSpec

experiment = Experiment(
    name="lightgbm",
    task="with_lightgbm",
    metric="val_loss",
    population=8,
    steps=15,
    budget=2,
    budget_unit="round",
    space={
        "learning_rate": FloatSpec(type="float", min=1e-3, max=1.0, scale="log"),
        "feature_fraction": FloatSpec(type="float", min=0.3, max=1.0),
        "num_leaves": IntSpec(type="int", min=4, max=31),
    },
)


class Step:
    """Ends a trial between two rounds when asked."""

    def __init__(self, trial):
        self.trial = trial
        self.at = int(trial.start)

    def __call__(self, environment):
        self.at += 1
        if self.at < self.trial.stop and self.trial.should_stop:
            raise lightgbm.callback.EarlyStopException(environment.iteration, [])


def setup(context):
    x, y = load_digits(return_X_y=True)
    return x[:1200], y[:1200], x[1200:], y[1200:]


def train(trial):
    x, y, x_val, y_val = trial.state
    fixed = {"objective": "multiclass", "num_class": 10, "verbose": -1, "num_threads": 1}
    step = Step(trial)
    booster = lightgbm.train(
        {**fixed, **trial.hyperparameters, "seed": trial.seed},
        lightgbm.Dataset(x, y),
        num_boost_round=int(trial.stop - trial.start),  # additional rounds, not the total
        init_model=trial.parent and trial.parent / "model.txt",
        callbacks=[step],
    )
    booster.save_model(trial.checkpoint / "model.txt", num_iteration=-1)
    if step.at < trial.stop:
        return trial.pause(step.at)
    return log_loss(y_val, booster.predict(x_val))
