"""Counter-based random generators: what is drawn depends on (seed, epoch, index), never on who draws it.

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) maps a key and a counter to random words.
"""

from __future__ import annotations

import enum

import numpy as np
from numpy.random import Generator, Philox

_WORD = (1 << 64) - 1


class Purpose(enum.IntEnum):
    """What a stream of numbers is for; different purposes never share numbers."""

    AUGMENT = 0
    ERASE = 1
    ORDER = 2
    MIX = 3
    PLAN = 4
    REPLACE = 5
    SHARDS = 6


def generator(seed: int, epoch: int, index: int = 0, view: int = 0, purpose: Purpose = Purpose.AUGMENT) -> Generator:
    """The generator of one sample (or step, or epoch): equal arguments give equal numbers in any process."""
    key = np.array([seed & _WORD, (epoch << 8 | purpose) & _WORD], np.uint64)
    counter = np.array([0, 0, view & _WORD, index & _WORD], np.uint64)
    return Generator(Philox(key=key, counter=counter))


def permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: (length,) int64, a function of (seed, epoch)."""
    return generator(seed, epoch, purpose=Purpose.ORDER).permutation(length)
