"""A task that imports torch, and trains nothing."""

import torch


def train(trial):
    (trial.checkpoint / "device").write_text(str(torch.device(trial.device)))
    return trial.hyperparameters["rate"]
