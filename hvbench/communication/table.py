"""The table of all-reduces in the format of nccl-tests: one block per path, one line per message size."""

from __future__ import annotations

import pandas as pd

from hvbench.analysis.frame.quantiles import P99, samples_needed

HEADER = (
    f"#{'size':>12} {'count':>11} {'type':>8} {'redop':>6} {'time':>10} {'p99':>10} {'algbw':>8} {'busbw':>8} {'float32':>8} "
    f"{'#wrong':>7} {'n':>3} {'slowest':>8}"
)
UNITS = (
    f"#{'(B)':>12} {'(elements)':>11} {'':>8} {'':>6} {'(us)':>10} {'(us)':>10} {'(GB/s)':>8} {'(GB/s)':>8} {'(GB/s)':>8} "
    f"{'':>7} {'':>3} {'(rank)':>8}"
)
TYPES = {"none": "float", "fp16": "half", "bf16": "bfloat16"}  # nccl-tests' names of what goes on the wire
NOTES = (
    "time: median over a launch's calls by the rank that needed the longest for all of them; geometric mean over n launches.",
    "Calls follow each other at once; a call's time runs from the end of the one before. Records of version 1 had a barrier before each.",
    f"p99: over the calls of all launches; - where these are fewer than {samples_needed(P99)}.",
    "algbw = bytes on the wire / time, busbw = algbw x 2(n-1)/n; float32 = size / time: size is that of the float32 values, type what goes on the wire.",
    "Every value of every call was checked (#wrong); slowest: the rank with the longest calls.",
)


def render_table(summary: pd.DataFrame) -> str:
    """The rows of `summarize` as text, one block per number of ranks, link and path."""
    blocks = []
    keys = ["world_size", "link_bits_per_second", "path"]
    for (world_size, link, path), rows in summary.groupby(keys, sort=False, dropna=False):
        shaped = "" if pd.isna(link) else f", link {link / 1e6:g} Mbit/s"
        lines = [
            f"# {path}: {world_size} ranks{shaped}",
            HEADER,
            UNITS,
            *(render_row(row) for _, row in rows.iterrows()),
        ]
        good = rows["busbw_bytes_per_second"].dropna()
        if len(good):
            lines.append(f"# Best bus bandwidth: {good.max() / 1e9:.3f} GB/s")
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, "\n".join(f"# {note}" for note in NOTES)])


def render_row(row: pd.Series) -> str:
    """The line of one message size."""
    begin = f" {row['payload_bytes']:>12} {row['payload_bytes'] // 4:>11} {TYPES[row['compression']]:>8} {'avg':>6}"
    if pd.isna(row["p50_seconds"]):
        return f"{begin} {row['status']}: {row['message']}"
    p99 = "-" if pd.isna(row["p99_seconds"]) else f"{1e6 * row['p99_seconds']:.1f}"
    rates = (row[f"{name}_bytes_per_second"] / 1e9 for name in ("algbw", "busbw", "float32"))
    return (
        f"{begin} {1e6 * row['p50_seconds']:>10.1f} {p99:>10} {' '.join(f'{rate:>8.3f}' for rate in rates)} "
        f"{row['wrong_elements']:>7} {row['launches']:>3} {row['slowest_rank']:>8.0f}"
    )
