"""The table "Where the time goes": parts of a step over the launches of a point, and ablated steps checked against timed ones."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from hvbench.analysis.frame.breakdown import BREAKDOWN, PARTS
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, Row, format_number, show_estimate, show_interval
from hvbench.analysis.show.tables import Layout, Shown, Table, build_table
from hvbench.analysis.stats.estimates import read_estimate, summary_of

ADDS_UP_WITHIN = 0.05  # of the timed step


def breakdown_table(run: Run) -> Table:
    """One row per point: milliseconds of each part, the check of their sum, overlap, status."""
    step = "step_seconds_median"
    columns = [
        *(Shown(f"{part} (ms)", show_spread(name, scale=1e3), is_brief=True) for name, part in PARTS.items()),
        Shown("step median (ms)", show_estimate(step, scale=1e3), is_brief=True),
        Shown(f"{INTERVAL} (ms)", show_interval(step, scale=1e3), metric=step),
        Shown("parts / step (%)", show_check, is_brief=True),
        Shown(f"{INTERVAL} (%)", show_interval("parts_to_step", scale=100, decimals=1), metric="parts_to_step"),
        Shown("all-reduce alone (ms)", show_spread("allreduce_alone_seconds", scale=1e3)),
        Shown("overlap (%)", show_spread("overlap", scale=100, decimals=0), is_brief=True),
    ]
    notes = (
        "Parts by ablation: forward passes alone; what backward passes, the update (norm and clipping included) and the "
        "all-reduce (casts of compression included) add to a step, one after the other. Between the timed steps, in rounds "
        "spread evenly over them, every kind is timed in turn on the batch of the step before, and what it changed is put "
        "back; slowest rank of each round, median over the rounds, mean over the n "
        f"launches ± half of the {INTERVAL} (Student's t). A part within the noise of zero may be negative.",
        "The parts are differences of ablated steps and add up to the whole one by construction. parts / step compares that "
        "whole step, and the timed steps' wait for data, with the median of the timed steps, which know nothing of ablations: "
        f"one that is more than {100 * ADDS_UP_WITHIN:g} % off is named, and its parts are not to be trusted. "
        "Peak memory is that of before the first round. Overlap: 1 − exposed communication / all-reduce alone. In TensorFlow the "
        "cross-entropy's gradient belongs to the forward pass, one operation computes both. In both frameworks, freeing "
        "the activations counts as forward.",
        *describe_cost(run.points),
    )
    metrics = ["data_seconds_median", *BREAKDOWN, step]
    layout = Layout(name="breakdown", title="Where the time goes", columns=columns, metrics=metrics, notes=notes)
    return build_table(layout, run.points, summary=summary_of(run))


def show_spread(metric: str, *, scale: float = 1.0, decimals: int | None = None) -> Callable[[Row], str]:
    """Column text: the mean of `metric` over the launches ± half of its interval; `n=1` where there cannot be any."""

    def text(row: Row) -> str:
        estimate = read_estimate(row, metric)
        if estimate is None:
            return NOT_AVAILABLE
        places = decimals
        if places is None:  # one for all parts of a row, so that they can be added by eye
            largest = scale * max(abs(row[name]) for name in PARTS)
            places = 0 if largest >= 1000 else 1 if largest >= 100 else 2
        centre = format_number(estimate.centre * scale, decimals=places)
        if estimate.high is None:
            return f"{centre} (n={estimate.n})"
        return f"{centre} ± {format_number((estimate.high - estimate.centre) * scale, decimals=places)}"

    return text


def show_check(row: Row) -> str:
    """Column text: the sum of the parts in per cent of the timed steps, and whether ablated and timed steps are too far apart."""
    text = show_estimate("parts_to_step", scale=100, decimals=1)(row)
    estimate = read_estimate(row, "parts_to_step")
    return (
        text
        if estimate is None or abs(estimate.centre - 1) <= ADDS_UP_WITHIN
        else f"{text} (ablated steps differ from timed ones)"
    )


def describe_cost(points: pd.DataFrame) -> list[str]:
    """What the measuring itself costs, as it was measured."""
    known = points[["clock_seconds", "barrier_seconds"]].dropna()
    if known.empty:
        return []
    clock, barrier = (
        " to ".join(dict.fromkeys(format_number(1e6 * end) for end in (known[name].min(), known[name].max())))
        for name in known
    )
    return [
        f"Cost of measuring, itself measured around nothing (range of {len(known)} launches): the clock adds {clock} µs to "
        f"a step; the barrier before each ablation takes {barrier} µs, outside the clock, and the timed steps have none."
    ]
