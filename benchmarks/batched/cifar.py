"""CIFAR-10: three convolutions and two dense layers with nine hyperparameters.

`cifar-small` has 5,000 training images of 32 x 32 pixels and is meant for a GPU. `cifar-twin` is so
small that a population takes seconds on one core. Convolutions are batched products over unfolded
patches. Names and sizes are frozen, so that results stay comparable.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import default_rng
from torch import Tensor
from torch.nn import functional

from batched import streams
from batched.layers import convolved, patches, pooled
from batched.task import Task, Values, Weights, descend
from romul_workers.tasks.cifar_data import CIFAR10, load

_EPOCH, _SHIFT, _FLIP, _HOLE, _COLOUR, _DROPOUT = range(100, 106)
"""Streams of random numbers; lower numbers are for the weights."""
_SPLIT_SEED = 7
_PIECE = 50
"""Number of images that are evaluated at a time."""
_ALIGNED = 8
"""bfloat16 products are several times faster if the row length is a multiple of this."""
_CLASSES = 10


@dataclass(frozen=True)
class Sizes:
    """The sizes that define a problem.

    Attributes:
        side: side of an image in pixels; the original 32 are averaged down to it.
        channels: channels of each convolution; a 2 x 2 maximum follows each.
        hidden: width of the dense layer.
        images: number of images for training, validation and test.
        batch: number of images in an update; an incomplete batch at the end of an epoch is dropped.
        fast: whether products use bfloat16, and convolutions on a CPU use torch's own.
    """

    side: int
    channels: tuple[int, ...]
    hidden: int
    images: tuple[int, int, int]
    batch: int
    fast: bool = False


Parts = Mapping[str, tuple[Tensor, Tensor]]
"""Images (n, side, side, 3) and labels (n,), by the name of the part."""

SIZES: Mapping[str, Sizes] = {
    "cifar-small": Sizes(32, (32, 64, 128), 128, (5000, 2500, 2500), 64, fast=True),
    "cifar-twin": Sizes(16, (8, 16), 32, (480, 500, 2000), 32),
}


SPACE: Mapping[str, Mapping[str, Any]] = {
    "learning_rate": {"type": "float", "min": 1e-4, "max": 1.0, "scale": "log"},
    "momentum": {"type": "float", "min": 0.0, "max": 0.99},
    "weight_decay": {"type": "float", "min": 1e-6, "max": 1e-1, "scale": "log"},
    "dropout": {"type": "float", "min": 0.0, "max": 0.8},
    "label_smoothing": {"type": "float", "min": 0.0, "max": 0.4},
    "cutout": {"type": "int", "min": 0, "max": 16},
    "shift": {"type": "int", "min": 0, "max": 6},
    "colour": {"type": "float", "min": 0.0, "max": 0.8},
    "flip": {"type": "float", "min": 0.0, "max": 0.5},
}


class Cifar(Task):
    """Networks of one size."""

    def __init__(
        self, sizes: Sizes, parts: Parts, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        """Take the parts "train", "validation" and "test" of `sizes`."""
        fast = sizes.fast and dtype == torch.float32
        super().__init__(device, dtype, torch.bfloat16 if fast else None)
        self.one_by_one = sizes.fast and device.type == "cpu"
        self.space, self.sizes = SPACE, sizes
        self.parts = {name: (x.to(device, dtype), y.to(device)) for name, (x, y) in parts.items()}
        self.shapes = _shapes(sizes)
        self._augment = self.compiled(self.augment)
        self._loss = self.compiled(self.loss)
        self._entropy = self.compiled(self.entropy)
        self._descend = self.compiled(descend)

    def new(self, keys: Tensor) -> Weights:
        """Normal weights (He et al. 2015); those of the last layer are half as large."""
        weights = {}
        start = self.scalar(-1)
        for stream, (name, (inputs, outputs)) in enumerate(self.shapes.items()):
            scale = math.sqrt(2.0 / inputs) * (0.5 if name == "out" else 1.0)
            drawn = streams.normal(keys, start, stream, inputs, outputs, dtype=self.dtype)
            weights[f"{name}.w"] = scale * drawn
            weights[f"{name}.b"] = drawn.new_zeros((len(keys), 1, outputs))
        return weights

    def train(self, weights: Weights, momenta: Weights, values: Values, keys: Tensor) -> None:
        """Train one epoch."""
        (images, labels), batch = self.parts["train"], self.sizes.batch
        order = streams.bits(keys, self.scalar(), _EPOCH, len(labels)).argsort(dim=1, stable=True)
        for number in range(len(labels) // batch):
            chosen = order[:, number * batch : (number + 1) * batch]
            iteration = self.scalar(number)
            seen = self._augment(images, chosen, values, keys, iteration)
            needing = {name: weight.requires_grad_() for name, weight in weights.items()}
            loss = self._loss(needing, seen, labels[chosen], values, keys, iteration)
            gradients = torch.autograd.grad(loss.sum(), list(needing.values()))
            with torch.no_grad():
                named = dict(zip(needing, gradients, strict=True))
                for weight in weights.values():
                    weight.requires_grad_(False)  # noqa: FBT003
                self._descend(weights, momenta, named, values)

    def validate(self, weights: Weights) -> Tensor:
        """Cross-entropy of the images that the search sees, shape (B,)."""
        return self._evaluate(weights, *self.parts["validation"])

    def test(self, weights: Weights) -> Tensor:
        """Cross-entropy of the test images, shape (B,)."""
        return self._evaluate(weights, *self.parts["test"])

    @torch.no_grad()
    def _evaluate(self, weights: Weights, images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, computed in pieces that fit into a GPU's memory."""
        n = len(weights["out.b"])
        loss = torch.zeros(n, dtype=self.dtype, device=self.device)
        for seen, wanted in zip(
            torch.split(images, _PIECE), torch.split(labels, _PIECE), strict=True
        ):
            loss += self._entropy(weights, seen, wanted)
        return loss / len(labels)

    def entropy(self, weights: Weights, images: Tensor, labels: Tensor) -> Tensor:
        """Sum of the cross-entropies of images that are the same for all networks, shape (B,)."""
        n = len(weights["out.b"])
        logits = self.forward(weights, images.expand(n, *images.shape))
        wanted = labels.expand(n, -1)[..., None]
        return -functional.log_softmax(logits, -1).gather(-1, wanted)[..., 0].sum(1)

    def forward(self, weights: Weights, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            weights: weights of B networks.
            images: shape (B, n, side, side, 3).
            kept: dropout factors of the hidden values, shape (B, n, hidden).

        Returns:
            Shape (B, n, 10).
        """
        fast = {name: weight.to(self.fast) for name, weight in weights.items()}
        x = images.to(self.fast)
        for layer in range(len(self.sizes.channels)):
            kernel, bias = fast[f"conv{layer}.w"], fast[f"conv{layer}.b"]
            if self.one_by_one:
                x = convolved(x, kernel, bias)
                continue
            b, n, side = x.shape[:3]
            near = patches(x)
            if self.fast == torch.bfloat16 and (left := -kernel.shape[1] % _ALIGNED):
                near = functional.pad(near, (0, left))
                kernel = functional.pad(kernel, (0, 0, 0, left))
            x = torch.baddbmm(bias, near, kernel)
            x = torch.relu(pooled(x.view(b, n, side, side, -1)))
        x = torch.relu(torch.baddbmm(fast["hidden.b"], x.flatten(2), fast["hidden.w"]))
        if kept is not None:
            x = x * kept.to(self.fast)
        return torch.baddbmm(fast["out.b"], x, fast["out.w"]).to(self.dtype)

    def loss(
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
        shape = (images.shape[1], self.sizes.hidden)
        drawn = streams.uniform(keys, iteration, _DROPOUT, *shape, dtype=self.dtype)
        kept = (drawn >= dropout).to(self.dtype) / (1.0 - dropout)
        logs = functional.log_softmax(self.forward(weights, images, kept), -1)
        right = logs.gather(-1, labels[..., None])[..., 0]
        return -((1.0 - smoothing) * right + smoothing * logs.mean(-1)).mean(1)

    def augment(
        self, images: Tensor, chosen: Tensor, values: Values, keys: Tensor, iteration: Tensor
    ) -> Tensor:
        """Shift and flip each image, hide a square, and change its colours.

        Args:
            images: all images, shape (N, side, side, 3).
            chosen: indices of the images for each network, shape (B, n).
            values: cutout and shift in pixels of 32; colour, flip.
            keys: shape (B,).
            iteration: a scalar.

        Returns:
            Shape (B, n, side, side, 3).
        """
        side, n = self.sizes.side, chosen.shape[1]
        ratio = side / 32.0

        def drawn(stream: int, *shape: int) -> Tensor:
            return streams.uniform(keys, iteration, stream, n, *shape, dtype=self.dtype)

        shift = torch.round(values["shift"] * ratio)[:, None, None]
        moved = torch.floor((2.0 * shift + 1.0) * drawn(_SHIFT, 2)) - shift
        flipped = drawn(_FLIP) < values["flip"][:, None]
        places = torch.arange(side, device=self.device)
        y = places + moved[..., 0, None]
        x = places + moved[..., 1, None]
        x = torch.where(flipped[..., None], side - 1 - x, x)
        inside = ((y >= 0) & (y < side))[..., :, None] & ((x >= 0) & (x < side))[..., None, :]
        rows, columns = (z.clamp(0, side - 1).long() for z in (y, x))
        taken = images[chosen[..., None, None], rows[..., :, None], columns[..., None, :]]
        centre = side * drawn(_HOLE, 2)
        radius = (0.5 * ratio * values["cutout"])[:, None, None]
        near = [(places + 0.5 - centre[..., i, None]).abs() < radius for i in (0, 1)]
        hole = near[0][..., :, None] & near[1][..., None, :]
        colour = values["colour"][:, None, None]
        gain, offset = (colour * (2.0 * drawn(_COLOUR, 2, 3) - 1.0)[..., i, :] for i in (0, 1))
        seen = taken * (inside & ~hole)[..., None]
        return seen * (1.0 + gain[..., None, None, :]) + offset[..., None, None, :]


def _shapes(sizes: Sizes) -> dict[str, tuple[int, int]]:
    """Number of inputs and outputs of each layer."""
    shapes = {}
    inputs, side = 3, sizes.side
    for layer, channels in enumerate(sizes.channels):
        shapes[f"conv{layer}"] = (9 * inputs, channels)
        inputs, side = channels, side // 2
    shapes["hidden"] = (side * side * inputs, sizes.hidden)
    shapes["out"] = (sizes.hidden, _CLASSES)
    return shapes


def split(sizes: Sizes, folder: Path) -> Parts:
    """Images and labels for training, validation and test; always the same ones.

    Args:
        sizes: number and size of the images.
        folder: folder with cifar-10-batches-py.
    """
    rng = default_rng(_SPLIT_SEED)
    n_train, n_validation, n_test = sizes.images
    train, test = load(CIFAR10, folder)
    order = rng.permutation(len(train.labels))
    chosen = {
        "train": (train, order[:n_train]),
        "validation": (train, order[-n_validation:]),
        "test": (test, rng.permutation(len(test.labels))[:n_test]),
    }
    return {
        name: (_scaled(images.pixels[rows], sizes.side), torch.tensor(images.labels[rows]))
        for name, (images, rows) in chosen.items()
    }


def _scaled(pixels: np.ndarray[Any, Any], side: int) -> Tensor:
    """Convert pixels (n, 3, 32, 32) from 0 to 255 to (n, side, side, 3) of about unit variance."""
    x = torch.tensor(pixels, dtype=torch.float64) / 255.0
    x = functional.avg_pool2d(x, 32 // side) if side < 32 else x  # noqa: PLR2004
    return ((x - 0.47) / 0.25).permute(0, 2, 3, 1).contiguous()
