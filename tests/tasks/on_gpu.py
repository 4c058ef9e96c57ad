"""A task that does on a GPU whatever its hyperparameter says."""

import time

import torch

DONE = "state.txt"


def train(trial):
    how, device = trial.hyperparameters["how"], trial.device
    if how == "asks for too much":
        torch.empty(2**50, dtype=torch.uint8, device=device)
    if how == "reads beyond the end":
        # After this the process can no longer use its GPU.
        rows = torch.zeros(4, device=device)[torch.tensor([2**20], device=device)]
        rows.sum().item()
    if how == "hangs":
        held = torch.ones(trial.constants["bytes"], dtype=torch.uint8, device=device)
        while held.numel():
            time.sleep(1)
    (trial.checkpoint / DONE).write_text("done")
    return float(torch.ones(3, device=device).sum())


def draws(trial):
    """Sum random numbers drawn on the device, one per epoch; pause when asked to stop."""
    total = torch.nn.Linear(1, 1, bias=False).to(trial.device)
    if trial.parent is None:
        torch.nn.init.zeros_(total.weight)
    trial.attach(model=total)
    with torch.no_grad():
        for epoch in range(int(trial.start), int(trial.stop)):
            total.weight += torch.randn(1, 1, device=trial.device)
            trial.progress(epoch + 1)
            time.sleep(trial.constants["seconds"])
            if epoch + 1 < trial.stop and trial.should_stop:
                trial.save()
                return trial.pause(epoch + 1)
    trial.save()
    return abs(total.weight.item())
