"""A line of values, run by run -> a small drawing for a cell of a table: the line, its newest value, where a new level begins."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT, MARGIN = 132.0, 26.0, 4.0
MOST = 100  # newest values
LEAST_SPAN = 0.05  # of the level, from the bottom to the top: noise of a thousandth is a straight line


def draw_spark(values: Sequence[float], changes: Sequence[int] = (), *, title: str) -> Markup:
    """Values above 0, oldest first; `changes`: positions at which a new level begins; `title`: what it shows, for who cannot see it."""
    first = max(0, len(values) - MOST)
    shown = list(values[first:])
    if not shown:
        return Markup("")
    low, high = min(shown), max(shown)
    short = max(0.0, LEAST_SPAN * high - (high - low)) / 2
    low, high = low - short, high + short
    step = (WIDTH - 2 * MARGIN) / max(1, len(shown) - 1)

    def place(index: int, value: float) -> str:
        x = MARGIN + index * step if len(shown) > 1 else WIDTH / 2
        y = HEIGHT - MARGIN - (value - low) / (high - low) * (HEIGHT - 2 * MARGIN)
        return f"{x:.1f} {y:.1f}"

    places = [place(index, value) for index, value in enumerate(shown)]
    marks = "".join(f"M{places[at - first].split()[0]} 0V{HEIGHT:g}" for at in changes if at >= first)
    line = "L".join(places) if len(places) > 1 else ""
    x, y = places[-1].split()
    parts = [
        f'<svg class="spark" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(title)}">',
        f'<path class="step" d="{marks}"/>' if marks else "",
        f'<path d="M{line}"/>' if line else "",
        f'<circle cx="{x}" cy="{y}" r="2.5"/></svg>',
    ]
    return Markup("".join(parts))
