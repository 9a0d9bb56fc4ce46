"""L2 norms in numpy, for parameter servers: of tensors, of all of them together, and the factor to clip by."""

from __future__ import annotations

import math

import numpy as np


def exact_norms(values: list[np.ndarray]) -> list[float]:
    """L2 norm of each of `values`; squares are added in float64."""
    return [math.sqrt(np.square(value, dtype=np.float64).sum()) for value in values]


def measure_norms(values: list[np.ndarray]) -> list[float]:
    """L2 norm of each of `values`, which nothing rounds: an update multiplies by it in the dtype of what it updates."""
    return exact_norms(values)


def global_norm(values: list[np.ndarray]) -> float:
    """L2 norm of all of `values` together."""
    return math.hypot(*exact_norms(values))


def clip_factor(gradient_norm: float, *, max_norm: float) -> float:
    """Factor, at most 1, that brings gradients of global L2 norm `gradient_norm` to at most `max_norm`; 0: no clipping."""
    return min(1.0, max_norm / (gradient_norm + 1e-6)) if max_norm else 1.0
