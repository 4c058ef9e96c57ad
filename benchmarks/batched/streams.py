"""Random numbers for many networks at once, each from its own key.

A number is a hash of (key, iteration, stream, place), so it depends neither on the rest of the
batch nor on the device. The hash is two rounds of a 32-bit integer mixer like the last step of
MurmurHash3 (Appleby 2011), with the low-bias constants that Wellons found (2018).
"""

import hashlib
import math

import torch
from torch import Tensor

_PLACE = -1640531527
"""2^32 divided by the golden ratio, as a signed number; it separates neighbouring places."""
_FIRST, _SECOND = 0x7FEB352D, -2073254261
_LOW = 1 << 24
"""Number of different uniform numbers: as many as float32 can distinguish in [0.5, 1)."""


def key(seed: int, slot: int, step: int, attempt: int) -> int:
    """The key of one attempt at a trial, a signed 32-bit number."""
    digest = hashlib.blake2b(f"{seed},{slot},{step},{attempt}".encode(), digest_size=4)
    return int.from_bytes(digest.digest(), "little", signed=True)


def _mix(x: Tensor) -> Tensor:
    """Spread every bit of int32 numbers over all of them; products wrap around."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * _FIRST
    x = (x ^ ((x >> 15) & 0x1FFFF)) * _SECOND
    return x ^ ((x >> 16) & 0xFFFF)


def bits(keys: Tensor, iteration: Tensor, stream: int, n: int) -> Tensor:
    """Random int32 numbers.

    Args:
        keys: keys of B networks, int32, shape (B,).
        iteration: number of the update, int32, a scalar.
        stream: purpose of the numbers; each use has its own.
        n: count of numbers for each network.

    Returns:
        Shape (B, n).
    """
    one = _mix(keys + _mix(iteration * _PLACE + stream))
    other = _mix(one ^ _FIRST)
    places = torch.arange(n, dtype=torch.int32, device=keys.device) * _PLACE
    return _mix(_mix(places + one[:, None]) ^ other[:, None])


def uniform(
    keys: Tensor, iteration: Tensor, stream: int, *shape: int, dtype: torch.dtype
) -> Tensor:
    """Uniform numbers in [0, 1), shape (B, *shape)."""
    drawn = bits(keys, iteration, stream, math.prod(shape)) & (_LOW - 1)
    return (drawn.to(dtype) / _LOW).view(len(keys), *shape)


def normal(keys: Tensor, iteration: Tensor, stream: int, *shape: int, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers, shape (B, *shape) (Box & Muller 1958)."""
    one, other = uniform(keys, iteration, stream, 2, math.prod(shape), dtype=dtype).unbind(1)
    radius = torch.sqrt(-2.0 * torch.log(1.0 - one))
    return (radius * torch.cos(2.0 * math.pi * other)).view(len(keys), *shape)
