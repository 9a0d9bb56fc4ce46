"""The order in which an epoch reads its samples: a permutation that follows from seed and epoch.

Up to LARGEST_TABLE samples it is a table, shuffled by PCG64 seeded with (seed, epoch). Ten gigabytes of text have tens of
millions of samples, whose table would need as much memory as all else: there the place of a sample is computed when it is
asked for, by a cipher on the numbers below a power of four that is at least their count, applied again to what lies beyond the
count (Black & Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, section 4: cycle walking over a Feistel network).
"""

from __future__ import annotations

import numpy as np

LARGEST_TABLE = 1 << 25  # samples: 128 MiB, more than any text up to 1 GiB has in samples of 32 tokens
ROUNDS = 6


class Table:
    """A shuffled table of `count` numbers."""

    def __init__(self, count: int, *, seed: int, epoch: int) -> None:
        self._numbers = np.arange(count, dtype=np.uint32 if count <= 1 << 32 else np.uint64)
        _random(seed, epoch).shuffle(self._numbers)

    def __getitem__(self, places: slice) -> np.ndarray:
        """The numbers, int64, at `places`."""
        return self._numbers[places].astype(np.int64)


class Cipher:
    """The same interface without a table: a Feistel network of ROUNDS rounds on two halves of equally many bits."""

    def __init__(self, count: int, *, seed: int, epoch: int) -> None:
        self._count = count
        self._bits = max(1, -(-max(1, (count - 1).bit_length()) // 2))  # of a half
        self._keys = _random(seed, epoch).integers(2**64, size=ROUNDS, dtype=np.uint64)

    def __getitem__(self, places: slice) -> np.ndarray:
        """The numbers, int64, at `places`."""
        numbers = self._encrypt(np.arange(*places.indices(self._count), dtype=np.uint64))
        while (beyond := numbers >= self._count).any():  # at most three quarters of them, and fewer each time
            numbers[beyond] = self._encrypt(numbers[beyond])
        return numbers.astype(np.int64)

    def _encrypt(self, numbers: np.ndarray) -> np.ndarray:
        bits, mask = np.uint64(self._bits), np.uint64((1 << self._bits) - 1)
        left, right = numbers >> bits, numbers & mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        return left << bits | right


def make_order(count: int, *, seed: int, epoch: int) -> Table | Cipher:
    """The order of `count` samples in `epoch`: indexed with a slice of places, it gives their numbers."""
    kind = Table if count <= LARGEST_TABLE else Cipher
    return kind(count, seed=seed, epoch=epoch)


def _random(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, epoch]))


def _mix(values: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of the value, modulo 2^64 (splitmix64: Steele et al., OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
