"""What each further rank brings, in sentences: tokens/s of more ranks against fewer, by the one rule."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hvbench.analysis.contrasts.points import PointFamily, contrast_points
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, Row
from hvbench.analysis.show.effects import (
    PAIRS,
    Sides,
    describe_family,
    describe_price,
    main_contrast,
    say_judged,
    say_rounds,
)
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.stats.contrasts import Call
from hvbench.analysis.topics.questions import was_launched_once
from hvbench.analysis.topics.scaling.efficiency import find_base, group_bases
from hvbench.analysis.topics.throughput.pairs import describe_point, label_of, measured_rows

NAME = "scaling"


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Points of `more` ranks against those of `fewer` that share the batch of a rank (weak) or of a step (strong)."""

    kind: str
    fewer: int
    more: int
    family: PointFamily

    def share(self, ratio: float) -> float:
        """What each further rank brings, in per cent of what each rank before does."""
        return 100 * (ratio - 1) * self.fewer / (self.more - self.fewer)


def find_growth(run: Run, kind: str) -> list[Growth]:
    """Each number of ranks against the next smaller one that was run, over all frameworks and configurations."""
    rows = {str(row["point_id"]): row for row in measured_rows(run) if row["world_size"] == row["world_size"]}
    worlds = sorted({int(row["world_size"]) for row in rows.values()})
    found = []
    for fewer, more in pairwise(worlds):
        bases = group_bases(rows, kind=kind, baseline=fewer)
        pairs: list[tuple[Row, Row]] = []
        for row in rows.values():
            base = find_base(row, rows, bases=bases, kind=kind, baseline=fewer) if row["world_size"] == more else None
            if base is not None:
                pairs.append((row, rows[base]))
        if pairs:
            found.append(Growth(kind=kind, fewer=fewer, more=more, family=contrast_points(run, pairs)))
    return found


def describe_scaling(run: Run) -> list[Sentence]:
    """What each further rank brings at the same batch per rank, then what the ranks make of the same global batch."""
    if was_launched_once(run) or run.was_evaluated:
        return []
    weak, strong = find_growth(run, "weak"), find_growth(run, "strong")
    sentences = []
    if weak:
        draft = Draft()
        text = "; ".join(_describe_rank(draft, run, growth) for growth in weak)
        still_open = [growth.family for growth in weak if _is_open(growth.family)]
        price = describe_price(run, still_open[0]) if still_open else None
        sentences.append(draft.finish(NAME, f"{text}.", is_open=len(still_open) == len(weak), price=price))
    for growth in strong:
        draft = Draft()
        sides = Sides(
            one=f"a global batch shared by {draft.count(growth.more)} ranks",
            other=f"by {draft.count(growth.fewer)}",
            things=PAIRS,
        )
        clause = describe_family(draft, growth.family, sides)
        sentences.append(draft.finish(NAME, f"{clause.text}.", strength=clause.strength, is_open=clause.is_open))
    return sentences


def _is_open(family: PointFamily) -> bool:
    contrast = main_contrast(family)
    return contrast is None or contrast.call is Call.OPEN


def _describe_rank(draft: Draft, run: Run, growth: Growth) -> str:
    """`the second rank brings 52 % of what the first does (interval, rounds; PyTorch 50 %, TensorFlow 54 %)`."""
    family, contrast = growth.family, main_contrast(growth.family)
    kind = "effect" if growth.more == 2 * growth.fewer else "share"
    each = f"; {', '.join(_list_shares(draft, run, growth, kind))}" if len(family.contrasts) > 1 else ""
    if growth.more == growth.fewer + 1 == 2:
        ranks, brings, of_what = "the second rank", "brings", "of what the first does"
    else:
        first, last = draft.count(growth.fewer + 1), draft.count(growth.more)
        is_one = growth.more == growth.fewer + 1
        ranks, brings = (f"rank {last}", "brings") if is_one else (f"ranks {first} to {last}", "bring")
        of_what = "each of what each rank before does"
    if contrast is None:
        rounds = say_rounds(draft, max(pair.contrast.rounds for pair in family.contrasts))
        return f"{rounds} cannot say what {ranks} {brings} over all configurations (alone{each.replace('; ', ': ', 1)})"
    judged = say_judged(family, None if family.mean else 0)
    draft.judged.append(judged)
    centre, *ends = (
        draft.figure(growth.share(ratio), name, judged, text=f"{growth.share(ratio):.0f}")
        for name, ratio in ((kind, contrast.ratio), (f"{kind}_low", contrast.low), (f"{kind}_high", contrast.high))
        if ratio is not None
    )
    interval = f"{INTERVAL} {' to '.join(ends)} %, " if ends else ""
    return f"{ranks} {brings} {centre} % {of_what} ({interval}{say_rounds(draft, contrast.rounds)}{each})"


def _list_shares(draft: Draft, run: Run, growth: Growth, kind: str) -> list[str]:
    """`PyTorch 50 %`, or `PyTorch with micro-batch 8 50 %` where a framework has several."""
    contrasts = growth.family.contrasts
    axes = [axis for axis in run.other_axes if axis != "world_size"]
    shown = []
    for place, pair in enumerate(contrasts):
        value = growth.share(pair.contrast.ratio)
        where = describe_point(pair.one, axes) if len(contrasts) > 2 else ""
        name = label_of(pair.one) + (f" with {draft.label(where)}" if where else "")
        shown.append(f"{name} {draft.figure(value, kind, say_judged(growth.family, place), text=f'{value:.0f}')} %")
    return shown
