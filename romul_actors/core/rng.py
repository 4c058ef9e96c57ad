"""Random numbers of the core: a separate counter-based stream for every decision.

A generator depends only on (seed, slot, step, purpose), so that every replica of the actor, the
simulator and a replay draw the same numbers.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.random import Generator, Philox
from numpy.random.bit_generator import ISeedSequence

START: Final = 0
DECISION: Final = 1
JOINING: Final = 2
FORMER: Final = 3
"""Purposes of a generator. They keep decisions of the same slot and step independent."""


class _Key(ISeedSequence):
    """Passes a seed to Philox unchanged, as its key of 128 bits.

    Philox's own argument `key` does the same, but needlessly reads the system's entropy.
    """

    def __init__(self, seed: int) -> None:
        self._words = np.array([seed % 2**64, seed >> 64], np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        del n_words, dtype
        return self._words


_key = lru_cache(maxsize=256)(_Key)


def generator(seed: int, slot: int, step: int, purpose: int) -> Generator:
    """The generator for one decision: a counter-based stream (Philox: Salmon et al. 2011)."""
    # NumPy accepts any ISeedSequence, but its annotations do not say so.
    key: Any = _key(seed)
    return Generator(Philox(key, counter=[0, slot, step, purpose]))


def training_seed(seed: int, slot: int, step: int) -> int:
    """Seed for the training in a trial: 31 bits, the same for every attempt."""
    digest = blake2b(f"{seed}/{slot}/{step}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1
