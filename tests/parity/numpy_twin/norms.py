"""L2 norms in numpy: those that parameter servers clip by."""

from __future__ import annotations

from hvbench.frameworks.numpy_norms import clip_factor, exact_norms, global_norm, measure_norms

__all__ = ["clip_factor", "exact_norms", "global_norm", "measure_norms"]
