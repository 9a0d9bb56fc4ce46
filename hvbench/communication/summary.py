"""Records of all-reduces -> a table with one row per case: times, bandwidths, the slowest rank. Pure.

algbw = bytes on the wire / time and busbw = algbw x 2 (n - 1) / n (nccl-tests, PERFORMANCE.md): with compression, too, they
are rates of what the wire carries. How fast float32 values are all-reduced, whatever goes on the wire, is a column of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import numpy as np
import pandas as pd

from hvbench.analysis.frame.elapsed import slowest_series
from hvbench.analysis.frame.quantiles import P99, tail_quantile
from hvbench.analysis.stats.estimates import estimate_rate
from hvbench.communication.record import AllreduceRecord, Case
from hvbench.spec.compression import WIRE_FORMATS
from hvbench.training.products import allreduce_busbw

COLUMNS = (
    "path", "implementation", "controller", "compression", "world_size", "link_bits_per_second", "payload_bytes",
    "status", "message", "launches", "calls", "p50_seconds", "p50_seconds_low", "p50_seconds_high", "p99_seconds",
    "wire_bytes", "algbw_bytes_per_second", "busbw_bytes_per_second", "float32_bytes_per_second", "wrong_elements", "slowest_rank", "slowest_rank_excess_seconds",
    "ranks_on_host", "cores",
)  # fmt: skip


def seconds_of_calls(record: AllreduceRecord) -> np.ndarray:
    """Seconds [calls] of a launch's calls by its slowest rank, the one whose own add up to most: they add up to what elapsed.

    The calls of version 1 began behind a barrier each, so each has a slowest rank of its own, and the barrier's skew.
    """
    seconds = np.array([rank.call_seconds for rank in record.ranks])
    return seconds.max(axis=0) if record.schema_version == 1 else slowest_series(seconds)


def slowest_rank(records: Iterable[AllreduceRecord]) -> tuple[int, float]:
    """(rank with the longest mean call over all launches, seconds by which that exceeds the median of all ranks)."""
    means = np.array([[np.mean(rank.call_seconds) for rank in record.ranks] for record in records]).mean(axis=0)
    rank = int(means.argmax())
    return rank, float(means[rank] - np.median(means))


def summarize(records: Iterable[AllreduceRecord]) -> pd.DataFrame:
    """One row (COLUMNS) per case, ordered by ranks, link, path and size; times are missing where no launch ended in `ok`."""
    cases: dict[str, list[AllreduceRecord]] = {}
    for record in records:
        cases.setdefault(record.case.case_id, []).append(record)
    ordered = sorted(cases.values(), key=lambda launches: _sort_key(launches[0].case))
    return pd.DataFrame([_summarize_case(launches) for launches in ordered], columns=COLUMNS)


def _sort_key(case: Case) -> tuple[object, ...]:
    """Ranks, link, then implementation, controller and compression in the order in which `Case` declares them."""
    names = ("implementation", "controller", "compression")
    choices = (get_args(Case.model_fields[name].annotation).index(getattr(case, name)) for name in names)
    return (case.world_size, case.link_bits_per_second or 0, *choices, case.payload_bytes)


def _summarize_case(records: list[AllreduceRecord]) -> dict[str, object]:
    case = records[0].case
    good = [record for record in records if record.outcome.status == "ok"]
    bad = next((record for record in records if record.outcome.status != "ok"), None)
    row: dict[str, object] = {
        **case.model_dump(),
        "path": case.path,
        "status": bad.outcome.status if bad else "ok",
        "message": bad.outcome.message if bad else None,
        "launches": len(good),
        "wrong_elements": sum(rank.wrong_elements for record in records for rank in record.ranks),
    }
    if not good:
        return row
    calls = [seconds_of_calls(record) for record in good]
    centre = estimate_rate([float(np.median(seconds)) for seconds in calls])
    wire_bytes = case.payload_bytes // 4 * WIRE_FORMATS[case.compression].value_bytes
    rank, excess = slowest_rank(good)
    return row | {
        "calls": sum(seconds.size for seconds in calls),
        "p50_seconds": centre.centre,
        "p50_seconds_low": centre.low,
        "p50_seconds_high": centre.high,
        "p99_seconds": tail_quantile(np.concatenate(calls), P99),
        "wire_bytes": wire_bytes,
        "algbw_bytes_per_second": wire_bytes / centre.centre,
        "busbw_bytes_per_second": allreduce_busbw(wire_bytes, seconds=centre.centre, world_size=case.world_size),
        "float32_bytes_per_second": case.payload_bytes / centre.centre,
        "slowest_rank": rank,
        "slowest_rank_excess_seconds": excess,
        "ranks_on_host": max(rank.ranks_on_host for rank in good[0].ranks),
        "cores": min(rank.cores for rank in good[0].ranks),
    }
