"""scikit-learn's partial_fit: `romul run examples/frameworks/with_sklearn.py`."""

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss

from romul_actors.protocol.experiment import Experiment, FloatSpec

experiment = Experiment(
    name="sklearn",
    task="with_sklearn",
    metric="val_loss",
    population=8,
    steps=15,
    budget_unit="epoch",
    space={
        "eta0": FloatSpec(type="float", min=1e-5, max=1.0, scale="log"),
        "alpha": FloatSpec(type="float", min=1e-6, max=1e-1, scale="log"),
    },
)


def setup(context):
    x, y = load_digits(return_X_y=True)
    return x[:1200] / 16, y[:1200], x[1200:] / 16, y[1200:]


def train(trial):
    x, y, x_val, y_val = trial.state
    if trial.parent is not None:
        model = joblib.load(trial.parent / "model.joblib")
    else:
        model = SGDClassifier(loss="log_loss", learning_rate="constant", shuffle=False)
    model.set_params(**trial.hyperparameters)
    for at in range(int(trial.start), int(trial.stop)):
        order = np.random.default_rng((trial.seed, at)).permutation(len(y))
        model.partial_fit(x[order], y[order], classes=range(10))
        if at + 1 < trial.stop and trial.should_stop:
            break
    joblib.dump(model, trial.checkpoint / "model.joblib")
    if at + 1 < trial.stop:
        return trial.pause(at + 1)
    return {"val_loss": log_loss(y_val, model.predict_proba(x_val)), "lr": model.eta0}
