"""Layers of networks that are trained in one batch."""

import torch
from torch import Tensor
from torch.nn import functional


def patches(x: Tensor) -> Tensor:
    """The 3 x 3 patch of each pixel: (B, n, side, side, c) to (B, n * side * side, 9 * c)."""
    b, n, side, _, c = x.shape
    x = functional.pad(x, (0, 0, 1, 1, 1, 1))
    near = [x[:, :, dy : dy + side, dx : dx + side] for dy in range(3) for dx in range(3)]
    return torch.cat(near, -1).view(b, n * side * side, 9 * c)


def pooled(x: Tensor) -> Tensor:
    """Maxima of 2 x 2 pixels, several times as fast as one reduction over two axes."""
    rows = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return torch.maximum(rows[:, :, :, 0::2], rows[:, :, :, 1::2])


def convolved(x: Tensor, kernels: Tensor, biases: Tensor) -> Tensor:
    """A 3 x 3 convolution, relu and `pooled`, one network after the other.

    On a CPU this takes a quarter of the time of a product over unfolded patches of all networks.

    Args:
        x: shape (B, n, side, side, c).
        kernels: shape (B, 9 * c, channels), rows in the order of `patches`.
        biases: shape (B, 1, channels).

    Returns:
        Shape (B, n, side / 2, side / 2, channels).
    """
    c, channels = x.shape[-1], kernels.shape[-1]
    ends = []
    for images, kernel, bias in zip(x, kernels, biases, strict=True):
        weight = kernel.view(3, 3, c, channels).permute(3, 2, 0, 1)
        weight = weight.contiguous(memory_format=torch.channels_last)
        ended = functional.conv2d(images.permute(0, 3, 1, 2), weight, bias[0], padding=1)
        ends.append(functional.max_pool2d(torch.relu(ended), 2).permute(0, 2, 3, 1))
    return torch.stack(ends)
