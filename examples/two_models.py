"""Tune a model of scikit-learn, then one of torch: `python examples/two_models.py`."""

import joblib
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

import romul

x, y = load_digits(return_X_y=True)
images, labels = torch.tensor(x).float(), torch.tensor(y)


def linear(trial):
    model = joblib.load(trial.parent / "model") if trial.parent else SGDClassifier()
    model.set_params(learning_rate="constant", **trial.hyperparameters)
    model.partial_fit(x[:1200], y[:1200], classes=range(10))
    joblib.dump(model, trial.checkpoint / "model")
    return 1 - model.score(x[1200:], y[1200:])


def network(trial):
    model = torch.nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trial.attach(model=model, optimizer=optimizer)
    torch.nn.functional.cross_entropy(model(images[:1200]), labels[:1200]).backward()
    optimizer.step()
    trial.save()
    return 1 - (model(images[1200:]).argmax(1) == labels[1200:]).float().mean().item()


for train, rate in ((linear, "eta0"), (network, "lr")):
    result = romul.run(train, {rate: romul.Float(1e-5, 1, log=True)}, population=4, steps=10)
    print(train.__name__, result.best.value, result.best.hyperparameters)
