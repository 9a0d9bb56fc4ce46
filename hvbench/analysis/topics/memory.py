"""Where the memory of a rank goes: the measured peak beside the estimate, and what the peak consists of."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import NOT_AVAILABLE, Row, show_estimate
from hvbench.analysis.show.tables import Layout, Shown, Table, build_table
from hvbench.analysis.stats.estimates import summary_of
from hvbench.analysis.topics.topic import Need, Topic, has_launches, never


def memory_tables(run: Run) -> list[Table]:
    """The one table."""
    return [memory_table(run)]


def memory_table(run: Run) -> Table:
    """One row per point: the measured peak beside the estimate, and what the peak consists of."""

    def show_error(row: Row) -> str:
        peak, estimate = row["peak_rss_bytes"], row["estimated_peak_bytes"]
        return NOT_AVAILABLE if pd.isna(peak) or pd.isna(estimate) else f"{round(100 * (estimate / peak - 1)):+d}"

    def show_mebibytes(metric: str) -> Callable[[Row], str]:
        return show_estimate(metric, scale=2**-20, decimals=0)

    columns = [
        Shown("peak (MiB)", show_mebibytes("peak_rss_bytes"), is_brief=True),
        Shown("estimate (MiB)", show_mebibytes("estimated_peak_bytes"), is_brief=True),
        Shown("estimate / peak - 1 (%)", show_error),
        Shown(
            "before training (MiB)" if run.is_of_scripts else "before the point (MiB)",
            show_mebibytes("start_rss_bytes"),
        ),
        Shown("parameters (MiB)", show_mebibytes("parameter_bytes")),
        Shown("gradients (MiB)", show_mebibytes("gradient_bytes")),
        Shown("optimizer state (MiB)", show_mebibytes("optimizer_state_bytes")),
        Shown("activations and the rest (MiB)", show_mebibytes("activation_bytes")),
        Shown("peak device memory (MiB)", show_mebibytes("peak_device_memory_bytes")),
    ]
    whole = "Each figure is the largest over the n launches and their ranks: a high-water mark, which has no interval."
    notes = (
        (whole,)
        if run.is_of_scripts
        else (
            f"{whole} Parameters, gradients and optimizer state are computed, activations are what remains of the peak less the "
            "memory before the point. Points share a worker: what the one before has left in its allocator lies in "
            '"before the point", and is missing from the remainder. The estimate knows the point alone.',
        )
    )
    metrics = [
        "peak_rss_bytes", "estimated_peak_bytes", "start_rss_bytes", "parameter_bytes", "gradient_bytes",
        "optimizer_state_bytes", "activation_bytes", "peak_device_memory_bytes",
    ]  # fmt: skip
    layout = Layout(name="memory", title="Memory per rank", columns=columns, metrics=metrics, notes=notes)
    return build_table(layout, run.points, summary=summary_of(run))


TOPIC = Topic(
    name="Memory",
    question="How much memory does a rank need, and for what?",
    needs=Need(words="launches", is_met=has_launches),
    tables=memory_tables,
    is_in_terminal=never,
    question_of_scripts="How much memory does a rank need?",
)
