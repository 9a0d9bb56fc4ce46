"""What services that follow benchmarks over commits read: Bencher's metric format, and github-action-benchmark's custom ones."""

from __future__ import annotations

import json
from typing import Any

from hvbench.analysis.formats.figures import Figure, describe_axes, list_figures, suite_of
from hvbench.analysis.frame.run import Run


def render_bencher(run: Run) -> str:
    """Bencher Metric Format (bencher.dev/docs/reference/bencher-metric-format): benchmark -> measure -> value and its interval."""
    found: dict[str, dict[str, Any]] = {}
    for figure in list_figures(run):
        estimate = figure.estimate
        ends = {"lower_value": estimate.low, "upper_value": estimate.high}
        values = {"value": estimate.centre} | {name: end for name, end in ends.items() if end is not None}
        found.setdefault(_name(run, figure), {})[figure.measure.column.replace("_", "-")] = values
    return _json(found)


def render_smaller_is_better(run: Run) -> str:
    """github-action-benchmark's `customSmallerIsBetter`: name, unit, value, range."""
    return _json([_entry(run, figure) for figure in list_figures(run) if figure.measure.is_lower_better])


def render_bigger_is_better(run: Run) -> str:
    """Its `customBiggerIsBetter`."""
    return _json([_entry(run, figure) for figure in list_figures(run) if not figure.measure.is_lower_better])


def _entry(run: Run, figure: Figure) -> dict[str, Any]:
    estimate = figure.estimate
    has_interval = estimate.low is not None and estimate.high is not None
    axes = ", ".join(f"{name} {value}" for name, value in describe_axes(run, figure.row).items())
    return {
        "name": f"{_name(run, figure)} {figure.measure.column}",
        "unit": figure.measure.unit,
        "value": estimate.centre,
        **({"range": f"{estimate.low:.6g} to {estimate.high:.6g}"} if has_interval else {}),
        "extra": f"{axes}; {figure.measure.title}; n = {estimate.n}",
    }


def _name(run: Run, figure: Figure) -> str:
    """The same for the same point in every run: a point's identity is in its id."""
    return f"{suite_of(run)}/{figure.row['point_id']}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
