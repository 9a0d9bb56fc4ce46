"""A bandwidth, or an interval of bandwidths, as text."""

from __future__ import annotations

import math

from hvbench.analysis.topics.links.model import Span
from hvbench.spec.exchange import describe_bandwidth


def show_bandwidth(bits_per_second: float) -> str:
    """`200 Mbit/s`; `always` and `never` for a break-even that is infinite or 0."""
    if math.isnan(bits_per_second):
        return "–"
    if math.isinf(bits_per_second) or bits_per_second == 0:
        return "always" if bits_per_second else "never"
    return describe_bandwidth(bits_per_second)


def show_interval(span: Span) -> str:
    """`180 Mbit/s to 240 Mbit/s`."""
    if math.isnan(span.low) or math.isnan(span.high):
        return "–"
    return f"{show_bandwidth(span.low)} to {show_bandwidth(span.high)}"
