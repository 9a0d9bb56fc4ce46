"""What of a run other programs get: a few metrics of every point, with their intervals. The same in every format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hvbench.analysis.frame.axes import plain_name
from hvbench.analysis.frame.metrics import RATE, STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import Row
from hvbench.analysis.stats.estimates import Estimate, read_estimate, summary_rows
from hvbench.analysis.topics.throughput.pairs import label_of


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A metric by its column, in its unit."""

    column: str
    unit: str
    title: str
    is_lower_better: bool = True


MEASURES = (
    Measure(column=RATE, unit="tokens/s", title="tokens per second over all ranks", is_lower_better=False),
    Measure(column=STEP, unit="s", title="median seconds of a step, mean over the launches"),
    Measure(column="peak_rss_bytes", unit="bytes", title="peak resident memory of the rank that had most"),
    Measure(column="allreduce_bytes_per_step", unit="bytes", title="bytes that a rank hands to the exchange in a step"),
    Measure(column="final_validation_loss", unit="nats", title="validation loss at the last evaluation"),
    Measure(column="seconds_to_target", unit="s", title="training seconds to the target loss"),
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One metric of one point."""

    row: Row
    measure: Measure
    estimate: Estimate


def list_figures(run: Run) -> Iterator[Figure]:
    """Metric by metric, and of each point by point, in table order; what was not measured is left out."""
    for measure in MEASURES:
        for row in summary_rows(run):
            estimate = read_estimate(row, measure.column) if measure.column in row else None
            if estimate is not None:
                yield Figure(row=row, measure=measure, estimate=estimate)


def suite_of(run: Run) -> str:
    """The name of the run's suite."""
    return str(run.request.get("suite") or (run.records[0].suite if run.records else ""))


def describe_axes(run: Run, row: Row) -> dict[str, str]:
    """What distinguishes a point: its framework, and the fields that vary in the run, by name."""
    return {"framework": label_of(row)} | {
        plain_name(axis): str(row[axis]) for axis in run.varying_axes if axis != "framework"
    }
