"""The digits task for many networks at once; `romul_workers.tasks.digits` trains a single one.

The arithmetic is that of the task, but the random numbers differ.
"""

import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from batched import streams
from batched.layers import patches, pooled
from batched.task import Task, Values, Weights, descend
from romul_actors.protocol.experiment import parse
from romul_workers.tasks import digits
from romul_workers.tasks.digits import BATCH, Part
from romul_workers.trial import Context

_ORDER, _SHIFT, _NOISE, _DROPOUT = range(100, 104)
"""Streams of random numbers; lower numbers are for the weights."""
_LARGEST_SHIFT = 2
"""The largest shift in the task's ranges, in pixels."""
_SHAPES = {
    "conv1": (9, 16),
    "conv2": (9 * 16, 32),
    "dense1": (512, 64),
    "dense2": (64, 10),
}
"""Number of inputs and outputs of each layer; a convolution multiplies unfolded 3 x 3 patches."""
_DECLARED = parse((files("romul_workers.tasks") / "digits.toml").read_text())
EPOCHS = int(_DECLARED.budget)
"""Number of epochs in a PBT step."""


def _spaces() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    demo = {name: declared.model_dump() for name, declared in _DECLARED.space.items()}
    rate, decay = demo["learning_rate"], demo["weight_decay"]
    wide = {
        **demo,
        "learning_rate": {**rate, "min": rate["min"] / 100},
        "weight_decay": {**decay, "max": decay["max"] * 100},
    }
    return {"digits": demo, "digits-wide": wide}


SPACES = _spaces()
"""The demo's ranges, and the same with two ranges wrong by a factor of 100."""


class Digits(Task):
    """The task's networks.

    Attributes:
        epochs: number of epochs in a PBT step.
    """

    def __init__(
        self,
        space: Mapping[str, Mapping[str, Any]],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Load the task's data."""
        super().__init__(device, dtype)
        self.space, self.epochs = space, EPOCHS
        self.data = digits.setup(Context("digits", str(device), {}))
        self._losses = self.compiled(self.losses)
        self._forward = self.compiled(forward)
        self._descend = self.compiled(descend)

    def new(self, keys: Tensor) -> Weights:
        """Draw weights as torch.nn does: U(-1, 1) / sqrt(inputs)."""
        weights = {}
        for stream, (name, (inputs, outputs)) in enumerate(_SHAPES.items()):
            drawn = streams.uniform(
                keys, self.scalar(-1), stream, inputs + 1, outputs, dtype=self.dtype
            )
            both = (2.0 * drawn - 1.0) / math.sqrt(inputs)
            weights[f"{name}.w"] = both[:, :-1].contiguous()
            weights[f"{name}.b"] = both[:, -1:].contiguous()
        return weights

    def train(self, weights: Weights, momenta: Weights, values: Values, keys: Tensor) -> None:
        """Train the epochs of one step."""
        train = self.data.train
        iteration = self.scalar()
        for _ in range(self.epochs):
            order = streams.bits(keys, iteration, _ORDER, len(train.labels))
            for chosen in torch.split(order.argsort(dim=1, stable=True), BATCH, 1):
                images = train.images[:, 0].to(self.dtype)[chosen]
                seen = augment(images, values, keys, iteration)
                for weight in weights.values():
                    weight.requires_grad_()
                loss = self._losses(weights, seen, train.labels[chosen], values, keys, iteration)
                gradients = torch.autograd.grad(loss.sum(), list(weights.values()))
                for weight in weights.values():
                    weight.requires_grad_(False)  # noqa: FBT003
                with torch.no_grad():
                    named = dict(zip(weights, gradients, strict=True))
                    self._descend(weights, momenta, named, values)
                iteration = iteration + 1

    def losses(
        self,
        weights: Weights,
        images: Tensor,
        labels: Tensor,
        values: Values,
        keys: Tensor,
        iteration: Tensor,
    ) -> Tensor:
        """Training loss of each network, shape (B,)."""
        dropout, smoothing = values["dropout"][:, None, None], values["label_smoothing"][:, None]
        drawn = streams.uniform(
            keys, iteration, _DROPOUT, labels.shape[1], _SHAPES["dense2"][0], dtype=self.dtype
        )
        kept = (drawn >= dropout).to(self.dtype) / (1.0 - dropout)
        logs = functional.log_softmax(forward(weights, images, kept), -1)
        right = logs.gather(-1, labels[..., None])[..., 0]
        return -((1.0 - smoothing) * right + smoothing * logs.mean(-1)).mean(1)

    def validate(self, weights: Weights) -> Tensor:
        """Cross-entropy of the validation images, shape (B,)."""
        return self._evaluate(weights, self.data.validation)

    def test(self, weights: Weights) -> Tensor:
        """Cross-entropy of the test images, shape (B,)."""
        return self._evaluate(weights, self.data.test)

    @torch.no_grad()
    def _evaluate(self, weights: Weights, part: Part) -> Tensor:
        """Cross-entropy of the images, shape (B,)."""
        n = len(weights["dense2.b"])
        loss = torch.zeros(n, dtype=self.dtype, device=self.device)
        images = part.images[:, 0].to(self.dtype)
        for seen, labels in zip(
            torch.split(images, BATCH), torch.split(part.labels, BATCH), strict=True
        ):
            logits = self._forward(weights, seen.expand(n, *seen.shape))
            logs = functional.log_softmax(logits, -1)
            loss -= logs.gather(-1, labels.expand(n, -1)[..., None])[..., 0].sum(1)
        return loss / len(part.labels)


def forward(weights: Weights, images: Tensor, kept: Tensor | None = None) -> Tensor:
    """Logits.

    Args:
        weights: weights of B networks.
        images: shape (B, n, 8, 8).
        kept: dropout factors of the 64 hidden values, shape (B, n, 64).

    Returns:
        Shape (B, n, 10).
    """
    b, n = images.shape[:2]
    x = patches(images[..., None])
    x = torch.relu(torch.baddbmm(weights["conv1.b"], x, weights["conv1.w"]))
    x = patches(x.view(b, n, 8, 8, 16))
    x = torch.relu(torch.baddbmm(weights["conv2.b"], x, weights["conv2.w"]))
    x = pooled(x.view(b, n, 8, 8, 32)).reshape(b, n, 512)
    x = torch.relu(torch.baddbmm(weights["dense1.b"], x, weights["dense1.w"]))
    if kept is not None:
        x = x * kept
    return torch.baddbmm(weights["dense2.b"], x, weights["dense2.w"])


def augment(images: Tensor, values: Values, keys: Tensor, iteration: Tensor) -> Tensor:
    """The task's shifts and noise.

    Args:
        images: shape (B, n, 8, 8).
        values: shift in pixels, input_noise, and noise_kind, 0 for gaussian.
        keys: shape (B,).
        iteration: a scalar.
    """
    b, n = images.shape[:2]
    shift, dtype = values["shift"].long(), images.dtype
    padded = functional.pad(images, (_LARGEST_SHIFT,) * 4).view(b, n, -1)
    side = 8 + 2 * _LARGEST_SHIFT
    drawn = streams.uniform(keys, iteration, _SHIFT, 2, n, dtype=dtype)
    moved = (drawn * (2 * shift + 1)[:, None, None]).long()
    y, x = (_LARGEST_SHIFT - shift[:, None] + moved[:, axis] for axis in (0, 1))
    inside = torch.arange(8, device=images.device)
    rows = (y[..., None] + inside)[..., :, None]
    columns = (x[..., None] + inside)[..., None, :]
    taken = padded.gather(2, (rows * side + columns).view(b, n, 64)).view(b, n, 8, 8)
    normal = streams.normal(keys, iteration, _NOISE, n, 8, 8, dtype=dtype)
    uniform = 2.0 * streams.uniform(keys, iteration, _NOISE, n, 8, 8, dtype=dtype) - 1.0
    gaussian = (values["noise_kind"] == 0)[:, None, None, None]
    return taken + values["input_noise"][:, None, None, None] * torch.where(
        gaussian, normal, uniform
    )
