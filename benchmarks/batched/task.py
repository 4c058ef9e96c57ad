"""The interface of a network with its data, which the engine uses."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]
"""Weights of B networks; each tensor has the shape (B, ...)."""
Values = Mapping[str, Tensor]
"""One number for each network, shape (B,), by hyperparameter."""


class Task(ABC):
    """Trains B networks in one batch, each with its own hyperparameters and random numbers.

    Attributes:
        space: hyperparameters, as an experiment declares them.
        device: the device.
        dtype: dtype of weights, losses and gradients.
        fast: dtype of activations and matrix products.
    """

    space: Mapping[str, Mapping[str, Any]]

    def __init__(
        self, device: torch.device, dtype: torch.dtype, fast: torch.dtype | None = None
    ) -> None:
        self.device, self.dtype = device, dtype
        self.fast = fast or dtype

    @abstractmethod
    def new(self, keys: Tensor) -> Weights:
        """New weights for keys of shape (B,)."""

    @abstractmethod
    def train(self, weights: Weights, momenta: Weights, values: Values, keys: Tensor) -> None:
        """Train one step, in place."""

    @abstractmethod
    def validate(self, weights: Weights) -> Tensor:
        """The validation loss, which the search sees, shape (B,)."""

    @abstractmethod
    def test(self, weights: Weights) -> Tensor:
        """The test loss, shape (B,)."""

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, compiled on a GPU; unchanged elsewhere, where compiling does not pay."""
        if self.device.type != "cuda":
            return function
        compiled: Callable[..., Any] = torch.compile(function, dynamic=False)
        return compiled

    def scalar(self, value: int = 0) -> Tensor:
        """An integer scalar on the device."""
        return torch.tensor(value, dtype=torch.int32, device=self.device)


def descend(weights: Weights, momenta: Weights, gradients: Weights, values: Values) -> None:
    """Do one update of SGD with momentum and weight decay, in place.

    It computes the same as `torch.optim.SGD`. If `values` has `clip`, gradients are clipped before,
    as by `clip_grad_norm_` (with its 1e-6).

    Args:
        weights: weights of B networks.
        momenta: their momenta.
        gradients: their gradients.
        values: learning_rate, momentum, weight_decay and optionally clip, each of shape (B,).
    """
    scale = None
    if "clip" in values:
        squares = [gradient.flatten(1).pow(2).sum(1) for gradient in gradients.values()]
        norm = torch.stack(squares).sum(0).sqrt()
        scale = (values["clip"] / (norm + 1e-6)).clamp(max=1.0)
    for name, weight in weights.items():
        shape = (-1,) + (1,) * (weight.dim() - 1)
        gradient = gradients[name]
        if scale is not None:
            gradient = gradient * scale.view(shape)
        velocity = momenta[name]
        velocity.mul_(values["momentum"].view(shape)).add_(gradient)
        velocity.add_(values["weight_decay"].view(shape) * weight)
        weight.sub_(values["learning_rate"].view(shape) * velocity)
