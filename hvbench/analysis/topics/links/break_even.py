"""The table "Where compression breaks even": the bandwidth at which it starts to cost, and the fitted model it follows from."""

from __future__ import annotations

import math

import pandas as pd

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, format_number, show_value
from hvbench.analysis.show.tables import Table, describe_constants, describe_lost, head_axes
from hvbench.analysis.topics.links.bandwidth import show_bandwidth, show_interval
from hvbench.analysis.topics.links.model import Span, models_of


def break_even_table(run: Run) -> Table:
    """One row per configuration and compression: where it breaks even, and what the model consists of."""
    varying = [name for name in run.other_axes if name not in ("compression", "link_bits_per_second")]
    rows, data = [], []
    for model in models_of(run):
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
    header = (
        "framework", *head_axes(varying), "compression", "n", "breaks even at", INTERVAL, "against the measured links",
        "local, none (ms)", "local (ms)", "hidden, none (ms)", "hidden (ms)", "wire",
    )  # fmt: skip
    return Table(
        name="break_even",
        title="Where compression breaks even",
        constants=describe_constants(run.points, without=("framework", "compression")),
        notes=(
            "Below that bandwidth of every link compressing makes a step shorter, above it longer. Fitted to the medians of "
            "n launches: step = local + max(0, wire x time of the payload on the link - hidden). local: everything but "
            "waiting for the wire, casts included; hidden: what of the wire's time runs beside other work; wire: of the "
            "link's nominal time. Intervals are those of the fit to the launches (Student's t, each point with a spread of its own); the break-even's "
            "holds every bandwidth at which the difference of the two steps may be 0.",
            *describe_lost(run.points),
        ),
        data=pd.DataFrame(data),
        header=header,
        is_number=(False, *(False for _ in varying), False, True, True, True, False, True, True, True, True, True),
        is_brief=(True,) * (5 + len(varying)) + (False,) * 6,
        cells=rows,
    )


def show_fitted(span: Span, *, scale: float = 1.0, decimals: int) -> str:
    """`412.3 ± 1.2 %`: half the interval's width, relative to the value; the value alone where there is no interval."""
    text = format_number(scale * span.centre, decimals=decimals)
    if math.isnan(span.low) or math.isnan(span.high) or span.centre <= 0:
        return text
    return f"{text} ± {100 * (span.high - span.low) / (2 * span.centre):.2g} %"
