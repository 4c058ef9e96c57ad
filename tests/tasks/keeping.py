"""A small torch task; its constant `after` says what it does after it has saved."""

import torch


def train(trial):
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    after = trial.constants.get("after", "nothing")
    if after == "reads its parent" and trial.parent is not None:
        (trial.parent / "state.safetensors").read_bytes()
    trial.attach(model=model, optimizer=optimizer)
    before = sum(float(weight.abs().sum()) for weight in model.parameters())
    model(torch.ones(3, 4) * trial.seed).square().sum().backward()
    optimizer.step()
    trial.save()
    if after == "trains on":
        optimizer.step()
    if after == "writes a file":
        (trial.checkpoint / "more").write_text("more")
    saved = sum(float(weight.abs().sum()) for weight in model.parameters())
    return {"loss": saved, "before": before}
