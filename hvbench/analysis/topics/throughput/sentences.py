"""Which configuration is the fastest, in sentences: of all where the frameworks may be compared, else of each framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from hvbench.analysis.contrasts.points import PointContrast, PointFamily, contrast_best
from hvbench.analysis.frame.metrics import STEP, STEPS, TOKENS
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import Row
from hvbench.analysis.show.effects import (
    describe_price,
    say_effect,
    say_judged,
    say_limit,
    say_range,
    say_rounds,
    words_of,
)
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.stats.contrasts import EQUAL_WITHIN, Call
from hvbench.analysis.topics.frameworks import contrast_frameworks
from hvbench.analysis.topics.parity.stamps import are_comparable
from hvbench.analysis.topics.questions import was_launched_once
from hvbench.analysis.topics.throughput.pairs import (
    asked_rows,
    by_framework,
    describe_point,
    label_of,
    measured_rows,
    name_point,
)

NAME = "fastest"


@dataclass(frozen=True, kw_only=True)
class Best:
    """The highest rate of some points, its contrasts with the others, and which of these are called what."""

    row: Row
    family: PointFamily
    twins: Mapping[str, tuple[PointFamily, int]]  # what `find_beaten_twins` found

    def called(self, call: Call) -> list[PointContrast]:
        """The contrasts that are called so."""
        return [each for each in self.family.contrasts if each.contrast.call is call]

    def is_shown(self, each: PointContrast) -> bool:
        """Whether it is faster than the other one of a contrast, by this family or by the frameworks'."""
        return each.is_faster or each.other["point_id"] in self.twins

    @property
    def is_proven(self) -> bool:
        """Whether it is faster than all others."""
        return all(each.is_faster for each in self.family.contrasts)

    @property
    def next(self) -> PointContrast:
        """The contrast with the point that comes closest."""
        return min(self.family.contrasts, key=lambda each: each.contrast.ratio)


def find_best(run: Run, rows: Sequence[Row]) -> Best:
    """The highest rate among measured rows of the summary."""
    family = contrast_best(run, rows)
    row = family.contrasts[0].one if family.contrasts else rows[0]
    return Best(row=row, family=family, twins=find_beaten_twins(run, family))


def find_beaten_twins(run: Run, best: PointFamily) -> dict[str, tuple[PointFamily, int]]:
    """Point id -> where the frameworks' own family says that the best is faster than it, of those of which its family cannot.

    In that family are fewer contrasts, of launches at the same configuration that ran side by side.
    """
    undecided = {(each.one["point_id"], each.other["point_id"]) for each in best.contrasts if not each.is_faster}
    families = [family for rivals in contrast_frameworks(run) for family in (rivals.family, rivals.family.turned())]
    return {
        each.other["point_id"]: (family, which)
        for family in families
        for which, each in enumerate(family.contrasts)
        if each.is_faster and (each.one["point_id"], each.other["point_id"]) in undecided
    }


def describe_fastest(run: Run) -> list[Sentence]:
    """The fastest point of all where the frameworks may be compared, else of each framework."""
    measured, axes = measured_rows(run), run.other_axes
    comparable = are_comparable(run)
    if was_launched_once(run) or run.was_evaluated or (comparable and not axes):
        return []
    groups = by_framework(measured)
    lost = {name: sum(pd.isna(row[STEP]) for row in rows) for name, rows in by_framework(asked_rows(run)).items()}
    if comparable:
        return [describe_best(run, measured, name="", lost=sum(lost.values()))]
    # What is a script's alone needs no name for the whole of it.
    names = {name: "" if run.is_of_scripts else label_of(rows[0]) for name, rows in groups.items()}
    return [describe_best(run, rows, name=names[name], lost=lost[name]) for name, rows in groups.items()]


def describe_best(run: Run, rows: Sequence[Row], *, name: str, lost: int) -> Sentence:
    """The fastest of `rows`: one framework's (`name` is its label), or all; `lost` points could not be measured."""
    draft, axes = Draft(), run.other_axes
    behind = f"; {draft.count(lost)} more had no launch that ended in ok" if lost else ""
    speed = run.speed
    if len(rows) == 1:
        return draft.finish(NAME, f"{describe_only(draft, run, rows[0])}{behind}.")
    best = find_best(run, rows)
    subject = draft.label(name_point(best.row, axes))
    fastest = "trains fastest, at" if speed is TOKENS else "has the shortest step time,"
    if best.is_proven:
        text = f"{subject} {fastest} {draft.speed(best.row, speed, is_named=True)}: {describe_lead(draft, best, name=lambda row: name_other(run, row))}"
        return draft.finish(NAME, f"{text}{behind}.")
    rest = [each for each in best.family.contrasts if not best.is_shown(each)]
    verb = fastest
    if rest:
        whole = f"{name}'s {draft.count(len(rows))} points" if name else draft.all_of(len(rows), "points")
        verb = f"has the {'highest rate' if speed is TOKENS else 'shortest step time'} of {whole},"
    text = f"{subject} {verb} {draft.speed(best.row, speed, is_named=True)}: {describe_rivals(draft, best, name=lambda row: name_other(run, row))}"
    is_open = not best.called(Call.FASTER)
    price = describe_price(run, best.family) if any(each.contrast.call is Call.OPEN for each in rest) else None
    return draft.finish(NAME, f"{text}{behind}.", is_open=is_open, price=price)


def name_other(run: Run, row: Row) -> str:
    """A point beside the best; the name of the one script has been said."""
    return (run.is_of_scripts and describe_point(row, run.other_axes)) or name_point(row, run.other_axes)


def describe_only(draft: Draft, run: Run, row: Row) -> str:
    """`PyTorch trains at 2,213 tokens/s (...)`; of a script what a step takes, and its tokens/s where it says them."""
    name = draft.label(name_point(row, run.other_axes))
    if not run.is_of_scripts:
        return f"{name} trains at {draft.estimate(row)}"
    rate = f", which is {draft.estimate(row)}" if run.speed is TOKENS else ""
    return f"{name} takes {draft.speed(row, STEPS)}{rate}"


def describe_lead(draft: Draft, best: Best, *, name: Callable[[Row], str]) -> str:
    """`4.1 % faster than the next, NAME (interval), and 12 to 40 % than the other 8`: of the best that is faster than all."""
    closest, contrasts = best.next, best.family.contrasts
    which = contrasts.index(closest)
    draft.judged.extend(say_judged(best.family, i, is_best=True) for i in range(len(contrasts)) if i != which)
    rival = draft.label(name(closest.other))
    what = f"the next, {rival}" if len(contrasts) > 1 else rival
    effect, interval = say_effect(draft, best.family, which, words=words_of(best.family), other=what, is_best=True)
    text = f"{effect} ({interval})"
    if others := [each for each in contrasts if each is not closest]:
        spread = say_range(draft, others, best.family, is_larger=True, is_best=True)
        text += f", and faster than the other {draft.count(len(others))} by {spread}"
    return text


def describe_rivals(draft: Draft, best: Best, *, name: Callable[[Row], str]) -> str:
    """`faster than 6 of the others, by 8 to 40 %, within 3 % of 1; 5 rounds cannot say it of 2`, of a best that is not shown to be it."""
    contrasts = best.family.contrasts
    faster = best.called(Call.FASTER)
    equal = [each for each in best.called(Call.EQUAL) if not best.is_shown(each)]
    rest = [each for each in contrasts if each not in equal and not best.is_shown(each)]
    draft.judged.extend(
        say_judged(best.family, i, is_best=True) for i, each in enumerate(contrasts) if each in (*faster, *equal)
    )
    rounds, parts = max(each.contrast.rounds for each in contrasts), []
    if len(faster) == 1:
        other = draft.label(name(faster[0].other))
        which = contrasts.index(faster[0])
        effect, interval = say_effect(draft, best.family, which, words=words_of(best.family), other=other, is_best=True)
        parts.append(f"{effect} ({interval})")
    elif faster:
        spread = say_range(draft, faster, best.family, is_larger=True, is_best=True)
        parts.append(f"faster than {draft.count(len(faster))} of the others, by {spread} ({say_rounds(draft, rounds)})")
    for family, which in best.twins.values():
        other = label_of(family.contrasts[which].other)
        effect, interval = say_effect(draft, family, which, words=words_of(family), other=other)
        parts.append(f"{effect} at the same configuration ({interval})")
    if equal:
        whom = draft.label(name(equal[0].other)) if len(equal) == 1 else draft.count(len(equal))
        parts.append(f"within {say_limit(draft, EQUAL_WITHIN)} % of {whom}")
    if rest:
        if len(rest) == 1:
            whom = draft.label(name(rest[0].other))
        else:
            whom = f"{'the' if parts else 'any of the'} other {draft.count(len(rest))}"
        parts.append(f"{say_rounds(draft, rounds)} cannot say whether it is faster than {whom}")
    return ", ".join(parts)
