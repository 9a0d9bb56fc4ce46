"""A history as text and as a plot."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from tabulate import tabulate

from hvbench.analysis.frame.metrics import Metric
from hvbench.analysis.show.cells import format_number
from hvbench.analysis.show.panels import MAX_PANELS, RC, library_defaults
from hvbench.analysis.show.text import clean_text
from hvbench.comparison.changes import MIN_RUNS
from hvbench.comparison.history import History, Line

COLUMNS = 3


def render_title(history: History) -> str:
    """What is shown, of which runs, in one line."""
    others = f"; {history.other_runs} on others" if history.other_runs else ""
    return f"{history.metric.title} of {history.suite}, {history.runs} runs on {history.fingerprint}{others}"


def render_text(lines: Sequence[Line], metric: Metric) -> str:
    """A table a point: run, launches, centre, interval, and the steps."""
    blocks = []
    for line in lines:
        rows = []
        for entry in line.entries:
            estimate = entry.estimate
            ends = [None if end is None else format_number(end * metric.scale) for end in (estimate.low, estimate.high)]
            interval = f"n={estimate.n}" if None in ends else " to ".join(ends)
            step = "" if entry.change is None else f"{entry.change * 100:+.1f} % from here"
            rows.append(
                [clean_text(entry.run), str(estimate.n), format_number(estimate.centre * metric.scale), interval, step]
            )
        header = ["run", "n", f"{metric.title} ({metric.unit})", "95 % interval", "change"]
        align = ["left", "right", "right", "right", "left"]
        if any(entry.revision for entry in line.entries):
            rows = [[*row, clean_text(entry.revision)] for row, entry in zip(rows, line.entries, strict=True)]
            header, align = [*header, "revision"], [*align, "left"]
        blocks.append(clean_text(line.label))
        blocks.append(tabulate(rows, headers=header, tablefmt="simple", colalign=align, disable_numparse=True))
        if len(line.entries) < MIN_RUNS:
            blocks.append(f"{len(line.entries)} runs: changes are looked for from {MIN_RUNS} on")
    lacking = f"no run with a {metric.title}, which needs {metric.needs}" if metric.needs else "no run"
    return "\n\n".join(blocks or [lacking]) + "\n"


def draw(lines: Sequence[Line], metric: Metric, *, title: str) -> Figure:
    """A panel a point: centre and interval run by run, and the levels between the steps."""
    shown = list(lines)[:MAX_PANELS]
    columns = min(COLUMNS, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    with matplotlib.rc_context(library_defaults() | RC):
        figure = Figure(figsize=(1.0 + 3.2 * columns, 1.0 + 2.2 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for panel in axes:
            panel.set_visible(False)
        for panel, line in zip(figure.axes, shown, strict=False):
            panel.set_visible(True)
            _draw_line(panel, line, metric)
        more = "" if len(shown) == len(lines) else f"\nfirst {len(shown)} of {len(lines)} points"
        figure.suptitle(clean_text(title) + more)
        return figure


def _draw_line(panel, line: Line, metric: Metric) -> None:
    x = list(range(len(line.entries)))
    y = [entry.estimate.centre * metric.scale for entry in line.entries]
    for position, entry in zip(x, line.entries, strict=True):
        if entry.estimate.low is not None:
            ends = [entry.estimate.low * metric.scale, entry.estimate.high * metric.scale]
            panel.plot([position, position], ends, color="#0072B2", linewidth=1.0)
    panel.plot(x, y, "o", color="#0072B2", markersize=3.5)
    starts = [0, *(index for index, entry in enumerate(line.entries) if entry.change is not None), len(x)]
    for begin, end in zip(starts, starts[1:], strict=False):
        level = sum(y[begin:end]) / max(1, end - begin)
        panel.plot([begin - 0.3, end - 0.7], [level, level], color="#D55E00", linewidth=1.4)
    for index in starts[1:-1]:
        change = line.entries[index].change
        panel.annotate(
            f"{change * 100:+.1f} %", (index, y[index]), xytext=(4, 6), textcoords="offset points", fontsize=8
        )
    panel.set_title(clean_text(line.label, limit=60))
    panel.set_ylabel(f"{metric.title} ({metric.unit})")
    panel.set_xlabel("run, oldest first")
    panel.set_ylim(bottom=0)
