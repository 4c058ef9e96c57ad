"""Keras 3, on any backend: `romul run examples/frameworks/with_keras.py`."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from sklearn.datasets import load_digits

from romul_actors.protocol.experiment import Experiment, FloatSpec

experiment = Experiment(
    name="keras",
    task="with_keras",
    metric="val_loss",
    population=8,
    steps=15,
    budget_unit="epoch",
    space={
        "learning_rate": FloatSpec(type="float", min=1e-5, max=0.1, scale="log"),
        "weight_decay": FloatSpec(type="float", min=1e-4, max=1.0, scale="log"),
    },
)


class Step(keras.callbacks.Callback):
    """Ends a trial between two epochs when asked."""

    def __init__(self, trial):
        super().__init__()
        self.trial = trial
        self.at = trial.start

    def on_epoch_end(self, epoch, logs=None):
        self.at = epoch + 1
        if self.at < self.trial.stop and self.trial.should_stop:
            self.model.stop_training = True


def setup(context):
    x, y = load_digits(return_X_y=True)
    return (x[:1200] / 16, y[:1200]), (x[1200:] / 16, y[1200:])


def build():
    model = keras.Sequential([keras.layers.Dense(32, "relu"), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(), loss)
    return model


def train(trial):
    (x, y), validation = trial.state
    keras.utils.clear_session()
    keras.utils.set_random_seed(trial.seed)
    restored = trial.parent is not None
    model = keras.models.load_model(trial.parent / "model.keras") if restored else build()
    for name, value in trial.hyperparameters.items():
        setattr(model.optimizer, name, value)
    step = Step(trial)
    model.fit(
        x,
        y,
        batch_size=32,
        initial_epoch=int(trial.start),
        epochs=int(trial.stop),  # the number of the last epoch, not a count
        callbacks=[step],
        verbose=0,
    )
    model.save(trial.checkpoint / "model.keras")
    if step.at < trial.stop:
        return trial.pause(step.at)
    lr = float(model.optimizer.learning_rate)
    return {"val_loss": model.evaluate(*validation, verbose=0), "lr": lr}
