"""Two points -> which is faster, and the words for it: the one rule by which a report calls a point faster than another.

A sentence says that one point is faster than another only where their intervals do not overlap; where they overlap, or
where one launch has no interval, it says so or nothing. Every number in a sentence is kept beside it with the metric
and the points that it comes from, and every `faster than` as a claim, so that both can be checked against the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hvbench.analysis.frame.axes import AXES
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import Row
from hvbench.analysis.show.panels import STYLES, describe_value
from hvbench.analysis.show.sentences import RATE, Draft, Sentence
from hvbench.analysis.stats.estimates import read_estimate, summary_rows


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two points that differ in one axis: tokens per second of `one` / `other`, and its range by the intervals' ends.

    The range leaves out 1 exactly where the two intervals do not overlap, which happens by chance in fewer than one of
    a hundred comparisons (see the tests). It is None where a point was launched once.
    """

    one: Row
    other: Row
    ratio: float
    low: float | None
    high: float | None

    @property
    def is_faster(self) -> bool:
        """Whether `one` is faster than `other` beyond both intervals."""
        return self.low is not None and self.low > 1.0

    @property
    def is_slower(self) -> bool:
        """Whether `one` is slower than `other` beyond both intervals."""
        return self.high is not None and self.high < 1.0

    def turned(self) -> Pair:
        """`other` compared with `one`."""
        low, high = (None if end is None else 1.0 / end for end in (self.high, self.low))
        return Pair(one=self.other, other=self.one, ratio=1.0 / self.ratio, low=low, high=high)


def measured_rows(run: Run) -> list[Row]:
    """The summary's rows of the points whose speed was measured, in table order."""
    return [row for row in summary_rows(run) if not pd.isna(row[RATE])]


def by_framework(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Framework -> its rows, in the order of the rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["framework"], []).append(row)
    return found


def compare_values(rows: Sequence[Row], axis: str, one: object, other: object) -> list[Pair]:
    """Pairs of measured points that differ in nothing but `axis`: `one` against `other`, in table order."""
    names = [name for name in AXES if name != axis]
    found: dict[tuple, dict[object, Row]] = {}
    for row in rows:
        if not pd.isna(row[RATE]) and row[axis] in (one, other):
            key = tuple(None if pd.isna(row[name]) else row[name] for name in names)
            found.setdefault(key, {})[row[axis]] = row
    return [make_pair(pair[one], pair[other]) for pair in found.values() if len(pair) == 2]


def asked_rows(run: Run) -> list[Row]:
    """The summary's rows of all points that were tried, also of those of which no launch ended in `ok`."""
    return [row for row in summary_rows(run) if row["status"] != "skipped"]


def count_unmeasured(rows: Sequence[Row], axis: str, one: object, other: object) -> int:
    """How many pairs of tried points differ in nothing but `axis` and cannot be compared, for one has no speed."""
    names = [name for name in AXES if name != axis]
    found: dict[tuple, list[Row]] = {}
    for row in rows:
        if row[axis] in (one, other):
            found.setdefault(tuple(None if pd.isna(row[name]) else row[name] for name in names), []).append(row)
    return sum(len(pair) == 2 and any(pd.isna(row[RATE]) for row in pair) for pair in found.values())


def make_pair(one: Row, other: Row) -> Pair:
    """The comparison of two measured rows of `summarize_launches`."""
    a, b = read_estimate(one, RATE), read_estimate(other, RATE)
    assert a is not None and b is not None
    low = None if a.low is None or b.high is None else a.low / b.high
    high = None if a.high is None or b.low is None else a.high / b.low
    return Pair(one=one, other=other, ratio=a.centre / b.centre, low=low, high=high)


def describe_point(row: Row, axes: Sequence[str]) -> str:
    """The axes that vary, in words, such as `micro-batch 8, bf16 (emulated)`; nothing where none does."""
    emulated = frozenset({row["precision"]} if row["is_emulated"] else ())
    return ", ".join(describe_value(axis, row[axis], emulated=emulated) for axis in axes)


def pick_best(rows: Sequence[Row]) -> tuple[Row, list[Row]]:
    """The row with the highest rate, and the rows that it is faster than beyond both intervals."""
    best = max(rows, key=lambda row: row[RATE])
    return best, [row for row in rows if row is not best and make_pair(best, row).is_faster]


def describe_contrast(
    topic: str, pairs: list[Pair], *, labels: tuple[str, str], things: str, differ: str = "", unmeasured: int = 0
) -> Sentence | None:
    """`A is faster than B in 5 of 8 pairs, by a factor of 1.2 to 1.8`; None where every pair's intervals overlap.

    `unmeasured`: pairs that cannot be compared, for no launch of one side ended in `ok`; they are counted and named.
    """
    draft = Draft()
    up, down = [pair for pair in pairs if pair.is_faster], [pair.turned() for pair in pairs if pair.is_slower]
    if not up and not down:
        return None
    one, other = (draft.label(label) for label in labels)
    if len(down) > len(up):
        up, down, one, other = down, up, other, one
    for pair in [*up, *down]:
        draft.claim(pair.one, pair.other)
    strength = sum(abs(float(np.log(pair.ratio))) for pair in [*up, *down]) / len(pairs)
    if len(pairs) == 1 and not unmeasured:
        return draft.finish(
            topic, f"{one} is faster than {other}{differ}, by {describe_factor(draft, up)}.", strength=strength
        )
    where = draft.part_of(len(up), len(pairs) + unmeasured, things)
    parts = [f"{one} is faster than {other}{differ} in {where}, by {describe_factor(draft, up)}"]
    if down:
        parts.append(f"it is slower in {draft.count(len(down))}, by {describe_factor(draft, down)}")
    if rest := len(pairs) - len(up) - len(down):
        others = "" if down or unmeasured else "the other "
        parts.append(f"{others}{draft.count(rest)} cannot be told apart")
    if unmeasured:
        parts.append(f"{draft.count(unmeasured)} cannot be compared, since no launch of one side ended in ok")
    return draft.finish(topic, f"{'; '.join(parts)}.", strength=strength)


def describe_factor(draft: Draft, pairs: list[Pair]) -> str:
    """`a factor of 1.21 to 1.75 (by their intervals at least 1.10)`."""
    span = draft.span([(pair.ratio, (pair.one, pair.other)) for pair in pairs], "ratio")
    least = min(pairs, key=lambda pair: pair.low or 0.0)
    at_least = draft.number(least.low or 0.0, "ratio_low", least.one, least.other)
    return f"a factor of {span} (by their intervals at least {at_least})"


def label_of(row: Row) -> str:
    """The name of a row's framework."""
    return STYLES[row["framework"]].label
