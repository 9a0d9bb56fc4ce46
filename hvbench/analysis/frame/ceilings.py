"""Ceilings of a launch's ranks -> what utilization is measured against, and what the ranks reach together.

A rank's peak is read anew after its shape was chosen, in several rounds; records of schema 3 and older have the one reading
by which the shape was chosen, which is a little too high.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hvbench.analysis.frame.best import best_by_others
from hvbench.analysis.frame.samples import LaunchSamples
from hvbench.records.record import Ceiling, Record
from hvbench.spec.numerics import GEMM_LIBRARIES
from hvbench.spec.point import AnyPoint

# Where these agree, any framework's products are a peak of the machine; where those differ, they are another candidate.
SAME_RANKS = ("precision", "is_emulated", "world_size", "device", "threads")
LIBRARY = ("framework", "gemm")
# What `read_peaks` reads of a row.
PEAK_COLUMNS = (*SAME_RANKS, *LIBRARY, "launch", "repeat", "generation", "gemm_flops_per_second")

Readings = dict[tuple[Any, ...], dict[int, float]]  # library -> repeat -> FLOP/s


def gemm_flops_per_second(samples: LaunchSamples) -> float | None:
    """Rate of matrix products at their best shape, all ranks together; missing unless every rank measured it."""
    ceilings = [rank.ceiling for rank in samples.record.ranks]
    return None if None in ceilings else sum(map(peak_of, ceilings))


def peak_of(ceiling: Ceiling) -> float:
    """One rank's rate of matrix products while all ranks multiply: the geometric mean of its readings."""
    return geometric_mean(ceiling.together_flops_per_second or [ceiling.gemm_flops_per_second])


def sum_ceilings(samples: LaunchSamples, name: str) -> float | None:
    """One figure of all ranks' ceilings, added up; missing unless every rank measured it."""
    ceilings = [rank.ceiling for rank in samples.record.ranks]
    return None if None in ceilings else sum(getattr(ceiling, name) for ceiling in ceilings)


def ranks_together_ratio(samples: LaunchSamples) -> float | None:
    """Matrix products of all ranks at once / of rank 0 alone, geometric mean over the rounds; missing where none were read."""
    ceilings = [rank.ceiling for rank in sorted(samples.record.ranks, key=lambda rank: rank.rank)]
    if None in ceilings or len(ceilings) < 2:
        return None
    together = zip(*(ceiling.together_flops_per_second for ceiling in ceilings), strict=False)
    rounds = zip(ceilings[0].alone_flops_per_second, together, strict=False)
    ratios = [sum(rates) / alone for alone, rates in rounds]
    return geometric_mean(ratios) if ratios else None


def with_library(record: Record) -> AnyPoint:
    """The point of a launch that names the library of its products, where `gemm` left the choice to the machine."""
    library = record.environment.get("gemm")
    is_known = library in GEMM_LIBRARIES and not record.is_script
    return record.point.model_copy(update={"gemm": library}) if is_known else record.point


def compare_with_machine(rows: Sequence[dict[str, Any]]) -> None:
    """Add MFU against the best products that any framework showed at the same precision on ranks of the same kind.

    Which library is best is chosen by the launches of other repeats (`best_by_others`); a launch is held against the reading
    of its own repeat, so that what the machine did then moves both.
    """
    of_repeat = {kind: best_by_others(readings) for kind, readings in read_peaks(rows).items()}
    of_any = {kind: geometric_mean(list(best.values())) for kind, best in of_repeat.items()}
    for row in rows:
        kind = kind_of_ranks(row)
        if kind in of_repeat and row.get("model_flops_per_second"):
            peak = of_repeat[kind].get(row["repeat"], of_any[kind])
            row["model_flops_utilization_of_machine"] = row["model_flops_per_second"] / peak


def kind_of_ranks(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a launch has in common with those whose peaks it is held against."""
    return tuple(row.get(name) for name in SAME_RANKS)


def read_peaks(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], Readings]:
    """Launches -> kind of ranks -> each library's peak in each repeat, the geometric mean over the sets of workers."""
    found: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[int, dict[Any, list[float]]]]] = {}
    for row in rows:
        rate = row.get("gemm_flops_per_second")
        if rate is None or pd.isna(rate):
            continue
        # One set of workers reads a peak once, for however many of its launches; one without a number is its own.
        workers = ("launch", row["launch"]) if pd.isna(row["generation"]) else row["generation"]
        library = tuple(row[name] for name in LIBRARY)
        repeats = found.setdefault(kind_of_ranks(row), {}).setdefault(library, {})
        repeats.setdefault(row["repeat"], {}).setdefault(workers, []).append(rate)
    return {
        kind: {
            library: {
                repeat: geometric_mean([geometric_mean(rates) for rates in by_workers.values()])
                for repeat, by_workers in repeats.items()
            }
            for library, repeats in libraries.items()
        }
        for kind, libraries in found.items()
    }


def geometric_mean(values: Sequence[float]) -> float:
    """Of values above 0; exactly the value where there is one."""
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if len(values) > 1 else values[0]
