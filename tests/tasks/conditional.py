"""A torch task with a conditional momentum; it returns the momentum in effect."""

import torch


def train(trial):
    model = torch.nn.Linear(2, 1)
    momentum = trial.hyperparameters.get("momentum", 0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    trial.attach(model=model, optimizer=optimizer)
    trial.save()
    return {"loss": 1.0, "momentum": optimizer.param_groups[0]["momentum"]}
