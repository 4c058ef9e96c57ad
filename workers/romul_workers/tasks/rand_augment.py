"""RandAugment (Cubuk et al. 2020) on batches of images, on the device of the images.

`count` of 14 operations, drawn with replacement, are applied to each image with the same
`magnitude`. The operations and their ranges are those of the paper's section 3 and of AutoAugment
(Cubuk et al. 2019, table 6).

The operations are not drawn for each image separately. Instead, a random permutation of the batch
is split into 14 parts of equal size, one for each operation, in random order. The operation of an
image is still uniformly distributed, but no size depends on a random number, so nothing waits for
the GPU.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

TOP = 10.0
"""Magnitude at which an operation has its full strength."""
WHITE = 255.0
FILL = 128.0
"""Grey value for areas that a moved image leaves empty."""
ROTATION = math.radians(30.0)
SHEAR = 0.3
SHIFT = 10.0
"""Pixels."""
CONTRAST = 0.9
"""Largest change of a factor of 1, up or down."""
POSTERIZED_BITS = 4
"""Most bits, of 8, that are dropped."""

Operation = Callable[[Tensor, float, Tensor], Tensor]
"""Takes images, shape (n, 3, h, w), with values from 0 to 255, a strength from 0 to 1, and signs,
shape (n, 1, 1, 1). Returns images of the same shape and range."""


def rand_augment(images: Tensor, count: int, magnitude: float) -> Tensor:
    """Transform each image by `count` random operations.

    Args:
        images: float, shape (n, 3, h, w), values from 0 to 255.
        count: operations per image; N in the paper.
        magnitude: strength of the operations, from 0 to 10; M in the paper.

    Raises:
        ValueError: `count` or `magnitude` is out of range.
    """
    if count < 0 or not 0.0 <= magnitude <= TOP:
        raise ValueError(
            f"count {count}, magnitude {magnitude}: from 0, and from 0 to {TOP:g}, are possible"
        )
    n = len(images)
    for _ in range(count):
        # Drawn on the CPU. The order decides which operations get one image more than others.
        order = torch.randperm(len(OPERATIONS)).tolist()
        signs = 2.0 * torch.randint(0, 2, (n, 1, 1, 1), device=images.device) - 1.0
        dealt = torch.randperm(n, device=images.device)
        parts = [
            OPERATIONS[which](images[chosen], magnitude / TOP, signs[chosen])
            for which, chosen in zip(order, torch.tensor_split(dealt, len(order)), strict=True)
            if len(chosen)
        ]
        images = torch.empty_like(images).index_copy_(0, dealt, torch.cat(parts))
    return images


def identity(images: Tensor, _strength: float, _signs: Tensor) -> Tensor:
    """Return the images unchanged."""
    return images


def auto_contrast(images: Tensor, _strength: float, _signs: Tensor) -> Tensor:
    """Stretch each channel to the whole range."""
    low = images.amin((2, 3), keepdim=True)
    high = images.amax((2, 3), keepdim=True)
    stretched = (images - low) * (WHITE / (high - low).clamp(min=1.0))
    return torch.where(high - low >= 1.0, stretched, images)


def equalize(images: Tensor, _strength: float, _signs: Tensor) -> Tensor:
    """Make each channel's histogram as flat as possible, like Pillow's `ImageOps.equalize`.

    A value becomes the number of pixels below it, divided by a step: 1/255 of the number of pixels
    without the brightest ones.
    """
    n, channels, height, width = images.shape
    values = images.round().long().reshape(n * channels, height * width)
    counts = torch.zeros((n * channels, 256), dtype=torch.long, device=images.device)
    counts.scatter_add_(1, values, torch.ones_like(values))
    brightest = counts.gather(1, values.amax(1, keepdim=True))
    step = (height * width - brightest) // 255
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    equal = table.gather(1, values).to(images.dtype).reshape(images.shape)
    flat = (step == 0).reshape(n, channels, 1, 1)
    return torch.where(flat, images, equal)


def solarize(images: Tensor, strength: float, _signs: Tensor) -> Tensor:
    """Invert pixels above a threshold."""
    return torch.where(images >= 256.0 * (1.0 - strength), WHITE - images, images)


def posterize(images: Tensor, strength: float, _signs: Tensor) -> Tensor:
    """Drop the lowest bits."""
    unit = 2.0 ** int(POSTERIZED_BITS * strength)
    return torch.floor(images / unit) * unit


def color(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Change the saturation."""
    return _blend(_grey(images), images, strength, signs)


def contrast(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Change the distance from the image's mean grey."""
    return _blend(_grey(images).mean((2, 3), keepdim=True), images, strength, signs)


def brightness(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Change the brightness."""
    return _blend(torch.zeros_like(images), images, strength, signs)


def sharpness(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Change the distance from a smoothed image, except in a border of one pixel.

    The filter is Pillow's SMOOTH: weight 5/13 for the pixel, 1/13 for each of its 8 neighbours.
    """
    smooth = images.clone()
    inside = images[:, :, 1:-1, 1:-1]
    smooth[:, :, 1:-1, 1:-1] = (9.0 * functional.avg_pool2d(images, 3, 1) + 4.0 * inside) / 13.0
    return _blend(smooth, images, strength, signs)


def rotate(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Rotate about the centre."""
    angle = ROTATION * strength * signs
    cos, sin = torch.cos(angle), torch.sin(angle)
    return _warp(images, (cos, -sin, None), (sin, cos, None))


def shear_x(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Shift rows sideways, in proportion to their vertical position."""
    return _warp(images, (None, SHEAR * strength * signs, None), (None, None, None))


def shear_y(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Shift columns up or down, in proportion to their horizontal position."""
    return _warp(images, (None, None, None), (SHEAR * strength * signs, None, None))


def translate_x(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Shift sideways."""
    moved = 2.0 * SHIFT * strength / images.shape[3] * signs
    return _warp(images, (None, None, moved), (None, None, None))


def translate_y(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Shift up or down."""
    moved = 2.0 * SHIFT * strength / images.shape[2] * signs
    return _warp(images, (None, None, None), (None, None, moved))


OPERATIONS: Sequence[Operation] = (
    identity,
    auto_contrast,
    equalize,
    rotate,
    solarize,
    color,
    posterize,
    contrast,
    brightness,
    sharpness,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
)


def _grey(images: Tensor) -> Tensor:
    """Luma of ITU-R 601-2, shape (n, 1, h, w)."""
    return 0.299 * images[:, 0:1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:3]


def _blend(other: Tensor, images: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Move images away from `other` or towards it."""
    factor = 1.0 + CONTRAST * strength * signs
    return (other + factor * (images - other)).clamp(0.0, WHITE)


Row = tuple[Tensor | None, Tensor | None, Tensor | None]


def _warp(images: Tensor, above: Row, below: Row) -> Tensor:
    """Apply an affine map: each pixel is taken from the position that a matrix gives.

    Args:
        images: shape (n, 3, h, w).
        above: first row of the matrix, for coordinates from -1 to 1; its elements have the shape
            (n, 1, 1, 1), or are None for the value of the identity.
        below: second row of the matrix.
    """
    n = len(images)
    same = torch.eye(2, 3, device=images.device, dtype=images.dtype).expand(n, 2, 3)
    rows = [
        torch.stack(
            [
                same[:, y, x] if given is None else given.reshape(n)
                for x, given in enumerate((above, below)[y])
            ],
            1,
        )
        for y in range(2)
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images - FILL, grid, padding_mode="zeros", align_corners=False)
    return moved + FILL
