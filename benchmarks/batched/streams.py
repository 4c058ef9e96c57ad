"""Random numbers of many networks at once, each from a key of its own.

A number is a hash of (key, iteration, stream, place): it does not depend on what else is in the
batch, nor on the device. The hash is two rounds of a 32-bit integer mixer of the kind that ends
MurmurHash3 (Appleby 2011), with the constants of Wellons' search for low bias (2018).
"""

import hashlib
import math

import torch
from torch import Tensor

_PLACE = -1640531527
"""2^32 divided by the golden ratio, as a signed number: neighbours are far apart at once."""
_FIRST, _SECOND = 0x7FEB352D, -2073254261
_LOW = 1 << 24
"""How many different uniform numbers there are: as many as float32 distinguishes in [0.5, 1)."""


def key(seed: int, slot: int, step: int, attempt: int) -> int:
    """The key of one attempt of one trial, a signed number of 32 bits."""
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
        keys: of B networks, int32, shape (B,).
        iteration: number of the update, int32, a scalar.
        stream: what they are for; each use has a number of its own.
        n: how many for each network.

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
