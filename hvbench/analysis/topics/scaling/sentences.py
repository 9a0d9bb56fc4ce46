"""What each further rank brings, in sentences: tokens/s of more ranks against fewer, by the one rule."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hvbench.analysis.contrasts.points import PointFamily, contrast_points
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, Row
from hvbench.analysis.show.effects import PAIRS, Sides, describe_family, describe_price, say_judged, say_rounds
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.stats.contrasts import Call, Contrast
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
        is_open = all(_main(growth).call is Call.OPEN for growth in weak)
        still_open = next((growth.family for growth in weak if _main(growth).call is Call.OPEN), None)
        price = describe_price(run, still_open) if still_open else None
        sentences.append(draft.finish(NAME, f"{text}.", is_open=is_open, price=price))
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


def _main(growth: Growth) -> Contrast:
    family = growth.family
    return family.mean or family.contrasts[0].contrast


def _describe_rank(draft: Draft, run: Run, growth: Growth) -> str:
    """`the second rank brings 52 % of what the first does (interval, rounds; PyTorch 50 %, TensorFlow 54 %)`."""
    contrast, family = _main(growth), growth.family
    judged = say_judged(family, None if family.mean else 0)
    draft.judged.append(judged)
    kind = "effect" if growth.more == 2 * growth.fewer else "share"
    show = "{:.0f}".format
    centre, *ends = (
        draft.figure(growth.share(ratio), name, judged, text=show(growth.share(ratio)))
        for name, ratio in (
            (kind, contrast.ratio),
            (f"{kind}_low", contrast.low),
            (f"{kind}_high", contrast.high),
        )
        if ratio is not None
    )
    if growth.more == growth.fewer + 1 == 2:
        text = f"the second rank brings {centre} % of what the first does"
    else:
        first, last = draft.count(growth.fewer + 1), draft.count(growth.more)
        ranks = f"rank {last} brings" if growth.more == growth.fewer + 1 else f"ranks {first} to {last} bring"
        text = f"{ranks} {centre} % each of what each rank before does"
    interval = f"{INTERVAL} {' to '.join(ends)} %, " if ends else ""
    figures = f"{interval}{say_rounds(draft, contrast.rounds)}"
    if len(family.contrasts) > 1:
        axes = [axis for axis in run.other_axes if axis != "world_size"]
        each = []
        for place, pair in enumerate(family.contrasts):
            value = growth.share(pair.contrast.ratio)
            where = describe_point(pair.one, axes) if len(family.contrasts) > 2 else ""
            name = label_of(pair.one) + (f" with {draft.label(where)}" if where else "")
            each.append(f"{name} {draft.figure(value, kind, say_judged(family, place), text=show(value))} %")
        figures += f"; {', '.join(each)}"
    return f"{text} ({figures})"
