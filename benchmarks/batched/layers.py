"""Layers of networks that are trained side by side."""

import torch
from torch import Tensor
from torch.nn import functional


def patches(x: Tensor) -> Tensor:
    """Each pixel's 3 x 3 neighbours: (B, n, side, side, c) to (B, n * side * side, 9 * c)."""
    b, n, side, _, c = x.shape
    x = functional.pad(x, (0, 0, 1, 1, 1, 1))
    near = [x[:, :, dy : dy + side, dx : dx + side] for dy in range(3) for dx in range(3)]
    return torch.cat(near, -1).view(b, n * side * side, 9 * c)


def pooled(x: Tensor) -> Tensor:
    """Maxima of 2 x 2 pixels; several times faster than one reduction over two axes."""
    rows = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return torch.maximum(rows[:, :, :, 0::2], rows[:, :, :, 1::2])
