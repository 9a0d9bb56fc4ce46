"""Tables and a plot of the cost model: its parameters, its errors on held-out cases, its predictions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from tabulate import tabulate

from hvbench.analysis.topics.links.bandwidth import show_bandwidth, show_interval
from hvbench.analysis.topics.links.model import Span
from hvbench.communication.cost import CASTING, Cost, error_factor, families, fit, hold_out
from hvbench.communication.plot import COLOURS, show_size
from hvbench.communication.predict import Prediction, Targets

FORMULA = (
    "seconds = calls x (call + queue x (crowding - 1)) + crowding x (hop x 2(n-1) + byte x B + tail x max(0, B - knee) + cast x values)\n"
    "          + wire x 8 B / link,  B = 2(n-1)/n x bytes on the wire,  crowding = ranks on a host / its cores, at least 1"
)


def fit_all(summary: pd.DataFrame) -> tuple[dict[str, Cost], pd.DataFrame, list[str]]:
    """(family -> its model, the held-out cases of all, a line for each family that has too few cases)."""
    costs, held, problems = {}, [], []
    for name, rows in families(summary).items():
        try:
            costs[name] = fit(name, rows)
            held.append(hold_out(name, rows))
        except ValueError as error:
            problems.append(str(error))
    return costs, pd.concat(held) if held else pd.DataFrame(), problems


def held_out_of(held: pd.DataFrame, family: str) -> pd.DataFrame:
    """The held-out cases of one family."""
    return held[held["family"] == family] if len(held) else held


def error_factors(costs: Mapping[str, Cost], held: pd.DataFrame) -> dict[str, float]:
    """Family -> `error_factor` of its model; 1 where no case could be held out."""
    factors = {name: error_factor(held_out_of(held, name)) for name in costs}
    return {name: 1.0 if np.isnan(factor) else factor for name, factor in factors.items()}


def render_costs(costs: Mapping[str, Cost], held: pd.DataFrame) -> str:
    """Table, one line per family: its parameters, and its median and largest error on held-out sizes and ranks."""
    rows = []
    for name, cost in costs.items():
        errors = held_out_of(held, name)
        rows.append(
            [
                name, cost.cases, f"{1e6 * cost.call_seconds:.4g}", f"{1e6 * cost.queue_seconds:.4g}",
                f"{1e6 * cost.hop_seconds:.4g}",
                f"{1e9 * cost.byte_seconds:.4g}",
                f"{1e9 * cost.tail_byte_seconds:.3g} from {show_size(cost.knee_bytes)}" if np.isfinite(cost.knee_bytes) else "–",
                *(f"{1e9 * cost.cast_seconds[kind]:.3g}" if kind in cost.cast_seconds else "–" for kind in CASTING),
                f"{cost.wire:.3g}" if cost.link_range_bits_per_second else "–",
                *(show_errors(errors, kind) for kind in ("size", "world_size")),
            ]
        )  # fmt: skip
    header = [
        "path", "cases", "call (us)", "queue (us)", "hop (us)", "byte (ns)", "tail (ns/B)", *(f"cast {kind} (ns/value)" for kind in CASTING),
        "wire", "error, held-out sizes", "error, held-out ranks",
    ]  # fmt: skip
    return f"{tabulate(rows, headers=header, disable_numparse=True)}\n\n{FORMULA}\nerror: median (largest) of |predicted / measured - 1| over cases that the model did not see"


def show_errors(held: pd.DataFrame, kind: str) -> str:
    """Median (largest) relative error and number of cases, such as `6.1 % (19 %), n = 24`."""
    errors = held.loc[held["kind"] == kind, "relative_error"].abs() if len(held) else held
    return f"{100 * errors.median():.3g} % ({100 * errors.max():.3g} %), n = {len(errors)}" if len(errors) else "–"


def render_allreduces(costs: Mapping[str, Cost], factors: Mapping[str, float], targets: Targets) -> str:
    """Table of predicted all-reduces: time, interval, and how far each extrapolates beyond the fitted cases.

    Args:
        costs: Family -> its model.
        factors: Family -> its error factor.
        targets: What to predict for; ranks that are not given are the largest number measured.
    """
    rows = []
    for name, cost in costs.items():
        cases = itertools.product(
            ("none", *cost.cast_seconds),
            targets.world_sizes or (cost.largest_world_size,),
            targets.links or sorted(set(cost.link_range_bits_per_second or ())) or (None,),
            targets.payloads,
        )
        for compression, world_size, link, payload in cases:
            factor = factors[name]
            milliseconds = 1e3 * cost.predict(
                payload_bytes=payload,
                world_size=world_size,
                compression=compression,
                link_bits_per_second=link,
                latency_seconds=targets.latency_seconds,
            )
            reach = cost.describe_reach(payload_bytes=payload, world_size=world_size, link_bits_per_second=link)
            rows.append(
                [
                    f"{name} {compression}", world_size, show_bandwidth(link) if link else "as measured",
                    show_size(payload), f"{milliseconds:.4g}",
                    f"{milliseconds / factor:.4g} to {milliseconds * factor:.4g}" if factor > 1 else "–",
                    reach or "within",
                ]
            )  # fmt: skip
    header = ["path", "ranks", "link", "size", "time (ms)", "interval (ms)", "against the measured"]
    return tabulate(rows, headers=header, disable_numparse=True)


def render_predictions(predictions: Sequence[Prediction]) -> str:
    """Table, one line per prediction: time of a step, efficiency, and the link at which the compression breaks even."""
    rows = [
        [
            one.framework, one.compression, one.world_size, show_bandwidth(one.bits_per_second),
            f"{1e3 * one.step_seconds.centre:.4g}", show_scaled(one.step_seconds, 1e3),
            f"{100 * one.efficiency.centre:.1f}", show_scaled(one.efficiency, 100),
            *(
                (show_bandwidth(one.break_even_bits_per_second.centre), show_interval(one.break_even_bits_per_second))
                if one.break_even_bits_per_second
                else ("–", "–")
            ),
            one.reach or "within",
        ]
        for one in predictions
    ]  # fmt: skip
    header = [
        "framework", "compression", "ranks", "link", "step (ms)", "95 % interval", "efficiency (%)", "95 % interval ",
        "breaks even at", "95 % interval  ", "against the measured",
    ]  # fmt: skip
    return tabulate(rows, headers=header, disable_numparse=True)


def show_scaled(span: Span, scale: float) -> str:
    """The interval of `span` times `scale`, such as `410 to 432`; a dash where there is none."""
    if np.isnan(span.low) or np.isnan(span.high):
        return "–"
    return f"{scale * span.low:.4g} to {scale * span.high:.4g}"


def plot_residuals(held: pd.DataFrame) -> Figure | None:
    """Plot of predicted / measured time of every held-out case against its size; None without any."""
    if held.empty:
        return None
    names = list(dict.fromkeys(held["family"]))
    figure = Figure(figsize=(4.2 * min(3, len(names)), 2.9 * -(-len(names) // 3)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(-(-len(names) // 3), min(3, len(names)), sharex=True, sharey=True, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        errors = held[held["family"] == name]
        for kind, marker, label in (("size", "o", "size held out"), ("world_size", "x", "ranks held out")):
            rows = errors[errors["kind"] == kind]
            panel.plot(
                rows["payload_bytes"], 1 + rows["relative_error"], marker=marker, linestyle="", markersize=4, label=label,
                color=COLOURS.get(name.split()[0], "#7a5195"), markerfacecolor="none",
            )  # fmt: skip
        panel.axhline(1, color="black", linewidth=0.7)
        panel.axhspan(0.9, 1.1, color="black", alpha=0.07, linewidth=0)
        panel.set_title(name, fontsize=9)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show_size(value)))
        for which in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
            which(FuncFormatter(lambda value, _: f"{value:g}"))
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    panels[0].legend(fontsize=7)
    figure.supylabel("predicted / measured")
    figure.suptitle("How wrong is the model on cases that it did not see?   (band: ± 10 %)")
    return figure
