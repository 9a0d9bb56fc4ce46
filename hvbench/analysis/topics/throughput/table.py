"""The table "Throughput": speed, step times, memory and status of every point."""

from __future__ import annotations

import pandas as pd

from hvbench.analysis.frame.metrics import STEPS
from hvbench.analysis.frame.quantiles import P95, samples_needed
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import (
    INTERVAL,
    NOT_AVAILABLE,
    SPREAD_NOTE,
    Row,
    show_estimate,
    show_interval,
    show_spread,
)
from hvbench.analysis.show.tables import Layout, Shown, Table, build_table
from hvbench.analysis.stats.estimates import summary_of

OF_POWER = ("gpu_joules_per_token", "cpu_joules_per_token", "gpu_sm_clock_mhz", "gpu_power_limit_watts")
POWER_NOTE = (
    "Energy: of the timed steps, over all ranks, for each token; of the whole GPUs, and of all processor packages of the hosts whoever else uses them, as "
    "far as a driver or the kernel measures it. Clock: of the slowest GPU, at the end of the training."
)


def throughput_table(run: Run) -> Table:
    """One row per point: speed, step times, memory, status."""
    columns = [
        Shown("tokens/s", show_estimate("tokens_per_second"), is_brief=True),
        Shown(INTERVAL, show_interval("tokens_per_second"), is_brief=True),
        Shown("tokens/s per rank", show_spread("tokens_per_second_per_rank")),
        Shown("step median (ms)", show_estimate("step_seconds_median", scale=1e3), is_brief=True),
        Shown(f"{INTERVAL} (ms)", show_interval("step_seconds_median", scale=1e3), metric="step_seconds_median"),
        Shown("step p95 (ms)", show_p95),
        Shown("first step (s)", show_spread("first_step_seconds")),
        Shown("peak memory (MiB)", show_estimate("peak_rss_bytes", scale=2**-20, decimals=0), is_brief=True),
        Shown("peak device memory (MiB)", show_estimate("peak_device_memory_bytes", scale=2**-20, decimals=0)),
        Shown("GPU (mJ/token)", show_spread("gpu_joules_per_token", scale=1e3)),
        Shown("processors (mJ/token)", show_spread("cpu_joules_per_token", scale=1e3)),
        Shown("GPU clock (MHz)", show_estimate("gpu_sm_clock_mhz", decimals=0)),
    ]
    rates = (
        "tokens/s: all ranks' tokens over the elapsed seconds, which are the sum of the slowest rank's step seconds, warm-up left out; over launches: "
        "geometric mean, Student's t interval on the logarithm. Step times: of that rank; "
    )
    if run.speed is STEPS:
        rates = "Step times: of the rank whose timed steps add up to most, warm-up left out; over launches: "
    notes = (
        f"{rates}geometric mean of the launches' medians and 95th percentiles. A p95 needs {samples_needed(P95)} timed steps: where a launch has fewer, it is that of the "
        "steps of all launches of the point, without an interval, and where these are fewer, too, only their number is given. Memory: highest resident set of any rank and launch, a high-water mark without an interval. "
        f"{SPREAD_NOTE}",
    )
    metrics = [
        "tokens_per_second", "tokens_per_second_per_rank", "step_seconds_median", "step_seconds_p95",
        "step_seconds_autocorrelation", "step_seconds_skewness", "first_timed_step_ratio",
        "first_step_seconds", "data_seconds_median", "peak_rss_bytes", "peak_device_memory_bytes",
        "model_flops_per_second", "model_flops_utilization",
    ]  # fmt: skip
    if measured := [metric for metric in OF_POWER if run.points[metric].notna().any()]:
        metrics += measured
        notes += (POWER_NOTE,)
    layout = Layout(
        name="throughput", title="Throughput", columns=columns, metrics=metrics, notes=notes, extra=("timed_steps",)
    )
    return build_table(layout, run.points, summary=summary_of(run))


def show_p95(row: Row) -> str:
    """Column text: `12.3 ± 4 %` over launches, `12.3 (60 steps)` of all launches' steps, or how many there are: `– (5 steps)`."""
    text = show_spread("step_seconds_p95", scale=1e3)(row)
    is_of_launches = not pd.isna(row["step_seconds_p95_low"]) or row["launches_ok"] == 1 and text != NOT_AVAILABLE
    return text if is_of_launches or not row["timed_steps"] else f"{text} ({row['timed_steps']} steps)"
