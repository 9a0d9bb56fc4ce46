"""Contrasts -> words: "6.2 % faster (95 % interval 3.9 to 8.4 %, 5 rounds)", "within 3 % of each other", and the price of what cannot be said.

What is called faster, equal or open is what `analysis.stats.contrasts` calls it; here are only the words and figures of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hvbench.analysis.contrasts.points import PointContrast, PointFamily
from hvbench.analysis.contrasts.price import Price, price_of
from hvbench.analysis.frame.metrics import PACE
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL
from hvbench.analysis.show.sentences import Draft, Judged, Sentence
from hvbench.analysis.stats.contrasts import EQUAL_WITHIN, Call, Contrast

PRICED = (0.05, 0.03, 0.02)  # differences: the first that the rounds so far would not find has a price


@dataclass(frozen=True, kw_only=True)
class Words:
    """How contrasts of a metric read: `A is 3 % faster than B`."""

    verb: str = "is"
    more: str = "faster"
    less: str = "slower"
    times: str = "times as fast as"
    of_what: str = ""  # behind `within 3 % of each other`


PER_STEP = Words(more="faster per step", less="slower per step", times="times as fast per step as", of_what=" per step")
OF_METRICS = {PACE: PER_STEP}  # instead of SPEED
PAIRS = "pairs of points"  # what is counted where points differ in one axis
SPEED = Words()
MEMORY = Words(verb="needs", more="more memory", less="less memory", times="times the memory of", of_what=" in memory")


@dataclass(frozen=True, kw_only=True)
class Sides:
    """What is compared with what, in words; `things` counts the contrasts, `where` narrows all of them down."""

    one: str
    other: str
    things: str = "configurations"
    where: str = ""  # such as ` in PyTorch`
    words: Words | None = None  # None: of the family's metric, a speed
    is_continued: bool = False  # another clause has named the sides: `it needs 3 % less memory`

    @property
    def subject(self) -> str:
        """What the clause begins with."""
        return "it" if self.is_continued else self.one

    def turned(self) -> Sides:
        """The other one first."""
        return replace(self, one=self.other, other=self.one)


@dataclass(frozen=True, kw_only=True)
class Clause:
    """Part of a sentence, how large the effect in it is (|ln ratio|), and whether it says that nothing can be said."""

    text: str
    strength: float = 0.0
    is_open: bool = False


def words_of(family: PointFamily) -> Words:
    """How contrasts of a speed read."""
    return OF_METRICS.get(family.metric, SPEED)


def main_contrast(family: PointFamily) -> Contrast | None:
    """The one contrast of a family, or the mean over several; None where rounds are too few for a mean."""
    return family.contrasts[0].contrast if len(family.contrasts) == 1 else family.mean


def lead(family: PointFamily, sides: Sides) -> tuple[PointFamily, Sides]:
    """The family and its sides with the larger one first, for sides that have no order of their own."""
    contrast = main_contrast(family)
    ratio = contrast.ratio if contrast else math.prod(each.contrast.ratio for each in family.contrasts)
    return (family.turned(), sides.turned()) if ratio < 1 else (family, sides)


def describe_family(draft: Draft, family: PointFamily, sides: Sides, *, unmeasured: int = 0) -> Clause:
    """What a family of contrasts says of one side against the other: its mean and its range, or what can be said of some.

    Args:
        draft: collects what is stated.
        family: the contrasts, at least one.
        sides: the names of their sides.
        unmeasured: pairs of points that cannot be compared, since no launch of one side ended in `ok`; they are named.
    """
    sides = replace(sides, words=sides.words or words_of(family))
    contrast = main_contrast(family)
    which = 0 if len(family.contrasts) == 1 else None
    lost = (
        f"; {draft.count(unmeasured)} more cannot be compared, for no launch of one side ended in ok"
        if unmeasured
        else ""
    )
    if contrast is not None and contrast.call is not Call.OPEN:
        text = _describe_called(draft, family, which, sides)
        return Clause(text=f"{text}{lost}", strength=abs(math.log(contrast.ratio)))
    called = [each for each in family.contrasts if each.is_faster or each.is_slower]
    if called and len(family.contrasts) > 1:
        text = _describe_some(draft, family, sides)
        strength = sum(abs(math.log(each.contrast.ratio)) for each in called) / len(family.contrasts)
        return Clause(text=f"{text}{lost}", strength=strength)
    return Clause(text=f"{_describe_open(draft, family, which, sides)}{lost}", is_open=True)


def finish_clause(draft: Draft, topic: str, clause: Clause, run: Run, family: PointFamily) -> Sentence:
    """A clause about a family as a sentence of its own, with the price of what it leaves open."""
    price = describe_price(run, family) if clause.is_open else None
    return draft.finish(topic, f"{clause.text}.", strength=clause.strength, is_open=clause.is_open, price=price)


def describe_price(run: Run, family: PointFamily, *, differences: Sequence[float] = PRICED) -> Sentence:
    """`a difference of 5 % takes about 4 more rounds, 6 minutes: COMMAND`; or that even a small one would have been found."""
    draft = Draft()
    of_mean = family.mean is not None
    prices = [price_of(run, family, difference=difference, of_mean=of_mean) for difference in differences]
    price = next((each for each in prices if each), None)
    if price is None:
        text = f"a difference of {say_limit(draft, differences[-1])} % would most likely have been found"
    else:
        text = say_price(draft, price)
    return Sentence(topic="price", text=text, numbers=tuple(draft.numbers), labels=tuple(draft.labels))


def say_price(draft: Draft, price: Price, *, things: str = "rounds", of: str = "") -> str:
    """`a difference of 5 % takes about 4 more rounds, 6 minutes: COMMAND`; `of` the loss, say, and by seeds as `things`."""
    more = things.removesuffix("s") if price.rounds == 1 else things
    rounds = f"{draft.quote(str(price.rounds), price.rounds, 'price')} more {more}"
    command = f": `{draft.label(price.command)}`" if price.command else ""
    difference = f"{say_limit(draft, price.difference)} %{of}"
    return f"a difference of {difference} takes about {rounds}, {_say_minutes(draft, price.minutes)}{command}"


def _say_minutes(draft: Draft, minutes: float) -> str:
    if not math.isfinite(minutes):
        return "of a time that is not known"
    if minutes < 1:
        return "under a minute"
    if minutes >= 120:
        return f"{draft.quote(f'{minutes / 60:.1f}', minutes / 60, 'price')} hours"
    text = f"{minutes:.0f}"
    return f"{draft.quote(text, minutes, 'price')} minute{'s' * (text != '1')}"


def say_limit(draft: Draft, share: float) -> str:
    """`3`, of a limit in per cent that is the rule's and no figure of the run."""
    return draft.quote(f"{100 * share:g}", 100 * share, "limit")


def say_judged(family: PointFamily, which: int | None, *, is_best: bool = False) -> Judged:
    """What is kept of a contrast beside the words."""
    contrast = family.mean if which is None else family.contrasts[which].contrast
    assert contrast is not None
    return Judged(
        call=contrast.call,
        family=tuple((str(each.one["point_id"]), str(each.other["point_id"])) for each in family.contrasts),
        which=which,
        metric=family.metric,
        is_best=is_best,
    )


def say_all(draft: Draft, family: PointFamily, things: str) -> str:
    """`both frameworks`, where there is one contrast of each; else `the 5 configurations`."""
    names = [each.one["framework"] for each in family.contrasts if each.one["framework"] == each.other["framework"]]
    if len(names) == len(set(names)) == len(family.contrasts) == 2:
        return "both frameworks"
    return f"the {draft.count(len(family.contrasts))} {things}"


def say_rounds(draft: Draft, rounds: int) -> str:
    """`5 rounds`."""
    return f"{draft.count(rounds)} round{'s' * (rounds != 1)}"


def say_effect(
    draft: Draft, family: PointFamily, which: int | None, *, words: Words, other: str, is_best: bool = False
) -> tuple[str, str]:
    """(`6.2 % faster than OTHER`, `95 % interval 3.9 to 8.4 %, 5 rounds`) of one contrast, or of the mean (`which` None)."""
    contrast = family.mean if which is None else family.contrasts[which].contrast
    assert contrast is not None
    judged = say_judged(family, which, is_best=is_best)
    draft.judged.append(judged)
    ends = [contrast.low, contrast.high]
    scale = Scale.of([contrast.ratio, *(end for end in ends if end is not None)], is_larger=contrast.ratio >= 1)
    centre = draft.figure(scale.value(contrast.ratio), "effect", judged, text=scale.show(contrast.ratio))
    named = {"effect_low": ends[0], "effect_high": ends[1]}
    if contrast.ratio < 1:
        named = {"effect_high": ends[1], "effect_low": ends[0]}
    shown = [
        draft.figure(scale.value(end), kind, judged, text=scale.show(end))
        for kind, end in named.items()
        if end is not None
    ]
    rounds = say_rounds(draft, contrast.rounds)
    interval = f"{INTERVAL} {' to '.join(shown)}{scale.unit}, {rounds}" if shown else f"{rounds}, no interval"
    return f"{centre}{scale.unit} {scale.comparative(words, other)}", interval


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How ratios are shown: per cent above or below 1, or, of factors of two and more, as factors."""

    is_larger: bool  # per cent above 1; else per cent below
    is_factor: bool
    decimals: int

    @classmethod
    def of(cls, ratios: Sequence[float], *, is_larger: bool) -> Scale:
        """For ratios that are read together; the first decides whether they are factors."""
        is_factor = is_larger and ratios[0] >= 2
        plain = cls(is_larger=is_larger, is_factor=is_factor, decimals=2 if is_factor else 1)
        is_wide = not is_factor and min(abs(plain.value(ratio)) for ratio in ratios) >= 10
        return cls(is_larger=is_larger, is_factor=is_factor, decimals=0) if is_wide else plain

    def value(self, ratio: float) -> float:
        """The number that is shown."""
        if self.is_factor:
            return ratio
        return 100 * (ratio - 1) if self.is_larger else 100 * (1 - ratio)

    def show(self, ratio: float) -> str:
        """That number as text."""
        text = f"{self.value(ratio):,.{self.decimals}f}"
        return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text

    @property
    def unit(self) -> str:
        """What stands behind the number."""
        return "" if self.is_factor else " %"

    def comparative(self, words: Words, other: str) -> str:
        """`faster than OTHER`, or `faster` where the other side is named elsewhere."""
        if self.is_factor:
            return f"{words.times} {other}" if other else words.times.removesuffix(" as").removesuffix(" of")
        return f"{words.more if self.is_larger else words.less}{f' than {other}' if other else ''}"


def say_range(
    draft: Draft, contrasts: Sequence[PointContrast], family: PointFamily, *, is_larger: bool, is_best: bool = False
) -> str:
    """`2.1 to 9.8 %` or `a factor of 1.20 to 3.40`, the range of the estimates of some contrasts of a family; one number where they read the same."""
    ratios = sorted((each.contrast.ratio for each in contrasts), reverse=True)
    scale = Scale.of(ratios, is_larger=is_larger)
    ordered = sorted(contrasts, key=lambda each: scale.value(each.contrast.ratio))
    texts: list[str] = []
    for each in (ordered[0], ordered[-1]):
        text = scale.show(each.contrast.ratio)
        if text not in texts:
            which = next(i for i, known in enumerate(family.contrasts) if known is each)
            texts.append(
                draft.figure(
                    scale.value(each.contrast.ratio), "effect", say_judged(family, which, is_best=is_best), text=text
                )
            )
    text = " to ".join(texts)
    return f"a factor of {text}" if scale.is_factor else f"{text} %"


def _describe_called(draft: Draft, family: PointFamily, which: int | None, sides: Sides) -> str:
    """A contrast, or the mean over several, that is called: faster, slower or equal."""
    contrast = main_contrast(family)
    assert contrast is not None
    over = "" if which == 0 or sides.is_continued else f" over {say_all(draft, family, sides.things)}"
    if contrast.call is Call.EQUAL:
        text = f"{sides.one} and {sides.other} are within {say_limit(draft, EQUAL_WITHIN)} % of each other"
        text += f"{sides.words.of_what}{over}{sides.where}"
        text += f" ({_say_signed(draft, family, which)})"
        called = [each for each in family.contrasts if each.is_faster or each.is_slower]
        return f"{text}; {_describe_some(draft, family, sides)}" if which is None and called else text
    other = "" if sides.is_continued else sides.other
    effect, interval = say_effect(draft, family, which, words=sides.words, other=other)
    text = f"{sides.subject} {sides.words.verb} {effect}{over}{sides.where} ({interval}"
    is_larger = contrast.ratio >= 1
    if which is None:
        text += f"; {say_range(draft, family.contrasts, family, is_larger=is_larger)} in each"
    against = [each for each in family.contrasts if (each.is_slower if is_larger else each.is_faster)]
    if against and which is None:
        draft.judged.extend(say_judged(family, i) for i, each in enumerate(family.contrasts) if each in against)
        text += f", so the other way round in {draft.count(len(against))}"
    return f"{text})"


def _describe_some(draft: Draft, family: PointFamily, sides: Sides) -> str:
    """Of several contrasts some are called and their mean is not, or is called equal."""
    up = [each for each in family.contrasts if each.is_faster]
    down = [each for each in family.contrasts if each.is_slower]
    if len(down) > len(up):
        return _describe_some(draft, family.turned(), sides.turned())
    words, count = sides.words, len(family.contrasts)
    draft.judged.extend(
        say_judged(family, i) for i, each in enumerate(family.contrasts) if each.is_faster or each.is_slower
    )
    text = (
        f"{sides.one} {words.verb} {words.more} than {sides.other}{sides.where} in {draft.count(len(up))} of {draft.count(count)} "
        f"{sides.things}, by {say_range(draft, up, family, is_larger=True)}"
    )
    if down:
        text += f", and {words.less.split()[0]} in {draft.count(len(down))}, by {say_range(draft, down, family, is_larger=False)}"
    rounds = max(each.contrast.rounds for each in family.contrasts)
    equal = sum(each.contrast.call is Call.EQUAL for each in family.contrasts)
    still_open = count - len(up) - len(down) - equal
    rest = [f"{draft.count(equal)} within {say_limit(draft, EQUAL_WITHIN)} %"] if equal else []
    rest += [f"{draft.count(still_open)} open"] if still_open else []
    behind = f"; {' and '.join(rest)}" if rest else ""
    return f"{text} ({say_rounds(draft, rounds)}{behind})"


def _describe_open(draft: Draft, family: PointFamily, which: int | None, sides: Sides) -> str:
    """Nothing is called."""
    rounds = max(each.contrast.rounds for each in family.contrasts)
    start = f"{say_rounds(draft, rounds)} cannot say whether {sides.one} or {sides.other} is {sides.words.more}"
    if sides.words not in (SPEED, PER_STEP):
        start = f"{say_rounds(draft, rounds)} cannot say whether {sides.one} {sides.words.verb} {sides.words.more} than {sides.other}"
    over = "" if which == 0 or sides.is_continued else f" over {say_all(draft, family, sides.things)}"
    if main_contrast(family) is None:
        return f"{start}{over}{sides.where}"
    return f"{start}{over}{sides.where} ({sides.one}: {_say_signed(draft, family, which, has_rounds=False)})"


def _say_signed(draft: Draft, family: PointFamily, which: int | None, *, has_rounds: bool = True) -> str:
    """`1.2 % faster, 95 % interval -0.8 to 3.1 %, 5 rounds` without the name of the other side."""
    contrast = family.mean if which is None else family.contrasts[which].contrast
    assert contrast is not None
    judged = say_judged(family, which)
    draft.judged.append(judged)
    ratios = [contrast.ratio, *(end for end in (contrast.low, contrast.high) if end is not None)]
    scale = Scale(is_larger=True, is_factor=max(ratios) >= 2, decimals=2 if max(ratios) >= 2 else 1)
    kinds = ("effect", "effect_low", "effect_high")
    texts = [
        draft.figure(scale.value(ratio), kind, judged, text=scale.show(ratio))
        for kind, ratio in zip(kinds, ratios, strict=False)
    ]
    sign = "+" if scale.value(contrast.ratio) > 0 and not scale.is_factor else ""
    unit = "times" if scale.is_factor else "%"
    text = f"{sign}{texts[0]} {unit}"
    if len(texts) == 3:
        text += f", {INTERVAL} {texts[1]} to {texts[2]}{scale.unit}"
    return f"{text}, {say_rounds(draft, contrast.rounds)}" if has_rounds else text
