"""Sentences whose every number and every claim is kept beside the words, so that both can be checked against the records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hvbench.analysis.frame.metrics import RATE, Speed
from hvbench.analysis.show.cells import INTERVAL, Row, format_number
from hvbench.analysis.stats.contrasts import Call
from hvbench.analysis.stats.estimates import read_estimate
from hvbench.spec.numerics import PRECISIONS

NATS = " nats"


def is_name(text: str) -> bool:
    """Whether a sentence begins with a name that keeps its letters: a precision, or a file such as `train.py`."""
    return text.startswith(tuple(PRECISIONS)) or re.match(r"[\w-]+\.[a-z]+\b", text) is not None


def capitalize(text: str) -> str:
    """The text as a sentence begins."""
    return text if is_name(text) else text[0].upper() + text[1:]


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number as it stands in a sentence, what it is, and which points it was computed from.

    `kind`: `centre`, `low` and `high` of `metric` at one point; `effect`, `effect_low` and `effect_high` of what was `judged`, in
    per cent or as a factor; `count` of points, rounds or launches; whatever else a topic computes, by a name of its own.
    """

    text: str
    value: float
    kind: str
    metric: str = RATE
    point_ids: tuple[str, ...] = ()
    judged: Judged | None = None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the one rule calls a contrast of a family, as a sentence states it: enough to judge the records again.

    `family`: the ids of (one, other) of every contrast of it. `which` of them, or None for the mean over all.
    `is_best`: `one` is the best of all points in it, and every pair of these is in the family.
    """

    call: Call
    family: tuple[tuple[str, str], ...]
    which: int | None
    metric: str = RATE
    is_best: bool = False


@dataclass(frozen=True, kw_only=True)
class Claim:
    """That the value of `metric` is larger at point `larger` than at point `smaller`."""

    larger: str
    smaller: str
    metric: str = RATE


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A text that can be quoted; `labels` are the names in it that contain digits of their own, such as `micro-batch 8`."""

    topic: str
    text: str
    numbers: tuple[Number, ...] = ()
    claims: tuple[Claim, ...] = ()
    judged: tuple[Judged, ...] = ()
    labels: tuple[str, ...] = ()
    strength: float = 0.0  # |ln ratio| of the difference it states, to put the largest first
    is_open: bool = False  # it says that nothing can be said
    price: Sentence | None = None  # what it takes to say more: how the sentence goes on where it is the answer

    def with_price(self) -> Sentence:
        """The sentence with its price at the end, or as it is where it has none."""
        return self if self.price is None else replace(self.followed_by(self.price), price=None)

    def followed_by(self, other: Sentence) -> Sentence:
        """Both as one sentence: `ONE; OTHER.`"""
        return replace(
            self,
            text=f"{self.text.removesuffix('.')}; {other.text.removesuffix('.')}.",
            numbers=(*self.numbers, *other.numbers),
            claims=(*self.claims, *other.claims),
            judged=(*self.judged, *other.judged),
            labels=(*self.labels, *other.labels),
        )

    def led_by(self, words: str) -> Sentence:
        """`WORDS: the sentence.`"""
        text = self.text if is_name(self.text) else self.text[0].lower() + self.text[1:]
        return replace(self, text=f"{words}: {text}")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a run says: the few sentences that answer its question, the other ones, and how sure all of them are."""

    headlines: tuple[Sentence, ...]
    details: tuple[Sentence, ...] = ()
    certainty: tuple[Sentence, ...] = ()


@dataclass(kw_only=True)
class Draft:
    """Collects the numbers, claims and labels of a sentence while it is put together."""

    numbers: list[Number] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    loss_unit: str = NATS  # behind a difference of losses

    def number(self, value: float, kind: str, *rows: Row, metric: str = RATE) -> str:
        """`value` as text."""
        is_whole = kind == "count" or metric == "steps_to_target"
        return self.quote(f"{value:,.0f}" if is_whole else format_number(value), value, kind, *rows, metric=metric)

    def quote(self, text: str, value: float, kind: str, *rows: Row, metric: str = RATE) -> str:
        """`value` as a text that somebody else has written, such as a difference with its own number of decimals."""
        ids = tuple(str(row["point_id"]) for row in rows)
        self.numbers.append(Number(text=text, value=float(value), kind=kind, metric=metric, point_ids=ids))
        return text

    def figure(self, value: float, kind: str, judged: Judged, *, text: str) -> str:
        """A number of what was judged."""
        self.numbers.append(Number(text=text, value=float(value), kind=kind, metric=judged.metric, judged=judged))
        return text

    def span(self, values: Sequence[tuple[float, tuple[Row, ...]]], kind: str, *, metric: str = RATE) -> str:
        """The least and the largest of (value, its points): `1.21 to 1.75`, or one number where both read the same."""
        ordered = sorted(values, key=lambda pair: pair[0])
        texts = []
        for value, rows in (ordered[0], ordered[-1]):
            text = self.number(value, kind, *rows, metric=metric)
            if text in texts:
                self.numbers.pop()
            else:
                texts.append(text)
        return " to ".join(texts)

    def count(self, value: int) -> str:
        """A number of points, pairs or launches."""
        return self.number(value, "count")

    def all_of(self, value: int, things: str) -> str:
        """`both points`, `all 3 points`."""
        return f"both {things}" if value == 2 else f"all {self.count(value)} {things}"

    def part_of(self, part: int, whole: int, things: str) -> str:
        """`both points`, `all 3 points`, `2 of 3 points`, or `1 of 1 points`."""
        if part == whole > 1:
            return self.all_of(whole, things)
        return f"{self.count(part)} of {self.count(whole)} {things}"

    def label(self, text: str) -> str:
        """A name that may contain digits."""
        self.labels.append(text)
        return text

    def estimate(self, row: Row, *, metric: str = RATE, unit: str = "tokens/s") -> str:
        """`2,213 tokens/s (95 % interval 2,130 to 2,300, n = 3)`."""
        return self.scaled_estimate(row, metric=metric, unit=unit, scale=1.0)

    def speed(self, row: Row, speed: Speed, *, is_named: bool = False) -> str:
        """The same of how a run tells its speeds: `12.3 ms a step (95 % interval 12.1 to 12.5, n = 5)`; a step that is named is not said again."""
        unit = speed.unit.removesuffix(" a step") if is_named else speed.unit
        return self.scaled_estimate(row, metric=speed.column, unit=unit, scale=speed.scale)

    def scaled_estimate(self, row: Row, *, metric: str, unit: str, scale: float) -> str:
        """The same in a unit that is `scale` times the metric's own, in which the numbers are kept, too."""
        estimate = read_estimate(row, metric)
        assert estimate is not None
        centre = f"{self.number(scale * estimate.centre, 'centre', row, metric=metric)} {unit}"
        if estimate.low is None or estimate.high is None:
            return f"{centre} (n = {self.count(estimate.n)}, no interval)"
        low, high = (self.number(scale * getattr(estimate, end), end, row, metric=metric) for end in ("low", "high"))
        return f"{centre} ({INTERVAL} {low} to {high}, n = {self.count(estimate.n)})"

    def claim(self, larger: Row, smaller: Row, *, metric: str = RATE) -> None:
        """Keep a claim that the sentence makes."""
        self.claims.append(Claim(larger=str(larger["point_id"]), smaller=str(smaller["point_id"]), metric=metric))

    def finish(
        self, topic: str, sentence: str, *, strength: float = 0.0, is_open: bool = False, price: Sentence | None = None
    ) -> Sentence:
        """The sentence with everything that was collected."""
        return Sentence(
            topic=topic,
            text=capitalize(sentence),
            numbers=tuple(self.numbers),
            claims=tuple(self.claims),
            judged=tuple(self.judged),
            labels=tuple(self.labels),
            strength=strength,
            is_open=is_open,
            price=price,
        )
