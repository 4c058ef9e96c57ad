"""Random numbers of the core: counter-based, a stream of its own for every decision.

A generator is made from (seed, slot, step, purpose) and from nothing else, so that a replica of the
actor, the simulator and a replay draw the same numbers.
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
"""Purposes of a generator: no two decisions share random numbers."""


class _Key(ISeedSequence):
    """A seed as Philox's key of 128 bits, as it is.

    Philox's own `key` argument would do the same, and read the system's randomness in vain.
    """

    def __init__(self, seed: int) -> None:
        self._words = np.array([seed % 2**64, seed >> 64], np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        del n_words, dtype
        return self._words


_key = lru_cache(maxsize=256)(_Key)


def generator(seed: int, slot: int, step: int, purpose: int) -> Generator:
    """Generator of one decision: a counter-based stream of its own (Philox: Salmon et al. 2011)."""
    # numpy takes any ISeedSequence; its annotations know only its own.
    key: Any = _key(seed)
    return Generator(Philox(key, counter=[0, slot, step, purpose]))


def training_seed(seed: int, slot: int, step: int) -> int:
    """Seed of a trial's own randomness: 31 bits, the same for every attempt."""
    digest = blake2b(f"{seed}/{slot}/{step}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1
