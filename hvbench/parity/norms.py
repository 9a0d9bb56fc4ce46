"""Norms and relative errors of tensors in float64, a bounded number of elements at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hvbench.spec.compression import WIRE_FORMATS

CHUNK = 1 << 22  # elements that are held in float64 at a time


def relative_error(a: np.ndarray, b: np.ndarray, *, norm: Callable[[np.ndarray], float] | None = None) -> float:
    """||a - b|| / ||b|| of two tensors of one shape, by default in the L2 norm; ||a - b|| where `b` is zero."""
    norm = norm or l2_norm
    right = _as_rows(b)
    left = np.reshape(a, right.shape)
    distances = [norm(np.subtract(left[piece], right[piece], dtype=np.float64)) for piece in _pieces(right)]
    distance, size = l2_norm(np.array(distances)), norm(right)
    return distance / size if size else distance


def l2_norm(value: np.ndarray) -> float:
    """The L2 (Euclidean) norm of all elements of a tensor."""
    flat = np.ravel(value)
    pieces = (np.asarray(flat[i : i + CHUNK], dtype=np.float64) for i in range(0, flat.size, CHUNK))
    return math.sqrt(sum(float(piece @ piece) for piece in pieces))


def l2_norm_of_row_l1_norms(value: np.ndarray) -> float:
    """The L2 norm of a tensor's row L1 norms, a row being what the last dimension indexes.

    The norm for updates. Adam moves an element by the same amount whether its gradient is large or small, and in the
    first step by the gradient's sign alone. Where a gradient is zero but for rounding, as for one element in a thousand
    in bf16, either sign is right. The L2 norm gives so few elements much weight: 0.7 % of a gain's update, where one of
    its 32 elements took the other sign in the first of 20 steps. Here an element counts by its share of its row, while
    an error throughout a row, or in all of them, counts as in the L2 norm.
    """
    rows = _as_rows(value)
    return l2_norm(np.array([l2_norm(np.abs(rows[piece]).sum(axis=-1, dtype=np.float64)) for piece in _pieces(rows)]))


def wire_spacing(value: float, *, compression: str) -> float:
    """The distance from |`value`| to the next larger number that `compression` can send."""
    wire = WIRE_FORMATS[compression]
    exponent = math.frexp(value)[1] - 1 if value else wire.least_exponent
    return math.ldexp(1.0, max(exponent, wire.least_exponent) - wire.significand_bits)


def _as_rows(value: np.ndarray) -> np.ndarray:
    """(rows, elements of the last dimension); a number is one row of one."""
    shape = np.shape(value)
    return np.reshape(value, (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1))


def _pieces(rows: np.ndarray) -> list[slice]:
    """Slices of the first dimension with about CHUNK elements each, at least a row."""
    step = max(1, CHUNK * len(rows) // max(1, rows.size))
    return [slice(start, start + step) for start in range(0, len(rows), step)]
