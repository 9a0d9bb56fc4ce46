"""How closely a ratio is known."""

from __future__ import annotations

import math

from hvbench.analysis.stats.contrasts import Contrast


def half_width_of(contrast: Contrast) -> float:
    """By which share the ends of the interval are off its middle on the scale of factors: 0.03 is ± 3 %; infinite without one."""
    if not contrast.low or contrast.high is None:
        return math.inf
    return math.sqrt(contrast.high / contrast.low) - 1
