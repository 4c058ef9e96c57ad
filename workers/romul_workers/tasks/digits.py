"""Handwritten digits: a small convolutional network on real data that needs no download.

The data comes with scikit-learn: 1,797 images of 8 x 8 pixels, from the test part of NIST's
hand-printed forms (Alpaydin & Kaynak 1998). The split is fixed: 1,078 images for training, 359 for
validation (which the search sees), 360 for testing (which it does not see).

Hyperparameters: learning_rate, momentum, weight_decay, dropout, label_smoothing, input_noise,
noise_kind ("gaussian" or "uniform"), shift (pixels). Each may be a constant instead.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

from romul_workers.trial import Context, Paused, Trial

BATCH = 32
SPLIT_SEED = 20


@dataclass(frozen=True)
class Part:
    """One part of the data: images (n, 1, 8, 8) in [0, 1] and labels (n,)."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Data:
    """The fixed split."""

    train: Part
    validation: Part
    test: Part


class Net(nn.Module):
    """Two convolutions and two dense layers with 38,282 weights."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(64, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits, shape (n, 10)."""
        logits: Tensor = self.layers(images)
        return logits


def setup(context: Context) -> Data:
    """Load and split the data, once per process."""
    images, labels = load_digits(return_X_y=True)
    indices = list(range(len(labels)))
    kept, test = train_test_split(indices, test_size=360, random_state=SPLIT_SEED, stratify=labels)
    train, validation = train_test_split(
        kept, test_size=359, random_state=SPLIT_SEED, stratify=labels[kept]
    )

    def part(chosen: list[int]) -> Part:
        pixels = torch.tensor(images[chosen] / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
        return Part(pixels.to(context.device), torch.tensor(labels[chosen]).to(context.device))

    return Data(part(train), part(validation), part(test))


def train(trial: Trial) -> Mapping[str, float] | Paused:
    """Train from `trial.start` to `trial.stop` epochs; the task can pause after each epoch.

    Returns:
        val_loss (cross-entropy), val_accuracy, and test_accuracy, which a search must not use.
    """
    data: Data = trial.state
    values: dict[str, Any] = {**trial.constants, **trial.hyperparameters}
    model = Net(values["dropout"]).to(trial.device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=values["learning_rate"],
        momentum=values["momentum"],
        weight_decay=values["weight_decay"],
    )
    trial.attach(model=model, optimizer=optimizer)
    # Fields that are constants: the parent may come from a search with other constants.
    for group in optimizer.param_groups:
        group.update(
            lr=values["learning_rate"],
            momentum=values["momentum"],
            weight_decay=values["weight_decay"],
        )
    model.train()
    for epoch in range(int(trial.start), int(trial.stop)):
        trial.progress(epoch)
        order = torch.randperm(len(data.train.labels), device=trial.device)
        for chosen in torch.split(order, BATCH):
            images = _augment(data.train.images[chosen], values)
            loss = functional.cross_entropy(
                model(images), data.train.labels[chosen], label_smoothing=values["label_smoothing"]
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if epoch + 1 < trial.stop and trial.should_stop:
            trial.save()
            return trial.pause(epoch + 1)
    trial.save()
    val_loss, val_accuracy = _evaluate(model, data.validation)
    _, test_accuracy = _evaluate(model, data.test)
    return {"val_loss": val_loss, "val_accuracy": val_accuracy, "test_accuracy": test_accuracy}


def _augment(images: Tensor, values: Mapping[str, Any]) -> Tensor:
    """Shift each image by up to `shift` pixels each way, then add noise."""
    shift = int(values["shift"])
    if shift:
        n, _, height, width = images.shape
        padded = functional.pad(images, (shift,) * 4)
        dx, dy = torch.randint(0, 2 * shift + 1, (2, n, 1), device=images.device)
        rows = (dy + torch.arange(height, device=images.device))[:, :, None]
        columns = (dx + torch.arange(width, device=images.device))[:, None, :]
        each = torch.arange(n, device=images.device)[:, None, None]
        images = padded[each, 0, rows, columns][:, None]
    if values["noise_kind"] == "gaussian":
        noise = torch.randn_like(images)
    else:
        noise = 2.0 * torch.rand_like(images) - 1.0
    return images + float(values["input_noise"]) * noise


@torch.no_grad()
def _evaluate(model: nn.Module, part: Part) -> tuple[float, float]:
    """Cross-entropy and accuracy; the accuracy is NaN if the cross-entropy is not finite."""
    model.eval()
    logits = model(part.images)
    loss = functional.cross_entropy(logits, part.labels).item()
    accuracy = (logits.argmax(1) == part.labels).float().mean().item()
    return loss, accuracy if math.isfinite(loss) else math.nan
