"""Compressed all-reduces in plain numpy, all ranks side by side, written from the papers and not from the twins.

Each class averages one gradient: it takes those of all ranks and returns what every rank gets. `residuals` [ranks, …] is what each has yet to send.

Top-k with error feedback (arXiv:1809.07599, algorithm 1, of gradients instead of steps); int8 with a scale for each bucket (arXiv:1610.02132), rounded twice;
PowerSGD (arXiv:1905.13727, algorithms 1 and 2); momenta of 1-bit Adam as signs (arXiv:2102.02888, algorithm 1).
"""

from __future__ import annotations

import numpy as np


class TopK:
    """The `count` values that are largest on each rank."""

    def __init__(self, shape: tuple[int, ...], *, ranks: int, count: int) -> None:
        self.residuals = np.zeros((ranks, *shape), np.float32)
        self.count = count

    def average(self, gradients: np.ndarray) -> np.ndarray:
        """Gradients [ranks, …] -> their average as far as it is sent."""
        self.residuals += gradients
        sent = np.zeros_like(self.residuals)
        for mine, out in zip(self.residuals, sent, strict=True):
            largest = np.argsort(-np.abs(mine), axis=None, kind="stable")[: self.count]
            out.flat[largest] = mine.flat[largest]
        self.residuals -= sent
        return sent.sum(0) / len(sent)


class Int8:
    """Each value as so many 127ths of the largest in its bucket."""

    def __init__(self, shape: tuple[int, ...], *, ranks: int, bucket: int) -> None:
        self.residuals = np.zeros((ranks, *shape), np.float32)
        self.bucket = bucket

    def average(self, gradients: np.ndarray) -> np.ndarray:
        """Gradients [ranks, …] -> their average, rounded on each rank and once more by the rank that sums."""
        self.residuals += gradients
        ranks, values = len(gradients), gradients[0].size
        length = -(-values // ranks)
        averages = np.zeros(values, np.float32)
        for owner in range(ranks):
            part = slice(owner * length, min(values, (owner + 1) * length))
            sent = []
            for mine in self.residuals:
                rounded = self._round(mine.flat[part])
                mine.flat[part] -= rounded
                sent.append(rounded)
            mean = np.sum(sent, axis=0, dtype=np.float32) / np.float32(ranks)
            averages[part] = self._round(mean)
            self.residuals[owner].flat[part] += np.float32(ranks) * (mean - averages[part])
        return averages.reshape(gradients[0].shape)

    def _round(self, values: np.ndarray) -> np.ndarray:
        rounded = np.zeros_like(values)
        for start in range(0, len(values), self.bucket):
            bucket = values[start : start + self.bucket]
            step = np.abs(bucket).max() * np.float32(1 / 127)
            if step:
                rounded[start : start + self.bucket] = np.round(bucket / step) * step
        return rounded


class PowerSGD:
    """P Q^T in the place of a matrix, in float64; `factors`: Q, or None for a vector, which is sent as it is."""

    def __init__(self, shape: tuple[int, ...], *, ranks: int, factors: np.ndarray | None) -> None:
        self.residuals = np.zeros((ranks, *shape))
        self.factors = None if factors is None else factors.astype(np.float64)

    def average(self, gradients: np.ndarray) -> np.ndarray:
        """Gradients [ranks, …] -> the average of as much of them as has the rank."""
        if self.factors is None:
            return gradients.mean(0)
        self.residuals += gradients
        left = np.mean([mine @ self.factors for mine in self.residuals], axis=0)
        orthonormal = np.zeros_like(left)
        for index in range(left.shape[1]):  # what is left of a column without its part along those before it
            column = left[:, index] - orthonormal @ (orthonormal.T @ left[:, index])
            norm = np.sqrt(column @ column)
            orthonormal[:, index] = column / norm if norm else 0.0
        right = np.mean([mine.T @ orthonormal for mine in self.residuals], axis=0)
        product = orthonormal @ right.T
        self.residuals -= product
        self.factors = np.where((right != 0).any(0), right, self.factors)
        return product


class OneBit:
    """Each value as its sign times the mean size of its bucket; `part_residuals`: what the averages of a rank's part have yet to send."""

    def __init__(self, shape: tuple[int, ...], *, ranks: int, bucket: int) -> None:
        self.residuals = np.zeros((ranks, *shape), np.float32)
        self.part_residuals = np.zeros(shape, np.float32)
        self.bucket = bucket

    def average(self, momenta: np.ndarray) -> np.ndarray:
        """Momenta [ranks, …] -> their average, made signs on each rank and once more by the rank that averages."""
        self.residuals += momenta
        ranks, values = len(momenta), momenta[0].size
        length = -(-values // ranks)
        averages = np.zeros(values, np.float32)
        for owner in range(ranks):
            part = slice(owner * length, min(values, (owner + 1) * length))
            sent = []
            for mine in self.residuals:
                sent.append(self._signs(mine.flat[part]))
                mine.flat[part] -= sent[-1]
            self.part_residuals.flat[part] += np.sum(sent, axis=0, dtype=np.float32) / np.float32(ranks)
            averages[part] = self._signs(self.part_residuals.flat[part])
            self.part_residuals.flat[part] -= averages[part]
        return averages.reshape(momenta[0].shape)

    def _signs(self, values: np.ndarray) -> np.ndarray:
        signs = np.unpackbits(np.packbits(values >= 0), count=len(values)) * np.float32(2) - np.float32(1)
        for start in range(0, len(values), self.bucket):
            bucket = slice(start, start + self.bucket)
            signs[bucket] *= np.float32(np.abs(values[bucket]).sum(dtype=np.float64) / len(values[bucket]))
        return signs
