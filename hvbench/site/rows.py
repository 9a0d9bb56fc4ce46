"""A suite -> the rows of its table, a row a point on one machine with one set of software, in blocks that are loaded in parts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hvbench.analysis.frame.axes import axis_values
from hvbench.analysis.frame.metrics import METRICS, RATE, Metric
from hvbench.analysis.show.cells import NOT_AVAILABLE, head_axis, show_axis
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.text import clean_text
from hvbench.comparison.history import Line
from hvbench.site.atlas import Setup, SuiteRuns
from hvbench.site.cells import Cell, Column, align, show_centre, show_interval
from hvbench.site.collect import name_file
from hvbench.site.marks import Mark, find_marks
from hvbench.site.sparks import draw_spark
from hvbench.site.summary import PairSummary, RunSummary

ROWS = 200  # of a block, and of one page
ENTRIES = 15_000  # of the lines of a block: some 0.7 MB as data
NEWEST_ENTRIES = 500  # of a line as data
BY_NAME = {metric.name: metric for metric in METRICS}
MEMORY = "peak_rss_bytes"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One point on one machine: its cells, and what it is filtered by."""

    point_id: str
    label: str
    chosen: str  # JSON: the number of its value among the choices of each filter
    cells: Sequence[Cell]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows of one table."""

    number: int  # among the blocks of the suite
    setup: int
    columns: Sequence[Column]
    rows: Sequence[Row]


def name_point_page(suite: str, point_id: str) -> str:
    """The page of a point."""
    return f"points/{name_file(suite, point_id)}.html"


def name_pair_page(a: str, b: str) -> str:
    """The page of the comparison of two runs, b against a."""
    return f"pairs/{name_file(a, b)}.html"


def choose_metric(setup: Setup) -> Metric | None:
    """What is drawn over the runs: the step time, or else the first metric that there is."""
    return next((metric for metric in METRICS if metric.name in setup.lines), None)


def make_blocks(suite: SuiteRuns, pairs: Mapping[tuple[str, str], PairSummary]) -> list[Block]:
    """All rows of a suite, set-up by set-up."""
    blocks: list[Block] = []
    for number, setup in enumerate(suite.setups):
        columns = list_columns(suite, setup)
        rows = list(list_rows(suite, setup, pairs))
        size = max(5, min(ROWS, ENTRIES // max(1, min(len(setup.runs), NEWEST_ENTRIES))))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            cells = align([row.cells for row in part], columns)
            part = [Row(**{**vars(row), "cells": each}) for row, each in zip(part, cells, strict=True)]
            blocks.append(Block(number=len(blocks), setup=number, columns=columns, rows=part))
    return blocks


def list_columns(suite: SuiteRuns, setup: Setup) -> list[Column]:
    """What heads the columns of `list_rows`."""
    axes = [Column(header=head_axis(axis)) for axis in suite.axes] or [Column(header="point")]
    metric = choose_metric(setup)
    if metric is None:
        return [*axes, *([Column(header="newest run")] if differ(suite, setup) else []), Column(header="status")]
    step = name_metric(metric)
    over = [
        Column(header="over its runs", hint=f"{step}, oldest run first; a line where a new level begins"),
        Column(
            header="last change", hint="a new level, as hvbench history finds it: by how much, between which commits"
        ),
        Column(header="to the run before", hint="as hvbench compare calls it, corrected for all points"),
    ]
    return [
        *axes,
        *([Column(header="newest run")] if differ(suite, setup) else []),
        Column(header="n", is_number=True, hint="launches that ended in ok"),
        Column(header=step, is_number=True),
        Column(header="95 % interval", is_number=True),
        *([Column(header="tokens/s", is_number=True)] if RATE in setup.lines else []),
        *([Column(header="peak memory (MiB)", is_number=True)] if MEMORY in setup.lines else []),
        *(over if len(setup.runs) > 1 else []),
    ]


def differ(suite: SuiteRuns, setup: Setup) -> bool:
    """Whether not all points were tried by the newest run of a set-up."""
    tried = {key for run in setup.runs for key in run.points}
    return bool(tried - set(setup.runs[-1].points))


def name_metric(metric: Metric) -> str:
    """`step median (ms)`."""
    return metric.title if metric.unit == "1/s" else f"{metric.title} ({metric.unit})"


def list_rows(suite: SuiteRuns, setup: Setup, pairs: Mapping[tuple[str, str], PairSummary]) -> Iterator[Row]:
    """A row a point that any run of the set-up tried: its newest figures, its line, its last change."""
    metric, has_dates = choose_metric(setup), differ(suite, setup)
    runs = {run.id: run for run in suite.runs}
    for key, point in suite.points.items():
        tried = [run for run in setup.runs if key in run.points]
        if not tried:
            continue
        newest, values = tried[-1], axis_values(point)
        cells = [show_axis_cell(axis, values.get(axis)) for axis in suite.axes]
        cells[:1] = [link_point(suite, key, cells[0] if cells else Cell(text=suite.labels[key]))]
        cells += [Cell(text=newest.began or newest.name, href=f"runs/{newest.id}.html")] if has_dates else []
        if metric is None:
            cells.append(Cell(text=count_statuses(newest, key)))
        else:
            cells += show_figures(setup, key, metric, newest)
        if metric is not None and len(setup.runs) > 1:
            line = setup.lines[metric.name].get(key)
            marks = find_marks(line, runs, suite.abs) if line else []
            cells += [show_spark(line, metric, marks), show_mark(marks), show_call(tried, key, metric, pairs)]
        yield Row(
            point_id=key,
            label=clean_text(suite.labels[key], limit=160),
            chosen=json.dumps([find(choices, values.get(axis)) for axis, choices in suite.choices.items()]),
            cells=cells,
        )


def find(choices: Sequence[object], value: object) -> int:
    """The number of a value among choices; -1 where it is none of them."""
    return choices.index(value) if value in choices else -1


def show_axis_cell(axis: str, value: object) -> Cell:
    """A value of an axis; a framework has the mark of its colour."""
    text = clean_text(show_axis(axis, value, is_emulated=False))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    style = f"framework {text}" if axis == "framework" and text in STYLES else ""
    return Cell(text=text, value=float(value) if is_number else None, style=style)


def link_point(suite: SuiteRuns, key: str, cell: Cell) -> Cell:
    """The first cell of a row leads to the point."""
    return Cell(**{**vars(cell), "href": name_point_page(suite.name, key)})


def show_figures(setup: Setup, key: str, metric: Metric, newest: RunSummary) -> list[Cell]:
    """n, the metric and its interval, tokens/s and memory of the newest run."""
    found = {}
    for name in (metric.name, RATE, MEMORY):
        line = setup.lines.get(name, {}).get(key)
        entry = line.entries[-1] if line else None
        found[name] = entry.estimate if entry and entry.run == newest.id else None
    others = [show_centre(found[name], BY_NAME[name]) for name in (RATE, MEMORY) if name in setup.lines]
    done = newest.points[key].statuses.get("ok", 0)
    lost = sum(newest.points[key].statuses.values()) - done
    count = Cell(text=str(done), value=done, style="number bad" if lost else "number")
    if found[metric.name] is None and lost:
        count = Cell(text=count_statuses(newest, key), style="bad")
    return [count, show_centre(found[metric.name], metric), show_interval(found[metric.name], metric), *others]


def count_statuses(run: RunSummary, key: str) -> str:
    """`2 oom, 1 ok`."""
    return ", ".join(f"{count} {status}" for status, count in sorted(run.points[key].statuses.items()))


def show_spark(line: Line | None, metric: Metric, marks: Sequence[Mark]) -> Cell:
    """The line as a drawing, which says in words from what to what it goes."""
    if line is None:
        return Cell(text=NOT_AVAILABLE)
    values = [entry.estimate.centre * metric.scale for entry in line.entries]
    runs = f"{len(values)} run{'s' * (len(values) != 1)}"
    ends = f"from {values[0]:.4g} to {values[-1]:.4g}" if len(values) > 1 else f"{values[0]:.4g}"
    title = f"{name_metric(metric)}, {runs}: {ends}"
    return Cell(drawing=draw_spark(values, [mark.place for mark in marks], title=title), value=float(len(values)))


def show_mark(marks: Sequence[Mark]) -> Cell:
    """The newest change point, with the commits that it lies between and the verdict of the A/B comparison of these."""
    if not marks:
        return Cell()
    last = marks[-1]
    words = [last.run.began[:10], last.commits, f"ab: {last.ab.verdict}" if last.ab else ""]
    href = f"runs/{last.ab.id}.html" if last.ab else f"runs/{last.run.id}.html"
    return Cell(text=last.text, value=last.change, href=href, more=", ".join(filter(None, words)), style="change")


def show_call(
    tried: Sequence[RunSummary], key: str, metric: Metric, pairs: Mapping[tuple[str, str], PairSummary]
) -> Cell:
    """What the newest run is called against the one before, on the same machine with the same software."""
    if len(tried) < 2:
        return Cell()
    pair = pairs.get((tried[-2].id, tried[-1].id))
    if pair is None:
        return Cell()
    text = pair.called.get(key, {}).get(metric.name, NOT_AVAILABLE)
    style = "worse" if text.endswith(("slower", "larger")) else "better" if text.endswith(("faster", "smaller")) else ""
    return Cell(text=text, href=name_pair_page(pair.a, pair.b), style=style)
