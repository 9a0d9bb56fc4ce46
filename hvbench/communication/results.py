"""The files made from the records of an all-reduce run, written into its folder: table, plot, the fit's residuals."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from hvbench.analysis.show.panels import library_defaults
from hvbench.communication.cost_report import plot_residuals
from hvbench.communication.plot import plot_bandwidth
from hvbench.communication.record import read_records
from hvbench.communication.summary import summarize
from hvbench.communication.table import render_table
from hvbench.io.atomic import explaining_write_errors, write_text


def write_results(run: Path) -> str:
    """Write the table (text and CSV) and the plot of the run folder `run`; the text to show. Raises StorageError."""
    records, problems = read_records(run)
    summary = summarize(records)
    text = render_table(summary)
    for name, content in (("allreduce.txt", text + "\n"), ("allreduce.csv", summary.to_csv(index=False))):
        with explaining_write_errors(run / name):
            write_text(run / name, content)
    with matplotlib.rc_context(library_defaults()):
        save_figure(plot_bandwidth(summary), run / "allreduce")
    lines = [f"not a readable record: {problem}" for problem in problems]
    return "\n".join([*lines, text, "", f"records, table and plot: {run}"])


def write_residuals(run: Path, held: pd.DataFrame) -> None:
    """Write the plot of the held-out cases' errors; raises StorageError."""
    with matplotlib.rc_context(library_defaults()):
        save_figure(plot_residuals(held), run / "cost_residuals")


def save_figure(figure: Figure | None, stem: Path) -> None:
    """Write a figure, if there is one, as SVG and PNG; raises StorageError."""
    for ending in ("svg", "png") if figure else ():
        path = stem.with_name(f"{stem.name}.{ending}")
        with explaining_write_errors(path):
            figure.savefig(path, dpi=150)
