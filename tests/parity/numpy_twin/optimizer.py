"""The optimizers in numpy: those that parameter servers update by."""

from __future__ import annotations

from hvbench.frameworks.numpy_optimizer import Optimizer, make_optimizer

__all__ = ["Optimizer", "make_optimizer"]
