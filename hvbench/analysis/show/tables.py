"""Summaries of launches -> tables: throughput and convergence, as CSV, Markdown and plain text.

A table leads with the axes that vary; what all points share is stated once above it. CSV keeps raw values with the unit
in the column's name and every interval; Markdown and text are for reading. Records are untrusted: what they say is
cleaned of control characters and escaped where it is written, never before.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from tabulate import tabulate

from hvbench.analysis.frame.axes import AXES, KNOBS, LEADING_AXES, PRESET_SIZES, varying_axes
from hvbench.analysis.stats.estimates import CONFIDENCE, ESTIMATORS, read_estimate, summarize_launches, take_largest

HEADERS = {name: knob.label for name, knob in KNOBS.items() if knob.label}
INTERVAL = f"{CONFIDENCE * 100:g} % interval"
NOT_AVAILABLE = "–"
SPREAD_NOTE = f"±: half the width of the {INTERVAL}, relative to the value."


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table ready to be rendered: `data` holds raw values, `cells` the (unescaped) text of the same rows."""

    name: str
    title: str
    constants: dict[str, str]
    notes: tuple[str, ...]
    data: pd.DataFrame
    header: tuple[str, ...]
    is_number: tuple[bool, ...]
    is_brief: tuple[bool, ...]
    cells: list[list[str]]


@dataclass(frozen=True)
class Shown:
    """One column for readers: its header, and how a row of the summary becomes text.

    `metric` names the estimate whose interval it shows; `is_brief` keeps it where a line has to be short.
    """

    header: str
    text: Callable[[pd.Series], str]
    is_number: bool = True
    is_brief: bool = False
    metric: str | None = None


def throughput_table(points: pd.DataFrame) -> Table:
    """One row per point of `point_frame`: speed, step times, memory, status."""
    columns = [
        Shown("tokens/s", show_estimate("tokens_per_second"), is_brief=True),
        Shown(INTERVAL, show_interval("tokens_per_second"), is_brief=True),
        Shown("tokens/s per rank", show_spread("tokens_per_second_per_rank")),
        Shown("step median (ms)", show_estimate("step_seconds_median", scale=1e3), is_brief=True),
        Shown(f"{INTERVAL} (ms)", show_interval("step_seconds_median", scale=1e3), metric="step_seconds_median"),
        Shown("step p95 (ms)", show_spread("step_seconds_p95", scale=1e3)),
        Shown("first step (s)", show_spread("first_step_seconds")),
        Shown("peak memory (MiB)", show_estimate("peak_rss_bytes", scale=2**-20, decimals=0), is_brief=True),
        Shown("peak device memory (MiB)", show_estimate("peak_device_memory_bytes", scale=2**-20, decimals=0)),
    ]
    notes = (
        "tokens/s: all ranks' tokens over the sum of the slowest rank's step seconds, warm-up left out; over launches: "
        "geometric mean, Student's t interval on the logarithm. Step times: geometric mean of the launches' medians "
        "and 95th percentiles. Memory: highest resident set of any rank and launch, a high-water mark without an interval. "
        f"{SPREAD_NOTE}",
    )
    metrics = [
        "tokens_per_second", "tokens_per_second_per_rank", "step_seconds_median", "step_seconds_p95",
        "step_seconds_autocorrelation", "step_seconds_skewness", "first_timed_step_ratio",
        "first_step_seconds", "data_seconds_median", "peak_rss_bytes", "peak_device_memory_bytes",
        "model_flops_per_second", "model_flops_utilization",
    ]  # fmt: skip
    return build_table("throughput", "Throughput", points, columns=columns, metrics=metrics, extra=[], notes=notes)


def convergence_table(points: pd.DataFrame) -> Table:
    """One row per point of `point_frame`: losses at the end, and steps, tokens and seconds to the target loss."""
    validation, seconds = "final_validation_loss", "seconds_to_target"
    accuracy = "final_validation_accuracy"
    columns = [
        Shown("training loss at end", show_estimate("final_loss", decimals=4), is_brief=True),
        Shown(INTERVAL, show_interval("final_loss", decimals=4), is_brief=True),
        Shown("validation loss at end", show_estimate(validation, decimals=4), is_brief=True),
        Shown(f"{INTERVAL} (validation)", show_interval(validation, decimals=4), metric=validation),
        Shown("validation accuracy at end (%)", show_estimate(accuracy, scale=100, decimals=1), is_brief=True),
        Shown(f"{INTERVAL} (accuracy, %)", show_interval(accuracy, scale=100, decimals=1), metric=accuracy),
        Shown("target loss", lambda row: show_value(row["target_loss"])),
        Shown("steps to target", show_target("steps_to_target", decimals=0)),
        Shown("tokens to target", show_target("tokens_to_target", decimals=0)),
        Shown("training seconds to target", show_target(seconds), is_brief=True),
        Shown(f"{INTERVAL} (s)", show_interval(seconds), metric=seconds),
        Shown("evaluation seconds until then", show_target("evaluation_seconds_to_target")),
        Shown("clipped updates (%)", show_estimate("clipped_fraction", scale=100, decimals=0)),
        Shown(f"{INTERVAL} (%)", show_interval("clipped_fraction", scale=100, decimals=0), metric="clipped_fraction"),
    ]
    notes = (
        "Training loss: mean over ranks and the last tenth of the timed steps. The launches of a point share its seed "
        "unless seed_per_repeat is set: an interval of a loss then covers what is not deterministic, not another seed. "
        f"Time to target leaves evaluation out. {SPREAD_NOTE}",
    )
    metrics = ["final_loss", "final_validation_loss", accuracy, "steps_to_target", "tokens_to_target", "seconds_to_target",
               "evaluation_seconds_to_target", "clipped_fraction"]  # fmt: skip
    extra = ["target_loss", "target", "loss_digests"]
    return build_table("convergence", "Convergence", points, columns=columns, metrics=metrics, extra=extra, notes=notes)


def memory_table(points: pd.DataFrame) -> Table:
    """One row per point of `point_frame`: the measured peak beside the estimate, and what the peak consists of."""

    def show_error(row: pd.Series) -> str:
        peak, estimate = row["peak_rss_bytes"], row["estimated_peak_bytes"]
        return NOT_AVAILABLE if pd.isna(peak) or pd.isna(estimate) else f"{round(100 * (estimate / peak - 1)):+d}"

    def show_mebibytes(metric: str) -> Callable[[pd.Series], str]:
        return show_estimate(metric, scale=2**-20, decimals=0)

    columns = [
        Shown("peak (MiB)", show_mebibytes("peak_rss_bytes"), is_brief=True),
        Shown("estimate (MiB)", show_mebibytes("estimated_peak_bytes"), is_brief=True),
        Shown("estimate / peak - 1 (%)", show_error),
        Shown("before the point (MiB)", show_mebibytes("start_rss_bytes")),
        Shown("parameters (MiB)", show_mebibytes("parameter_bytes")),
        Shown("gradients (MiB)", show_mebibytes("gradient_bytes")),
        Shown("optimizer state (MiB)", show_mebibytes("optimizer_state_bytes")),
        Shown("activations and the rest (MiB)", show_mebibytes("activation_bytes")),
        Shown("peak device memory (MiB)", show_mebibytes("peak_device_memory_bytes")),
    ]
    notes = (
        "Each figure is the largest over the n launches and their ranks: a high-water mark, which has no interval. "
        "Parameters, gradients and optimizer state are computed, activations are what remains of the peak less the "
        "memory before the point. Points share a worker: what the one before has left in its allocator lies in "
        '"before the point", and is missing from the remainder. The estimate knows the point alone.',
    )
    metrics = [
        "peak_rss_bytes", "estimated_peak_bytes", "start_rss_bytes", "parameter_bytes", "gradient_bytes",
        "optimizer_state_bytes", "activation_bytes", "peak_device_memory_bytes",
    ]  # fmt: skip
    return build_table("memory", "Memory per rank", points, columns=columns, metrics=metrics, extra=[], notes=notes)


def describe_constants(points: pd.DataFrame) -> dict[str, str]:
    """Field -> value of what every point shares; a size that `model` implies differs with it and is not listed then."""
    varying = set(varying_axes(points))
    fixed = [name for name in AXES if name not in varying and points[name].nunique(dropna=False) == 1]
    chosen = [name for name in fixed if not (name in PRESET_SIZES and "model" in varying)]
    emulated = bool(points["is_emulated"].any())
    return {name: show_axis(name, points[name].iloc[0], is_emulated=emulated) for name in chosen}


def show_value(value: object) -> str:
    """A field of a point, or a setting that somebody wrote into a run's description, as text."""
    if isinstance(value, (list, dict)):
        return str(value)
    if value is None or pd.isna(value):
        return NOT_AVAILABLE
    return f"{value:g}" if isinstance(value, float) else str(value)


def show_axis(axis: str, value: object, *, is_emulated: bool) -> str:
    """A value of one axis as text; a precision that the processor emulates says so."""
    return f"{show_value(value)} (emulated)" if axis == "precision" and is_emulated else show_value(value)


def format_number(value: float, *, decimals: int | None = None) -> str:
    """`decimals` places, or else four significant digits, and whole numbers from 1,000 on."""
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    return f"{value:,.0f}" if round(abs(value), 1) >= 1000 else f"{value:#.4g}"


def show_estimate(metric: str, *, scale: float = 1.0, decimals: int | None = None) -> Callable[[pd.Series], str]:
    """Column text: the centre of `metric` over the launches."""

    def text(row: pd.Series) -> str:
        estimate = read_estimate(row, metric)
        return NOT_AVAILABLE if estimate is None else format_number(estimate.centre * scale, decimals=decimals)

    return text


def show_interval(metric: str, *, scale: float = 1.0, decimals: int | None = None) -> Callable[[pd.Series], str]:
    """Column text: the interval of `metric`, or `n=1` where one launch cannot have any."""

    def text(row: pd.Series) -> str:
        estimate = read_estimate(row, metric)
        if estimate is None:
            return NOT_AVAILABLE
        if estimate.low is None or estimate.high is None:
            return f"n={estimate.n}"
        return " to ".join(format_number(end * scale, decimals=decimals) for end in (estimate.low, estimate.high))

    return text


def format_percent(share: float) -> str:
    """A share in per cent: two digits, and whole numbers from 10 on."""
    return f"{100 * share:,.0f}" if share >= 0.1 else f"{100 * share:.2g}"


def show_spread(metric: str, *, scale: float = 1.0, decimals: int | None = None) -> Callable[[pd.Series], str]:
    """Column text: the centre of `metric` over the launches, and how wide its interval is if it has one."""
    centre = show_estimate(metric, scale=scale, decimals=decimals)

    def text(row: pd.Series) -> str:
        estimate = read_estimate(row, metric)
        known = estimate is not None and math.isfinite(estimate.relative_half_width)
        return f"{centre(row)} ± {format_percent(estimate.relative_half_width)} %" if known else centre(row)

    return text


def show_target(metric: str, *, decimals: int | None = None) -> Callable[[pd.Series], str]:
    """Column text: the centre of a `*_to_target` metric with its spread, or that the target was not reached."""

    def text(row: pd.Series) -> str:
        if pd.isna(row["target"]):
            return NOT_AVAILABLE
        return show_spread(metric, decimals=decimals)(row) if row["target"] == "reached" else row["target"]

    return text


def render_csv(table: Table) -> str:
    """Raw values, units in the column names, an empty cell for what is missing."""
    return frame_to_csv(table.data)


def frame_to_csv(frame: pd.DataFrame) -> str:
    """`frame` as CSV; text that a spreadsheet would run as a formula is defused with an apostrophe."""
    safe = frame.copy()
    for name in safe.select_dtypes(["str", "object"]).columns:
        safe[name] = [_defuse(value) if isinstance(value, str) else value for value in safe[name]]
    return safe.to_csv(index=False, lineterminator="\n")


def render_markdown(table: Table, *, with_constants: bool = True) -> str:
    """A heading-less Markdown block: constants, the table, its notes."""
    blocks = []
    if with_constants and table.constants:
        blocks.append(f"Same for all: {escape_markdown(join_constants(table.constants), limit=2000)}.")
    if table.cells:
        lines = [table.header, ["---:" if number else ":---" for number in table.is_number]]
        lines += [[escape_markdown(cell) for cell in row] for row in table.cells]
        blocks.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        blocks += table.notes
    else:
        blocks.append("No launches.")
    return "\n\n".join(blocks) + "\n"


def render_text(table: Table) -> str:
    """The table for a terminal: its brief columns, printable characters only, one line per point."""
    if not table.cells:
        return f"{table.title}: no launches\n"

    def keep(row: Sequence[Any]) -> list[Any]:
        return [value for value, is_brief in zip(row, table.is_brief, strict=True) if is_brief]

    leading = {name: value for name, value in table.constants.items() if name in LEADING_AXES}
    title = f"{table.title} ({clean_text(join_constants(leading))})" if leading else table.title
    cells = [[clean_text(cell, limit=60) for cell in keep(row)] for row in table.cells]
    align = ["right" if number else "left" for number in keep(table.is_number)]
    body = tabulate(cells, headers=keep(table.header), tablefmt="simple", colalign=align, disable_numparse=True)
    return f"{title}\n\n{body}\n"


def join_constants(constants: dict[str, str]) -> str:
    """What all points share, as one line."""
    return ", ".join(f"{HEADERS.get(name, name)} {value}" for name, value in constants.items())


def clean_text(text: str, *, limit: int = 200) -> str:
    """One printable line of at most `limit` characters: control, format and separator characters become spaces."""
    # Twice the limit is enough: a longer text is cut anyway, and a hostile one may be very long.
    visible = "".join(
        " " if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} else c for c in text[: 2 * limit]
    )
    line = " ".join(visible.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def escape_markdown(text: str, *, limit: int = 200) -> str:
    """`text` as literal inline Markdown: no cell, tag, link, emphasis, mention or formula can come out of it."""
    line = (
        clean_text(text, limit=limit)
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("@", "&#64;")
    )
    line = re.sub(r"([\\`*\[\]|~$])", r"\\\1", line)
    line = re.sub(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])", r"\\_", line)
    return line.replace("://", "&#58;//").replace("www.", "www&#46;")


def _defuse(text: str) -> str:
    line = clean_text(text, limit=1000)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def build_table(
    name: str, title: str, points: pd.DataFrame, *,
    columns: Sequence[Shown], metrics: Sequence[str], extra: Sequence[str], notes: tuple[str, ...],
    has_status: bool = True,
) -> Table:  # fmt: skip
    """One row per point of `point_frame`: the axes that vary, n, those of `columns` that any point has, status.

    `data` holds the `metrics` with their intervals and the `extra` columns of the summary.
    """
    summary = summarize_launches(points)
    rows = [row for _, row in summary.iterrows()]
    leading = [
        Shown(
            HEADERS.get(axis, axis),
            lambda row, axis=axis: show_axis(axis, row[axis], is_emulated=row["is_emulated"]),
            is_number=pd.api.types.is_numeric_dtype(summary[axis]),
            is_brief=True,
        )
        for axis in ["framework", *(axis for axis in varying_axes(points) if axis != "framework")]
    ]
    launches = Shown("n", lambda row: str(row["launches_ok"]), is_brief=True)
    status = Shown("status", _show_status, is_number=False, is_brief=True)
    # What no point has (device memory on a CPU, a target, an interval of one launch) would only take room.
    known = [
        column
        for column in columns
        if any(column.text(row) != NOT_AVAILABLE and _has_interval(row, column.metric) for row in rows)
    ]
    shown = [*leading, launches, *known, *([status] if has_status else [])]
    ends = {metric: ("",) if ESTIMATORS[metric] is take_largest else ("", "_low", "_high") for metric in metrics}
    raw = [f"{metric}{end}" for metric in metrics for end in ends[metric]]
    return Table(
        name=name,
        title=title,
        constants={axis: value for axis, value in describe_constants(points).items() if axis != "framework"},
        notes=notes,
        data=summary[["point_id", *AXES, "launches", "launches_ok", "status", "reason", "parity", *extra, *raw]],
        header=tuple(column.header for column in shown),
        is_number=tuple(column.is_number for column in shown),
        is_brief=tuple(column.is_brief for column in shown),
        cells=[[column.text(row) for column in shown] for row in rows],
    )


def _has_interval(row: pd.Series, metric: str | None) -> bool:
    return metric is None or not pd.isna(row[f"{metric}_low"])


def _show_status(row: pd.Series) -> str:
    status = row["status"] if pd.isna(row["reason"]) else f"{row['status']} ({row['reason']})"
    return f"{status}, NOT the same work" if row["parity"] == "not proven" else status
