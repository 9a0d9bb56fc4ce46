"""A suite -> the parts of its data: scripts that a page loads one by one, since a page that is opened from disk can load nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hvbench.analysis.frame.metrics import METRICS
from hvbench.comparison.history import Line
from hvbench.site.atlas import SuiteRuns
from hvbench.site.frame import Page, name_run_page
from hvbench.site.marks import find_marks
from hvbench.site.render import render
from hvbench.site.rows import NEWEST_ENTRIES, Block, name_metric
from hvbench.site.summary import RunSummary


def write_part(name: str, value: Any) -> Page:
    """A part as a script that hands over its value; JSON is JavaScript."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return f"data/{name}.js", f"hvbenchPart({json.dumps(name)},{text});\n"


def parts_of(suite: SuiteRuns, groups: Sequence[Sequence[Block]]) -> Iterator[Page]:
    """Rows that the first page has not, the lines of every metric, and last what there is."""
    on_page = {block.number for block in groups[0]} if groups else set()
    blocks = [block for group in groups for block in group]
    for block in blocks:
        if block.number not in on_page:
            rows = render("rows_part", rows=block.rows, root="../")
            yield write_part(f"{suite.id}-{block.number}-rows", {"setup": block.setup, "rows": rows})
        for metric in METRICS:
            lines = suite.setups[block.setup].lines.get(metric.name, {})
            shown = {row.point_id: lines[row.point_id] for row in block.rows if row.point_id in lines}
            if shown:
                drawn = describe_lines(suite, shown, scale=metric.scale)
                yield write_part(f"{suite.id}-{block.number}-{metric.name}", drawn)
    yield write_part(
        f"{suite.id}-suite",
        {
            "id": suite.id,
            "runs": [describe_run(run) for run in suite.runs],
            "metrics": {name: words for name, words in list_metrics(suite)},
            "blocks": [
                {
                    "number": block.number,
                    "setup": block.setup,
                    "points": [row.point_id for row in block.rows],
                    "isLoaded": block.number in on_page,
                    "metrics": list(suite.setups[block.setup].lines),
                }
                for block in blocks
            ],
        },
    )


def list_metrics(suite: SuiteRuns) -> list[tuple[str, str]]:
    """The metrics that any run has, by name, and what they are called."""
    known = {name for setup in suite.setups for name in setup.lines}
    return [(metric.name, name_metric(metric)) for metric in METRICS if metric.name in known]


def describe_run(run: RunSummary) -> list[Any]:
    """Page, when it began, minutes since 1970 then, and its revision."""
    minutes = int(datetime.fromisoformat(run.began).replace(tzinfo=UTC).timestamp() // 60) if run.began else None
    return [name_run_page(run), run.began or run.name, minutes, run.revision[:26]]


def describe_lines(suite: SuiteRuns, lines: Mapping[str, Line], *, scale: float) -> dict[str, Any]:
    """Point -> its newest entries: number of the run, centre, interval, launches, and what stands at a new level."""
    numbers = {run.id: number for number, run in enumerate(suite.runs)}
    runs = {run.id: run for run in suite.runs}
    found = {}
    for key, line in lines.items():
        marks = {mark.place: mark for mark in find_marks(line, runs, suite.abs)}
        entries = []
        for place, entry in list(enumerate(line.entries))[-NEWEST_ENTRIES:]:
            ends = [None if end is None else shorten(end * scale) for end in (entry.estimate.low, entry.estimate.high)]
            row = [numbers[entry.run], shorten(entry.estimate.centre * scale), *ends, entry.estimate.n]
            if mark := marks.get(place):
                ab = {"page": name_run_page(mark.ab), "verdict": mark.ab.verdict} if mark.ab else None
                row.append({"text": mark.text, "commits": mark.commits, "ab": ab})
            entries.append(row)
        found[key] = entries
    return found


def shorten(value: float) -> float | None:
    """Six digits of a number; None of one that JSON lacks."""
    return float(f"{value:.6g}") if abs(value) < 1e300 else None
