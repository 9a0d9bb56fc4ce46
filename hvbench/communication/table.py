"""The table of all-reduces in the format of nccl-tests: one block per path, one line per message size."""

from __future__ import annotations

import pandas as pd

HEADER = (
    f"#{'size':>12} {'count':>11} {'type':>6} {'redop':>6} {'time':>10} {'p99':>10} {'algbw':>8} {'busbw':>8} "
    f"{'#wrong':>7} {'n':>3} {'slowest':>8}"
)
UNITS = (
    f"#{'(B)':>12} {'(elements)':>11} {'':>6} {'':>6} {'(us)':>10} {'(us)':>10} {'(GB/s)':>8} {'(GB/s)':>8} "
    f"{'':>7} {'':>3} {'(rank)':>8}"
)
NOTES = (
    "time: median over a launch's calls of the slowest rank's seconds, geometric mean over n launches; p99 over all calls.",
    "algbw = size / time, busbw = algbw x 2(n-1)/n with the size of the float32 values: compression can lift busbw above the wire's.",
    "Every value of every call was checked (#wrong); slowest: the rank with the largest median.",
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
    begin = f" {row['payload_bytes']:>12} {row['payload_bytes'] // 4:>11} {'float':>6} {'avg':>6}"
    if pd.isna(row["p50_seconds"]):
        return f"{begin} {row['status']}: {row['message']}"
    return (
        f"{begin} {1e6 * row['p50_seconds']:>10.1f} {1e6 * row['p99_seconds']:>10.1f} "
        f"{row['algbw_bytes_per_second'] / 1e9:>8.3f} {row['busbw_bytes_per_second'] / 1e9:>8.3f} "
        f"{row['wrong_elements']:>7} {row['launches']:>3} {row['slowest_rank']:>8.0f}"
    )
