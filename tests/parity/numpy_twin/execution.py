"""How parts of the model run in numpy: as they are written, each operation once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

MODES: dict[str, str] = {}


def compiled(function: Callable[..., Any], *, choice: str, device: str) -> Callable[..., Any]:
    """Refused by the model but for "none": there is no compiler."""
    if choice == "none":
        return function
    raise NotImplementedError


def forget_compiled() -> None:
    """Nothing was."""


def recomputed(function: Callable[[np.ndarray], np.ndarray], *, is_random: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Refused by the model: the backward pass is written out, and reads what the forward pass kept."""
    raise NotImplementedError
