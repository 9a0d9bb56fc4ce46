"""The Pareto front of points: those that no other beats in validation loss, step time, peak memory and bytes on the wire together.

One point beats another if the one rule shows it to be better in one of these, and it is worse by at most 1 % in each of the others,
as far as the estimates go: what differs by less is no difference (`hvbench.analysis.stats.contrasts`). Points are compared within a framework and a link.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from hvbench.analysis.contrasts.points import contrast_points
from hvbench.analysis.frame.metrics import STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import Row
from hvbench.analysis.stats.contrasts import OF_RATIOS
from hvbench.analysis.topics.throughput.pairs import by_framework, by_link, chosen_axes, describe_point, measured_rows

LOSS, PEAK, WIRE = "final_validation_loss", "peak_rss_bytes", "allreduce_bytes_per_step"
LEAST = OF_RATIOS.least  # of ln(one / other)
NOT_WORSE = f"{100 * math.expm1(LEAST):g}"  # per cent


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What is the better, the less there is of it."""

    column: str
    words: str
    label: str  # of an axis
    scale: float = 1.0  # from the column's unit to the label's
    is_exact: bool = False  # computed: it has no interval


MEASURES = (
    Measure(column=LOSS, words="validation loss", label="validation loss at the end (nats)"),
    Measure(column=STEP, words="step time", label="step (ms)", scale=1e3),
    Measure(column=PEAK, words="peak memory", label="peak memory of a rank (MiB)", scale=2**-20),
    Measure(column=WIRE, words="bytes on the wire", label="sent per step and rank (KiB)", scale=2**-10, is_exact=True),
)


@dataclass(frozen=True, kw_only=True)
class Ways:
    """What a question chooses among: the values of an axis, one of which leaves nothing out."""

    topic: str
    axis: str
    whole: str  # the value with which everything is sent
    words: str  # `ways to adapt`


ADAPT = Ways(topic="adaptation", axis="adaptation", whole="full", words="ways to adapt")
EXCHANGE = Ways(topic="exchange", axis="compression", whole="none", words="ways to exchange")


@dataclass(frozen=True, kw_only=True)
class Front:
    """The points of one framework over one link: those that nothing beats, by their loss, and each of the others with the best of what beats it."""

    framework: str
    link: str  # ` over 200 Mbit/s`; nothing where links do not vary
    rows: tuple[Row, ...]
    beaten: tuple[tuple[Row, Row], ...]


def learned_rows(run: Run) -> list[Row]:
    """The summary's rows of the points that were timed and evaluated."""
    return [row for row in measured_rows(run) if not pd.isna(row[LOSS])]


def measures_of(rows: Sequence[Row]) -> list[Measure]:
    """What these points differ in: nothing is sent by one rank."""
    return [measure for measure in MEASURES if any(row[measure.column] > 0 for row in rows)]


def find_fronts(run: Run) -> list[Front]:
    """One a framework and link, in the order of the tables."""
    return run.derive(_find_fronts)


def _find_fronts(run: Run) -> list[Front]:
    return [
        _find_front(run, framework, link, mine)
        for framework, rows in by_framework(learned_rows(run)).items()
        for link, mine in by_link(run, rows).items()
    ]


def _find_front(run: Run, framework: str, link: str, rows: Sequence[Row]) -> Front:
    ordered = sorted(rows, key=lambda row: row[LOSS])
    against = [_compare(run, ordered, measure) for measure in measures_of(ordered)]

    def beats(one: int, other: int) -> bool:
        logs = [logs[one, other] for logs, _ in against]
        is_shown = any((one, other) in shown for _, shown in against)
        return is_shown and all(log <= LEAST for log in logs)

    places = range(len(ordered))
    winners = {place: [other for other in places if other != place and beats(other, place)] for place in places}
    front = [place for place in places if not winners[place]]
    return Front(
        framework=framework,
        link=link,
        rows=tuple(ordered[place] for place in front),
        beaten=tuple(
            # One of the front, where one of those does it.
            (ordered[place], ordered[min(by, key=lambda other: (other not in front, other))])
            for place, by in winners.items()
            if by
        ),
    )


Logs = dict[tuple[int, int], float]  # (one, other) -> ln(one / other); NaN where they have no round in common


def _compare(run: Run, rows: Sequence[Row], measure: Measure) -> tuple[Logs, set[tuple[int, int]]]:
    """Of all pairs, and the pairs of which the first is shown to have less."""
    pairs = list(combinations(range(len(rows)), 2))
    logs: Logs = {}
    shown: set[tuple[int, int]] = set()
    if measure.is_exact:
        for one, other in pairs:
            a, b = (max(float(rows[place][measure.column]), 1.0) for place in (one, other))
            logs[one, other] = math.log(a / b)
            shown |= {
                pair
                for pair, log in (((one, other), logs[one, other]), ((other, one), -logs[one, other]))
                if log < -LEAST
            }
    elif pairs:
        family = contrast_points(run, [(rows[one], rows[other]) for one, other in pairs], metric=measure.column)
        for (one, other), each in zip(pairs, family.contrasts, strict=True):
            logs[one, other] = math.log(each.contrast.ratio)
            shown |= {(one, other)} if each.is_slower else {(other, one)} if each.is_faster else set()
    return logs | {(other, one): -log for (one, other), log in logs.items()}, shown


def name_way(run: Run, row: Row) -> str:
    """What of a point was chosen, in words: `LoRA`."""
    return describe_point(row, chosen_axes(run))
