"""A model of ten layers, of which a trial trains one."""

import torch
from torch import nn

LAYERS = 10
NUMBERS = 1 << 18


def train(trial):
    torch.manual_seed(0)
    model = nn.ParameterList([nn.Parameter(torch.randn(NUMBERS)) for _ in range(LAYERS)])
    for frozen in model[1:]:
        frozen.requires_grad_(requires_grad=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trial.attach(model=model, optimizer=optimizer)
    optimizer.zero_grad()
    loss = (model[0] ** 2).mean()
    loss.backward()
    optimizer.step()
    trial.save()
    return float(loss)
