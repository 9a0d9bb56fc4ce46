"""Plot of bus bandwidth against message size, one panel per number of ranks, with the highest that was measured."""

from __future__ import annotations

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hvbench.communication.plan import REFERENCES
from hvbench.registry import FRAMEWORKS, describe_framework

COLOURS = {name: describe_framework(name).look.colour for name in FRAMEWORKS} | {"mpi4py": "#555555", "ring": "#999999"}
LINES = {"none": "-", "fp16": "--", "bf16": ":"}
MARKERS = {"gloo": "o", "mpi": "s"}
UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def plot_bandwidth(summary: pd.DataFrame) -> Figure | None:
    """Plot the bus bandwidth of every path of `summarize`; None without data.

    A panel's dotted line is the highest bus bandwidth of any uncompressed path, MPI's included: the largest of several noisy
    figures, so what it names is that it was measured, and no limit of the machine.
    """
    good = summary.dropna(subset=["busbw_bytes_per_second"])
    if good.empty:
        return None
    worlds = sorted(good["world_size"].unique())
    figure = Figure(figsize=(6.4 * len(worlds), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(worlds), sharey=True, squeeze=False)[0]
    for panel, world_size in zip(panels, worlds, strict=True):
        reached = good[good["world_size"] == world_size]
        for path, rows in reached.groupby("path", sort=False):
            first = rows.iloc[0]
            panel.plot(
                rows["payload_bytes"],
                rows["busbw_bytes_per_second"] / 1e9,
                label=path,
                color=COLOURS.get(first["implementation"], "#7a5195"),
                linestyle=LINES[first["compression"]],
                marker=MARKERS[first["controller"]],
                markersize=3,
                linewidth=1.8 if first["implementation"] in REFERENCES else 1.2,
            )
        highest = reached.loc[reached["compression"] == "none", "busbw_bytes_per_second"].max()
        if pd.notna(highest):
            panel.axhline(highest / 1e9, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
            panel.annotate(
                f"highest measured {highest / 1e9:.2f} GB/s", (0.01, highest / 1e9), va="bottom", fontsize=8,
                xycoords=("axes fraction", "data"),
            )  # fmt: skip
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show_size(value)))
        panel.set_title(f"{world_size} ranks", fontsize=10)
        panel.set_xlabel("float32 values all-reduced")
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("bus bandwidth of the bytes on the wire (GB/s)")
    panels[-1].legend(fontsize=7, loc="lower right")
    figure.suptitle("What does an all-reduce reach, by message size and path?")
    return figure


def show_size(size: float) -> str:
    """Bytes in the largest binary unit that they fill, such as `64 MiB`."""
    for unit, name in UNITS:
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size:g} B"
