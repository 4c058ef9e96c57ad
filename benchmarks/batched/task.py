"""What the engine needs from a network with its data."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]
"""Of B networks, each tensor of shape (B, ...)."""
Values = Mapping[str, Tensor]
"""By hyperparameter, one number for each network, shape (B,)."""


class Task(ABC):
    """Trains B networks side by side, each with hyperparameters and random numbers of its own.

    Attributes:
        space: hyperparameters, as an experiment declares them.
        device: where.
        dtype: of weights, losses and gradients.
        fast: of activations and matrix products.
    """

    space: Mapping[str, Mapping[str, Any]]

    def __init__(
        self, device: torch.device, dtype: torch.dtype, fast: torch.dtype | None = None
    ) -> None:
        self.device, self.dtype = device, dtype
        self.fast = fast or dtype

    @abstractmethod
    def new(self, keys: Tensor) -> Weights:
        """Fresh weights for keys of shape (B,)."""

    @abstractmethod
    def train(self, weights: Weights, momenta: Weights, values: Values, keys: Tensor) -> None:
        """Train one step, in place."""

    @abstractmethod
    def validate(self, weights: Weights) -> Tensor:
        """The loss that the search sees, shape (B,)."""

    @abstractmethod
    def test(self, weights: Weights) -> Tensor:
        """What networks are judged by, shape (B,)."""

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as one piece on a GPU; as it is elsewhere, where compiling takes longer."""
        if self.device.type != "cuda":
            return function
        compiled: Callable[..., Any] = torch.compile(function, dynamic=False)
        return compiled

    def scalar(self, value: int = 0) -> Tensor:
        """A whole number on the device."""
        return torch.tensor(value, dtype=torch.int32, device=self.device)


def descend(weights: Weights, momenta: Weights, gradients: Weights, values: Values) -> None:
    """One update of SGD with momentum and weight decay, in place; clipped where that is searched.

    As `torch.optim.SGD` does it, with `clip_grad_norm_` before (its 1e-6 included).

    Args:
        weights: of B networks.
        momenta: the same.
        gradients: the same.
        values: learning_rate, momentum, weight_decay and perhaps clip, each of shape (B,).
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
