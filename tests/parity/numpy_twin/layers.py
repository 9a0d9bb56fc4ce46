"""Linear layers in numpy with their gradients, and the rounding of what they multiply.

A part returns its value and its backward pass, which takes the gradient of the value, notes those of the parameters, and returns that
of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from hvbench.frameworks.numpy.runtime import DTYPES, _round_to

from hvbench.frameworks.contract import Arrays
from hvbench.spec.model import FAMILIES
from hvbench.spec.numerics import Precision
from hvbench.spec.point import Point
from hvbench.training.adaptation import is_trained
from hvbench.training.masking import SEPARATOR, has_separators, special_token
from hvbench.training.weights import constants

_Backward = Callable[[np.ndarray, Arrays], np.ndarray]


class Layers:
    """Parameters by canonical name, constants, and products with them."""

    def __init__(self, point: Point, weights: Arrays, *, precision: Precision, device: str) -> None:
        self.point = point
        self.traits = FAMILIES[point.family]
        self.separator = special_token(SEPARATOR, point) if has_separators(point) else None
        self.parameter_dtype = DTYPES[precision.parameter_dtype]
        self.compute_dtype = precision.compute_dtype
        self.is_rounded = precision.compute_dtype != precision.parameter_dtype
        self.parameters = {name: np.array(value, dtype=self.parameter_dtype) for name, value in weights.items()}
        self.trained = {name: value for name, value in self.parameters.items() if is_trained(point, name)}
        self.constants = {name: value.astype(self.parameter_dtype) for name, value in constants(point).items()}

    def hold(self, prefix: str, x: np.ndarray) -> AbstractContextManager[None]:
        """One rank has all of its parameters."""
        return nullcontext()

    def linear(self, x: np.ndarray, name: str) -> tuple[np.ndarray, _Backward]:
        """x (..., in) -> (..., out)."""
        x = self.round(x)
        weight, bias = self.round(self.parameters[f"{name}.weight"]), self.parameters.get(f"{name}.bias")  # (in, out)
        y = self.round(x @ weight if bias is None else x @ weight + self.round(bias))

        def backward(d: np.ndarray, gradients: Arrays) -> np.ndarray:
            d = self.round(d)
            gradients[f"{name}.weight"] = self.round(_rows(x).T @ _rows(d))
            if bias is not None:
                gradients[f"{name}.bias"] = self.round(_rows(d).sum(axis=0))
            return self.round(d @ weight.T)

        return y, backward

    def round(self, x: np.ndarray) -> np.ndarray:
        """To the compute dtype, carried in the parameters': numpy multiplies quickly in no lower one. Its own derivative."""
        return _round_to(x, self.compute_dtype) if self.is_rounded else x

    def widen(self, x: np.ndarray) -> np.ndarray:
        """To the parameters' dtype, which everything has."""
        return x


def multiply(left: np.ndarray, right: np.ndarray, *, transposed: str, gemm: str) -> np.ndarray:
    """A product of linear layers or logits alone; see `hvbench.training.products.Product` for `transposed`.

    `gemm` is PyTorch's: here a product has one library.
    """
    return (left.T if transposed == "left" else left) @ (right.T if transposed == "right" else right)


def multiply_by_rows(x: np.ndarray, weight: np.ndarray, *, gemm: str) -> np.ndarray:
    """x (..., in) times the transposed weight (out, in)."""
    return multiply(x, weight, transposed="right", gemm=gemm)


def mean_of_tokens(x: np.ndarray, starts: np.ndarray | None, places: np.ndarray | None) -> np.ndarray:
    """The mean (samples, W) of x (B, T, W) over each sample's positions, as `_positions_of` knows them."""
    return _shares(x, starts, places) @ _rows(x)


def last_token(x: np.ndarray, starts: np.ndarray | None, places: np.ndarray | None) -> np.ndarray:
    """The last position (samples, W) of each sample in x (B, T, W)."""
    return _rows(x)[_last_places(x, starts, places)]


def _shares(x: np.ndarray, starts: np.ndarray | None, places: np.ndarray | None) -> np.ndarray:
    """What each position counts in those means (samples, B T)."""
    counts = _positions_of(x, starts, places).astype(x.dtype)
    return counts / counts.sum(axis=1, keepdims=True)


def _first_places(x: np.ndarray, places: np.ndarray | None) -> np.ndarray:
    return np.arange(len(x)) * x.shape[1] if places is None else places


def _last_places(x: np.ndarray, starts: np.ndarray | None, places: np.ndarray | None) -> np.ndarray:
    return _first_places(x, places) + _positions_of(x, starts, places).sum(axis=1) - 1


def _positions_of(x: np.ndarray, starts: np.ndarray | None, places: np.ndarray | None) -> np.ndarray:
    """Which positions of all rows are of each sample (samples, B T): of the document that begins its row, or at its place."""
    begins = np.arange(len(x))[:, None] * x.shape[1] + (np.zeros(x.shape[:2], int) if starts is None else starts)
    return begins.reshape(-1) == _first_places(x, places)[:, None]


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, x.shape[-1])
