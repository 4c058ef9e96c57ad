"""XGBoost: `romul run examples/frameworks/with_xgboost.py`."""

import xgboost
from sklearn.datasets import load_digits

from romul_actors.protocol.experiment import Experiment, FloatSpec, IntSpec

experiment = Experiment(
    name="xgboost",
    task="with_xgboost",
    metric="val_loss",
    population=8,
    steps=15,
    budget=2,
    budget_unit="round",
    space={
        "eta": FloatSpec(type="float", min=1e-3, max=1.0, scale="log"),
        "subsample": FloatSpec(type="float", min=0.3, max=1.0),
        "max_depth": IntSpec(type="int", min=2, max=6),
    },
)


class Step(xgboost.callback.TrainingCallback):
    """Ends a trial between two rounds when asked."""

    def __init__(self, trial):
        self.trial = trial
        self.at = int(trial.start)

    def after_iteration(self, model, epoch, evals_log):
        self.at += 1
        return self.at < self.trial.stop and self.trial.should_stop


def setup(context):
    x, y = load_digits(return_X_y=True)
    return xgboost.DMatrix(x[:1200], y[:1200]), xgboost.DMatrix(x[1200:], y[1200:])


def train(trial):
    training, validation = trial.state
    fixed = {
        "objective": "multi:softprob",
        "num_class": 10,
        "eval_metric": "mlogloss",
        "nthread": 1,
    }
    step = Step(trial)
    losses = {}
    booster = xgboost.train(
        {**fixed, **trial.hyperparameters, "seed": trial.seed},
        training,
        num_boost_round=int(trial.stop - trial.start),  # additional rounds, not the total
        xgb_model=trial.parent and trial.parent / "model.ubj",
        evals=[(validation, "val")],
        evals_result=losses,
        callbacks=[step],
        verbose_eval=False,
    )
    booster.save_model(trial.checkpoint / "model.ubj")
    if step.at < trial.stop:
        return trial.pause(step.at)
    return losses["val"]["mlogloss"][-1]
