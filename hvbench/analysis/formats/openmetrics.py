"""OpenMetrics text (openmetrics.io, 1.0), as Prometheus' textfile collector reads it: a gauge a metric, a line a point."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby

from hvbench.analysis.formats.figures import describe_axes, list_figures, suite_of
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.text import clean_text

PREFIX = "hvbench"
ENDS = ("", "_low", "_high")  # of the 95 % interval


def render_openmetrics(run: Run) -> str:
    """The whole text, up to its `# EOF`."""
    lines = []
    for measure, figures in groupby(list_figures(run), key=lambda figure: figure.measure):
        found = list(figures)
        for end in ENDS:
            name = f"{PREFIX}_{measure.column}{end}"
            what = {"": "", "_low": "; lower end of the 95 % interval", "_high": "; upper end of the 95 % interval"}[
                end
            ]
            lines += [f"# HELP {name} {measure.title} ({measure.unit}){what}", f"# TYPE {name} gauge"]
            for figure in found:
                estimate = figure.estimate
                value = {"": estimate.centre, "_low": estimate.low, "_high": estimate.high}[end]
                if value is not None:
                    labels = {
                        "suite": suite_of(run),
                        "point_id": str(figure.row["point_id"]),
                        **describe_axes(run, figure.row),
                    }
                    lines.append(f"{name}{_labels(labels)} {value!r}")
    name = f"{PREFIX}_launches"
    lines += [f"# HELP {name} launches by how they ended", f"# TYPE {name} gauge"]
    for status, count in run.points["status"].value_counts().sort_index().items():
        lines.append(f"{name}{_labels({'suite': suite_of(run), 'status': str(status)})} {float(count)!r}")
    return "\n".join([*lines, "# EOF", ""])


def _labels(values: Mapping[str, str]) -> str:
    shown = ",".join(f'{re.sub(r"[^a-zA-Z0-9_]", "_", name)}="{_escape(value)}"' for name, value in values.items())
    return f"{{{shown}}}"


def _escape(text: str) -> str:
    return clean_text(text).replace("\\", r"\\").replace('"', r"\"")
