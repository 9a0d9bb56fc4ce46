"""Which configuration is the fastest, in sentences: of all where the frameworks may be compared, else of each framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import Row
from hvbench.analysis.show.sentences import RATE, Draft, Sentence
from hvbench.analysis.stats.estimates import read_estimate
from hvbench.analysis.topics.parity.stamps import are_comparable
from hvbench.analysis.topics.throughput.pairs import (
    asked_rows,
    by_framework,
    describe_point,
    label_of,
    measured_rows,
    pick_best,
)

NAME = "fastest"


@dataclass(frozen=True, kw_only=True)
class Best:
    """The highest rate of some points: its row, the rows that it is faster than beyond both intervals, and of how many."""

    row: Row
    beaten: Sequence[Row]
    others: int

    @property
    def is_proven(self) -> bool:
        """Whether it is faster than all others."""
        return len(self.beaten) == self.others


def find_best(rows: Sequence[Row]) -> Best:
    """The highest rate among measured rows of the summary."""
    row, beaten = pick_best(rows)
    return Best(row=row, beaten=beaten, others=len(rows) - 1)


def describe_fastest(run: Run) -> list[Sentence]:
    """The fastest point of all where the frameworks may be compared, else of each framework."""
    measured, axes, comparable = measured_rows(run), run.other_axes, are_comparable(run)
    groups = list(by_framework(measured).values())
    lost = {name: sum(pd.isna(row[RATE]) for row in rows) for name, rows in by_framework(asked_rows(run)).items()}
    each = [describe_best(rows, axes=axes, name=label_of(rows[0]), lost=lost[rows[0]["framework"]]) for rows in groups]
    if not axes:
        return [] if comparable else each
    if any(read_estimate(row, RATE).low is None for row in measured):
        return [describe_single_launches(measured, lost=sum(lost.values()))]
    found = [find_best(rows) for rows in groups]
    if len(found) > 1 and are_same_point(found, axes):
        return [describe_shared_best(found, axes=axes, lost=sum(lost.values()))]
    if comparable:
        return [describe_best(measured, axes=axes, name="", lost=sum(lost.values()))]
    return each


def are_same_point(found: Sequence[Best], axes: Sequence[str]) -> bool:
    """Whether the same configuration is provably the fastest of every framework."""
    return all(best.is_proven for best in found) and len({describe_point(best.row, axes) for best in found}) == 1


def describe_lost_points(draft: Draft, lost: int) -> str:
    """`; 2 more had no launch that ended in ok`, of points that were tried; nothing where all were measured."""
    return f"; {draft.count(lost)} more had no launch that ended in ok" if lost else ""


def describe_shared_best(found: Sequence[Best], *, axes: Sequence[str], lost: int) -> Sentence:
    """One sentence for a configuration that is the fastest of every framework; `lost` points could not be measured."""
    draft = Draft()
    where = draft.label(describe_point(found[0].row, axes))
    rates = []
    for best in found:
        rates.append(f"{label_of(best.row)} {draft.estimate(best.row)}")
        for loser in best.beaten:
            draft.claim(best.row, loser)
    counts = sorted({best.others + 1 for best in found})
    of = " and ".join(draft.count(count) for count in counts)
    frameworks = draft.all_of(len(found), "frameworks")
    text = f"{where} is the fastest of the {of} configurations in {frameworks}: {', '.join(rates)}"
    return draft.finish(NAME, f"{text}{describe_lost_points(draft, lost)}.")


def describe_best(rows: Sequence[Row], *, axes: Sequence[str], name: str, lost: int) -> Sentence:
    """The fastest of `rows`: one framework's (`name` is its label), or all; `lost` points could not be measured."""
    draft, best = Draft(), find_best(rows)
    label, where = label_of(best.row), draft.label(describe_point(best.row, axes))
    rate = draft.estimate(best.row)
    if not best.others:
        text = f"{label} trains at {rate}"
    elif read_estimate(best.row, RATE).low is None:
        text = f"{label} ran at {rate} with {where}: a single launch, so nothing is ranked"
    else:
        text = _rank(draft, best, subject=f"{label} with {where}" if where else label, rate=rate, name=name)
    return draft.finish(NAME, f"{text}{describe_lost_points(draft, lost)}.")


def _rank(draft: Draft, best: Best, *, subject: str, rate: str, name: str) -> str:
    """How much of the others the best one is faster than."""
    for row in best.beaten:
        draft.claim(best.row, row)
    points = best.others + 1
    whole = f"{name}'s {draft.count(points)} configurations" if name else draft.all_of(points, "points")
    if best.is_proven:
        return f"{subject} is the fastest of {whole}: {rate}"
    if not best.beaten:
        return (
            f"No point is shown to be the fastest of {whole}: {subject} has the highest measured rate, {rate}, "
            "and that interval overlaps with all others"
        )
    beaten, rest = draft.count(len(best.beaten)), draft.count(best.others - len(best.beaten))
    return (
        f"{subject} has the highest measured rate of {whole}, {rate}; that interval lies above those of {beaten} "
        f"others, and the remaining {rest} cannot be told from it"
    )


def describe_single_launches(measured: Sequence[Row], *, lost: int) -> Sentence:
    """What can be said where some point was launched once: no order. `lost` points could not be measured."""
    draft = Draft()
    slow, fast = (extreme(measured, key=lambda row: float(row[RATE])) for extreme in (min, max))
    once = sum(1 for row in measured if row["launches_ok"] == 1)
    whole = "every point" if once == len(measured) else f"{draft.count(once)} of {draft.count(len(measured))} points"
    low, high = (draft.number(row[RATE], "centre", row) for row in (slow, fast))
    span = f"between {low} and {high} tokens/s were measured" if len(measured) > 1 else f"{high} tokens/s were measured"
    return draft.finish(
        NAME,
        f"No configuration is called the fastest: {span}, but {whole} ended in ok once only, and one launch says "
        f"nothing about chance{describe_lost_points(draft, lost)}.",
    )
