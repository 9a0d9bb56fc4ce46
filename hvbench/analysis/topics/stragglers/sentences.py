"""Which rank is slower than the others, as the one rule calls it, and how long they wait for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, format_percent
from hvbench.analysis.show.panels import describe_value
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.stats.contrasts import Call, Contrast, judge_family, rows_by_round
from hvbench.analysis.stats.estimates import Estimate, estimate_mean
from hvbench.analysis.topics.stragglers.work import RankWork, measure_launches
from hvbench.records.record import Record

NAME = "stragglers"
LEAST_IDLE_SHARE = 0.01  # of the other ranks' steps: less is not worth a sentence


@dataclass(frozen=True, kw_only=True)
class Straggler:
    """The rank whose own work takes longest, in launches of one `straggler_seconds`, against the mean of the others'."""

    rank: int
    contrast: Contrast  # own work of the rank / geometric mean of the others'
    idle_share: Estimate  # of the other ranks' steps, mean over them
    delay_seconds: float  # the `straggler_seconds` of these launches
    point_ids: tuple[str, ...]


def find_stragglers(run: Run) -> list[Straggler]:
    """One where launches have a rank that the one rule calls slower than the others, by number of ranks and `straggler_seconds`; a launch is a round.

    Of two ranks one contrast says all; of more each has its own, corrected together.
    """
    works = run.derive(measure_launches)
    groups: dict[tuple[int, float], list[Record]] = {}
    for record in run.records:
        if record.key in works:
            groups.setdefault((len(record.ranks), record.point.straggler_seconds), []).append(record)
    return [found for records in groups.values() if (found := _find_straggler(records, works))]


def _find_straggler(records: Sequence[Record], works: dict[str, list[RankWork]]) -> Straggler | None:
    world_size = len(records[0].ranks)
    tested = range(world_size) if world_size > 2 else [1]
    logs = [{record.key: _excess(works[record.key], rank) for record in records} for rank in tested]
    contrasts = dict(zip(tested, judge_family(rows_by_round(logs), has_mean=False).contrasts, strict=True))
    if world_size == 2:
        contrasts[0] = contrasts[1].turned()
    rank = max(contrasts, key=lambda each: contrasts[each].ratio)
    if contrasts[rank].call is not Call.FASTER:  # of a duration: the longer one
        return None
    others = [
        float(np.mean([work.idle_share for other, work in enumerate(works[record.key]) if other != rank]))
        for record in records
    ]
    ids = tuple(dict.fromkeys(record.point_id for record in records))
    return Straggler(
        rank=rank,
        contrast=contrasts[rank],
        idle_share=estimate_mean(others),
        delay_seconds=records[0].point.straggler_seconds,
        point_ids=ids,
    )


def _excess(works: Sequence[RankWork], rank: int) -> float:
    """ln(own work of `rank` / geometric mean of the other ranks')."""
    logs = [math.log(max(work.own_seconds, 1e-9)) for work in works]
    return logs[rank] - (sum(logs) - logs[rank]) / (len(logs) - 1)


def describe_stragglers(run: Run) -> list[Sentence]:
    """Which rank the others wait for, and how long; nothing where no rank is slower than the others."""
    found = [each for each in run.derive(find_stragglers) if each.idle_share.centre >= LEAST_IDLE_SHARE]
    return [describe_straggler(each) for each in found]


def describe_straggler(found: Straggler) -> Sentence:
    """`Rank 1 is the straggler: …`, with the delay that it was given, if it was."""
    draft, contrast = Draft(), found.contrast
    rows = [{"point_id": point_id} for point_id in found.point_ids]
    ends = [(contrast.low, "work_low"), (contrast.high, "work_high")]
    low, high = (None if end is None else _quote(draft, end - 1, kind, rows) for end, kind in ends)
    sure = f" ({INTERVAL} {low} to {high} %, {draft.count(contrast.rounds)} launches)" if low and high else ""
    given = (
        f" with {draft.label(describe_value('straggler_seconds', found.delay_seconds, emulated=frozenset()))}"
        if found.delay_seconds
        else ""
    )
    text = (
        f"{draft.label(f'rank {found.rank}')} is the straggler{given}: its own work takes {_quote(draft, contrast.ratio - 1, 'work', rows)} % "
        f"longer than the others'{sure}, and they stand idle for {_quote(draft, found.idle_share.centre, 'idle', rows)} % of their steps."
    )
    return draft.finish(NAME, text, strength=abs(math.log(contrast.ratio)))


def _quote(draft: Draft, share: float, kind: str, rows: Sequence[dict[str, str]]) -> str:
    return draft.quote(format_percent(share), 100 * share, kind, *rows)
