"""What `hvbench.analysis.topics.links` says, for readers: a table of break-evens, and step time against bandwidth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hvbench.analysis.frame.axes import varying_axes
from hvbench.analysis.show.panels import (
    STYLES,
    Cell,
    add_legend,
    choose_rows,
    describe_choice,
    draw_panels,
    emulated_precisions,
    legend_mark,
)
from hvbench.analysis.show.tables import HEADERS, INTERVAL, Table, describe_constants, format_number, show_value
from hvbench.analysis.topics.links import LinkModel, Span, link_models
from hvbench.records.record import Record

LINES = {"none": "-", "fp16": "--", "bf16": ":"}
MARKS = {"none": "o", "fp16": "s", "bf16": "^"}
UNITS = ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"))
MAX_PANELS = 8
SAMPLES = 200  # of a drawn curve


def payloads_of(records: Sequence[Record]) -> dict[str, float]:
    """Point id -> bytes that one rank all-reduces in a step."""
    return {record.point_id: float(record.model.allreduce_bytes_per_step) for record in records}


def break_even_table(points: pd.DataFrame, models: Sequence[LinkModel]) -> Table | None:
    """One row per configuration and compression: where it breaks even, and what the model consists of; None without."""
    varying = [
        name for name in varying_axes(points) if name not in ("framework", "compression", "link_bits_per_second")
    ]
    rows, data = [], []
    for model in models:
        for compression in (name for name in model.local_seconds if name != "none"):
            span = model.break_even_span(compression)
            fitted = {
                "local_seconds_none": model.parameter_span("local_seconds", "none"),
                "local_seconds": model.parameter_span("local_seconds", compression),
                "hidden_seconds_none": model.parameter_span("hidden_seconds", "none"),
                "hidden_seconds": model.parameter_span("hidden_seconds", compression),
                "wire": model.parameter_span("wire"),
            }
            rows.append(
                [
                    str(model.point["framework"]),
                    *(show_value(model.point.get(name)) for name in varying),
                    compression,
                    str(model.launches),
                    show_bandwidth(span.centre),
                    show_interval(span),
                    model.describe_reach(bits_per_second=span.centre) or "within",
                    *(show_fitted(fitted[name], scale=1e3, decimals=1) for name in fitted if name != "wire"),
                    show_fitted(fitted["wire"], decimals=2),
                ]
            )
            figures = {"break_even_bits_per_second": span} | fitted
            ends = (("", "centre"), ("_low", "low"), ("_high", "high"))
            data.append(
                {**model.point, "compression": compression, "launches_ok": model.launches}
                | {f"{name}{end}": getattr(each, part) for name, each in figures.items() for end, part in ends}
            )
    if not rows:
        return None
    labels = [HEADERS.get(name, name) for name in varying]
    header = (
        "framework", *labels, "compression", "n", "breaks even at", INTERVAL, "against the measured links",
        "local, none (ms)", "local (ms)", "hidden, none (ms)", "hidden (ms)", "wire",
    )  # fmt: skip
    return Table(
        name="break_even",
        title="Where compression breaks even",
        constants={
            name: value
            for name, value in describe_constants(points).items()
            if name not in ("framework", "compression")
        },
        notes=(
            "Below that bandwidth of every link compressing makes a step shorter, above it longer. Fitted to the medians of "
            "n launches: step = local + max(0, wire x time of the payload on the link - hidden). local: everything but "
            "waiting for the wire, casts included; hidden: what of the wire's time runs beside other work; wire: of the "
            "link's nominal time. The interval is over launches drawn again.",
        ),
        data=pd.DataFrame(data),
        header=header,
        is_number=(False, *(False for _ in varying), False, True, True, True, False, True, True, True, True, True),
        is_brief=(True,) * (5 + len(varying)) + (False,) * 6,
        cells=rows,
    )


def plot_links(points: pd.DataFrame, models: Sequence[LinkModel]) -> Figure | None:
    """Step time against bandwidth, a panel per configuration: launches, the fitted model, the break-evens with intervals."""
    if not models:
        return None
    others = [name for name in varying_axes(points) if name not in ("compression", "link_bits_per_second")]
    shown = list(models)[:MAX_PANELS]
    emulated = emulated_precisions(points)
    cells = [
        Cell(
            title=describe_choice({name: model.point.get(name) for name in others}, emulated=emulated).replace(
                "\n", ", "
            ),
            chosen={"model": model},
        )
        for model in shown
    ]
    grid = [cells[start : start + 2] for start in range(0, len(cells), 2)]
    compressions = [name for name in LINES if any(name in model.local_seconds for model in shown)]
    with draw_panels(grid, width=4.6, height=2.9, x_label="bandwidth of each link", share_y=False) as (figure, panels):
        for panel, chosen in panels:
            _draw_model(panel, points, chosen["model"])
        figure.supylabel("step (ms)")
        figure.suptitle(
            f"From which bandwidth on does compression cost more than it saves?\ndots: median step of a launch, n = "
            f"{sum(model.launches for model in shown)}; band: where it breaks even, {INTERVAL}"
        )
        marks = [legend_mark(name, marker=MARKS[name], linestyle=LINES[name]) for name in compressions]
        add_legend(figure, [], marks)
    return figure


def _draw_model(panel: Any, points: pd.DataFrame, model: LinkModel) -> None:
    style = STYLES[model.point["framework"]]
    slow, fast = model.links
    links = np.geomspace(slow / 1.5, fast * 1.5, SAMPLES)
    good = points[points["status"] == "ok"]
    fixed = {name: value for name, value in model.point.items() if value is not None}
    highest = 0.0
    for compression in (name for name in LINES if name in model.local_seconds):
        look = {"color": style.colour, "linewidth": 1.1, "linestyle": LINES[compression]}
        steps = [1e3 * model.step_seconds(compression, bits_per_second=float(link)) for link in links]
        panel.plot(links, steps, **look)
        mine = choose_rows(good, {**fixed, "compression": compression})
        mine = mine[mine["link_bits_per_second"].notna()]
        medians = 1e3 * mine["step_seconds_median"].astype(float)
        panel.plot(
            mine["link_bits_per_second"].astype(float), medians, color=style.colour, linestyle="", markersize=4,
            marker=MARKS[compression], markerfacecolor="none",
        )  # fmt: skip
        highest = max(highest, float(medians.max()) if len(medians) else 0.0)
        span = model.break_even_span(compression) if compression != "none" else None
        if span and math.isfinite(span.centre) and span.centre > 0:
            panel.axvline(span.centre, color=style.colour, linewidth=0.8, linestyle=LINES[compression])
            if all(math.isfinite(end) and end > 0 for end in (span.low, span.high)):
                panel.axvspan(span.low, span.high, color=style.colour, alpha=0.12, linewidth=0)
            panel.annotate(
                f"{compression}: {show_bandwidth(span.centre)}", (span.centre, 0.98), rotation=90, va="top", ha="right",
                xycoords=("data", "axes fraction"), fontsize=7,
            )  # fmt: skip
    panel.set_xscale("log")
    panel.set_ylim(0, 1.1 * highest if highest else None)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show_bandwidth(value)))


def models_of(points: pd.DataFrame, records: Sequence[Record]) -> list[LinkModel]:
    """The models of a run's launches; none where no link was shaped."""
    return link_models(points, payloads_of(records)) if points["link_bits_per_second"].notna().any() else []


def show_bandwidth(bits_per_second: float) -> str:
    """`200 Mbit/s`; `always` and `never` for a break-even that is infinite or 0."""
    if math.isnan(bits_per_second):
        return "–"
    if math.isinf(bits_per_second) or bits_per_second == 0:
        return "always" if bits_per_second else "never"
    for unit, name in UNITS:
        if bits_per_second >= unit:
            return f"{bits_per_second / unit:.3g} {name}"
    return f"{bits_per_second:.3g} bit/s"


def show_fitted(span: Span, *, scale: float = 1.0, decimals: int) -> str:
    """`412.3 ± 1.2 %`: half the interval's width, relative to the value; the value alone where there is no interval."""
    text = format_number(scale * span.centre, decimals=decimals)
    if math.isnan(span.low) or math.isnan(span.high) or span.centre <= 0:
        return text
    return f"{text} ± {100 * (span.high - span.low) / (2 * span.centre):.2g} %"


def show_interval(span: Span) -> str:
    """`180 Mbit/s to 240 Mbit/s`."""
    if math.isnan(span.low) or math.isnan(span.high):
        return "–"
    return f"{show_bandwidth(span.low)} to {show_bandwidth(span.high)}"
