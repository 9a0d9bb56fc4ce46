"""The points of a suite -> a page each: its metrics over its runs, its runs with figures and intervals, how to repeat it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hvbench.analysis.frame.axes import axes_of, axis_values, plain_name
from hvbench.analysis.frame.metrics import METRICS, RATE, STEP, Metric
from hvbench.analysis.show.cells import NOT_AVAILABLE, show_axis
from hvbench.analysis.show.text import clean_text
from hvbench.records.record import AnyPoint
from hvbench.site.atlas import Setup, SuiteRuns
from hvbench.site.cells import Cell, Column, align, show_centre, show_interval
from hvbench.site.frame import Frame, Page, count, name_run_page, name_suite_page
from hvbench.site.marks import find_marks
from hvbench.site.repeat import list_chosen, repeat_point
from hvbench.site.rows import MEMORY, count_statuses, name_metric, name_point_page, show_call, show_mark, show_spark
from hvbench.site.suite_pages import describe_setup, name_setup
from hvbench.spec.script import ScriptPoint

MOST_RUNS = 200  # of each machine and set of software, the newest
SUMMARY = [
    Column(header="metric"),
    Column(header="newest", is_number=True),
    Column(header="95 % interval", is_number=True),
    Column(header="over its runs"),
    Column(header="last change"),
    Column(header="to the run before"),
]
SHOWN = (STEP, RATE, MEMORY)  # of every run


def point_pages(frame: Frame, suite: SuiteRuns) -> Iterator[Page]:
    """A page a point."""
    for key, point in suite.points.items():
        setups = [setup for setup in suite.setups if any(key in run.points for run in setup.runs)]
        newest = next(run for run in reversed(suite.runs) if key in run.points)
        yield frame.render(
            name_point_page(suite.name, key),
            "point",
            title=clean_text(suite.labels[key], limit=160),
            trail=[(suite.name, name_suite_page(suite))],
            suite=suite.name,
            suite_href=name_suite_page(suite),
            setups=[show_setup(frame, suite, setup, key) for setup in setups],
            command=repeat_point(point, settings=newest.settings),
            suite_command=newest.command,
            fields=show_fields(point, is_chosen=True),
            others=show_fields(point, is_chosen=False),
        )


def show_fields(point: AnyPoint, *, is_chosen: bool) -> list[tuple[str, str]]:
    """The fields of a point that were chosen, or all others, in table order; of a script all are."""
    values = axis_values(point)
    chosen = values if isinstance(point, ScriptPoint) else {"framework", *list_chosen(point)}
    axes = [axis for axis in axes_of(values) if (axis in chosen) is is_chosen]
    return [(plain_name(axis), clean_text(show_axis(axis, values[axis], is_emulated=False))) for axis in axes]


def show_setup(frame: Frame, suite: SuiteRuns, setup: Setup, key: str) -> dict[str, Any]:
    """What a point's page shows of one machine with one set of software."""
    tried = [run for run in setup.runs if key in run.points]
    metrics = [metric for metric in METRICS if key in setup.lines.get(metric.name, {})]
    known = {run.id: run for run in suite.runs}
    rows = []
    for metric in metrics:
        line = setup.lines[metric.name][key]
        marks = find_marks(line, known, suite.abs)
        newest = line.entries[-1].estimate
        rows.append(
            [
                Cell(text=name_metric(metric)),
                show_centre(newest, metric),
                show_interval(newest, metric),
                show_spark(line, metric, marks),
                show_mark(marks),
                show_call(tried, key, metric, frame.atlas.pairs),
            ]
        )
    shown = [metric for metric in metrics if metric.name in SHOWN]
    columns = run_columns(shown)
    left_out = len(tried) - MOST_RUNS
    has_history = len(tried) > 1
    return {
        "name": name_setup(setup),
        "note": describe_setup(setup),
        "metric_columns": SUMMARY if has_history else SUMMARY[:3],
        "metrics": rows if has_history else [row[:3] for row in rows],
        "run_columns": columns,
        "runs": align(run_rows(setup, suite, key, shown)[:MOST_RUNS], columns),
        "more": f"and {count(left_out, 'older run')}" if left_out > 0 else "",
    }


def run_columns(metrics: list[Metric]) -> list[Column]:
    """What heads the columns of `run_rows`."""
    figures = [
        Column(header=header, is_number=True) for metric in metrics for header in (name_metric(metric), "95 % interval")
    ]
    return [Column(header="run"), Column(header="launches"), *figures, Column(header="new level"), Column(header="revision")]  # fmt: skip


def run_rows(setup: Setup, suite: SuiteRuns, key: str, metrics: list[Metric]) -> list[list[Cell]]:
    """A row a run that tried the point, the newest first; with each figure its interval."""
    known = {run.id: run for run in suite.runs}
    estimates = {
        metric.name: {entry.run: entry.estimate for entry in setup.lines[metric.name][key].entries}
        for metric in metrics
    }
    marks = {
        mark.run.id: mark
        for mark in (find_marks(setup.lines[metrics[0].name][key], known, suite.abs) if metrics else [])
    }
    rows = []
    for run in reversed([run for run in setup.runs if key in run.points]):
        figures = []
        for metric in metrics:
            estimate = estimates[metric.name].get(run.id)
            figures += [show_centre(estimate, metric), show_interval(estimate, metric)]
        is_good = set(run.points[key].statuses) == {"ok"}
        rows.append(
            [
                Cell(text=run.began or run.name, href=name_run_page(run)),
                Cell(text=count_statuses(run, key), style="" if is_good else "bad"),
                *figures,
                show_mark([marks[run.id]]) if run.id in marks else Cell(),
                Cell(text=run.revision[:26] or NOT_AVAILABLE, style="revision"),
            ]
        )
    return rows
