"""The optimizers in numpy: those that parameter servers update by."""

from __future__ import annotations

from hvbench.frameworks.numpy_optimizer import (
    LAMB,
    LARS,
    SGD,
    Adafactor,
    AdamW,
    Optimizer,
    global_norm,
    make_optimizer,
    measure_norms,
)

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "Adafactor",
    "AdamW",
    "Optimizer",
    "global_norm",
    "make_optimizer",
    "measure_norms",
]
