"""A task that checks the type of every kind of hyperparameter."""

import json


def train(trial):
    got = trial.hyperparameters
    assert isinstance(got["widths"], list)
    assert [type(width) for width in got["widths"]] == [int, int]
    assert all(width % 16 == 0 for width in got["widths"])
    assert type(got["optimizer.lr"]) is float
    assert ("optimizer.momentum" in got) is (got["optimizer.kind"] == "sgd")
    assert json.dumps(got["odd"]) in ("true", "1", "1.0", '"1"', "[1, 2]", '{"a": 1}')
    assert round(got["share"] * 10) / 10 == got["share"]
    before = 1.0
    if trial.parent is not None:
        before = float((trial.parent / "loss").read_text())
    ranks = {"s": 0.1, "m": 0.2, "l": 0.3}
    loss = 0.5 * before + ranks[got["size"]] + got["share"] + sum(got["widths"]) / 1000
    loss += got["optimizer.lr"] + got.get("optimizer.momentum", 0.5)
    loss += len(json.dumps(got["odd"])) / 100
    (trial.checkpoint / "loss").write_text(repr(loss))
    return loss
