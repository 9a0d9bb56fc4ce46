"""Long sequences: which length fits in the same memory with which choices, what those cost in time, and memory, loss and speed over the length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hvbench.analysis.contrasts.points import contrast_points
from hvbench.analysis.frame.axes import AXES, order_values
from hvbench.analysis.frame.metrics import Speed
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import NOT_AVAILABLE, Row, head_axis, show_estimate, show_spread
from hvbench.analysis.show.effects import PAIRS, Sides, describe_family, describe_price
from hvbench.analysis.show.panels import STYLES, describe_value, emulated_precisions
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.tables import Table, are_numbers, describe_constants, head_axes, show_axes
from hvbench.analysis.stats.estimates import summary_of, with_interval
from hvbench.analysis.topics.questions import was_launched_once
from hvbench.analysis.topics.throughput.pairs import asked_rows, by_framework, measured_rows, pair_values
from hvbench.analysis.topics.throughput.plot import plot_figure
from hvbench.analysis.topics.topic import Need, Topic
from hvbench.spec.sizes import show_memory

NAME, AXIS = "lengths", "sequence_length"
PEAK = "peak_rss_bytes"
RATE = with_interval("tokens_per_second")
MEMORY = Speed(
    metric=PEAK, column=PEAK, unit="MiB", scale=2**-20, quantity="memory", title="peak memory of a rank (MiB)"
)
LOSS = Speed(
    metric="final_loss",
    column="final_loss",
    unit="nats/token",
    scale=1.0,
    quantity="loss",
    title="training loss at the end (nats/token)",
)


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How long sequences may be with one combination of the other choices in one framework."""

    values: Mapping[str, Any]  # of the axes but the length and what goes together with it
    longest: Row | None  # that was measured, with no shorter one that ran out of memory
    too_long: int | None  # the shortest that ran out of memory

    @property
    def tokens(self) -> int:
        """The longest length; 0 where none fits."""
        return 0 if self.longest is None else int(self.longest[AXIS])


def find_reaches(run: Run) -> list[Reach]:
    """Every combination of framework and other choices, in table order."""
    return run.derive(_find_reaches)


def _find_reaches(run: Run) -> list[Reach]:
    names = ["framework", *(axis for axis in run.other_axes if axis != AXIS)]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in asked_rows(run):
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    found = []
    for key, rows in groups.items():
        lost = min((int(row[AXIS]) for row in rows if "oom" in str(row["status"])), default=None)
        fits = [row for row in rows if not pd.isna(row[PEAK]) and (lost is None or row[AXIS] < lost)]
        longest = max(fits, key=lambda row: row[AXIS], default=None)
        found.append(Reach(values=dict(zip(names, key, strict=True)), longest=longest, too_long=lost))
    return found


def has_lengths(run: Run) -> bool:
    """Whether several lengths were measured."""
    return (
        not run.is_of_scripts
        and AXIS in run.varying_axes
        and len(order_values(AXIS, [row[AXIS] for row in measured_rows(run)])) > 1
    )


def asks_about_lengths(run: Run) -> bool:
    """Whether the run's question is about lengths, and not about learning."""
    return not run.was_evaluated and AXIS in run.compared_axes


# Table and plots


def length_tables(run: Run) -> list[Table]:
    """The one table."""
    return [length_table(run)]


def length_table(run: Run) -> Table:
    """One row per combination: the longest sequence that fits, the next one, and what the longest needs."""
    reaches = find_reaches(run)
    axes = [axis for axis in run.other_axes if axis != AXIS]
    rate, memory = show_spread("tokens_per_second"), show_estimate(PEAK, scale=2**-20, decimals=0)
    cells, data = [], []
    for each in reaches:
        row = each.longest
        cells.append(
            [
                str(each.values["framework"]), *show_axes(axes, {**each.values, "is_emulated": bool(row is not None and row["is_emulated"])}),
                "none" if row is None else f"{each.tokens:,}", NOT_AVAILABLE if each.too_long is None else f"{each.too_long:,}",
                NOT_AVAILABLE if row is None else memory(row), NOT_AVAILABLE if row is None else rate(row),
                "0" if row is None else str(row["launches_ok"]),
            ]
        )  # fmt: skip
        data.append(
            {axis: each.values.get(axis) for axis in AXES if axis in each.values}
            | {"longest_sequence_length": each.tokens or None, "too_long_sequence_length": each.too_long}
            | {name: None if row is None else row[name] for name in (PEAK, *RATE, "launches_ok")}
        )
    bound = ", ".join(head_axis(name) for name in run.bound_axes.get(AXIS, ()))
    together = (
        f" {bound[0].upper()}{bound[1:]} goes together with the length: a step has as many tokens." if bound else ""
    )
    limit = memory_limit(run)
    return Table(
        name=NAME,
        title="The longest sequence that fits",
        constants=({"limit of a worker": show_memory(limit)} if limit else {}) | describe_constants(run.points, without=("framework", AXIS)),
        notes=(
            "Of the lengths that were asked for: the longest with no shorter one that ran out of memory, and the shortest that did. Peak memory: "
            f"highest resident set of any rank and launch, a high-water mark without an interval.{together}",
        ),
        data=pd.DataFrame(data),
        header=(
            "framework", *head_axes(axes), "longest (tokens)", "next that does not fit", "peak memory there (MiB)", "tokens/s there", "n",
        ),
        is_number=(False, *are_numbers(axes, summary_of(run)), *(True,) * 5),
        is_brief=(True,) * (len(axes) + 6),
        cells=cells,
    )  # fmt: skip


def memory_limit(run: Run) -> int | None:
    """Bytes of a worker that the launches were limited to; None where they were not."""
    return next((each.measure.memory_limit_bytes for each in run.records if each.measure.memory_limit_bytes), None)


def plot_lengths(run: Run) -> dict[str, Figure]:
    """Peak memory and loss over the length; that of throughput is the topic Throughput's."""
    return {
        f"memory_by_{AXIS}": plot_figure(run, AXIS, MEMORY, question="How does memory grow with the length?"),
        f"loss_by_{AXIS}": plot_figure(run, AXIS, LOSS, question="Does the length change what is learned?"),
    }


# Sentences


def describe_lengths(run: Run) -> list[Sentence]:
    """Of every other choice: how much longer sequences fit in the same memory with it, and for how much more time."""
    axes = [axis for axis in run.other_axes if axis != AXIS]
    said = [sentence for axis in axes for sentence in _describe_axis(run, axis)]
    if not said and asks_about_lengths(run) and (sentence := _describe_reach(run)):
        return [sentence]
    return sorted(said, key=lambda sentence: -sentence.strength)


@dataclass(frozen=True, kw_only=True)
class Longer:
    """How many times as long sequences fit with one value of an axis as with another, all else equal."""

    factor: float
    one: Reach
    other: Reach


def _describe_axis(run: Run, axis: str) -> list[Sentence]:
    """One sentence a value of the axis that fits longer sequences than another value: the first, which fits the shortest."""
    reaches, emulated = find_reaches(run), emulated_precisions(run.points)
    values = order_values(axis, [each.values[axis] for each in reaches])
    total = {value: sum(each.tokens for each in reaches if each.values[axis] == value) for value in values}
    base = min(values, key=lambda value: total[value])
    sentences = []
    for value in (value for value in values if value != base):
        draft = Draft()
        one, other = (draft.label(describe_value(axis, each, emulated=emulated)) for each in (value, base))
        pairs = _pair_reaches(reaches, axis, value, base)
        longer = [each for each in pairs if each.other.too_long is not None and each.other.tokens]
        text, strength = _say_longer(draft, run, one, other, longer), max((each.factor for each in longer), default=1.0)
        if text is None:
            continue
        rows = pair_values(measured_rows(run), axis, value, base)
        price, is_open = None, False
        if rows and not was_launched_once(run):
            family = contrast_points(run, rows)
            clause = describe_family(draft, family, Sides(one=one, other=other, things=PAIRS, is_continued=True))
            text += f", and {clause.text}" if not clause.is_open else f"; {clause.text}"
            price = describe_price(run, family) if clause.is_open else None
        sentences.append(draft.finish(NAME, f"{text}.", strength=strength, is_open=is_open, price=price))
    return sentences


def _pair_reaches(reaches: Sequence[Reach], axis: str, one: object, other: object) -> list[Longer]:
    def rest(each: Reach) -> tuple[Any, ...]:
        return tuple(value for name, value in each.values.items() if name != axis)

    bases = {rest(each): each for each in reaches if each.values[axis] == other}
    return [
        Longer(
            factor=each.tokens / bases[rest(each)].tokens if bases[rest(each)].tokens else 1.0,
            one=each,
            other=bases[rest(each)],
        )
        for each in reaches
        if each.values[axis] == one and rest(each) in bases
    ]


def _say_longer(draft: Draft, run: Run, one: str, other: str, longer: Sequence[Longer]) -> str | None:
    """`under 2 GiB a worker block recomputed fits sequences 2 to 4 times as long as all activations kept (8,192 tokens in PyTorch, ...)`."""
    gains = [each for each in longer if each.factor > 1]
    if not gains:
        return None
    limit = memory_limit(run)
    where = f"under {draft.label(show_memory(limit))} a worker" if limit else "in the same memory"
    factors = _span(draft, [each.factor for each in gains])
    least = "at least " if any(each.one.too_long is None for each in gains) else ""
    some = (
        ""
        if len(gains) == len(longer)
        else f" in {draft.count(len(gains))} of {draft.count(len(longer))} {PAIRS.removesuffix(' of points')}"
    )
    best = {
        name: max((each for each in gains if each.one.values["framework"] == name), key=lambda each: each.factor)
        for name in by_framework([each.one.values for each in gains])
    }
    examples = ", ".join(
        f"{_tokens(draft, each.one.tokens)} instead of {_tokens(draft, each.other.tokens)} tokens in {STYLES[name].label}"
        for name, each in best.items()
    )
    return f"{where} {one} fits sequences {least}{factors} times as long as {other}{some} ({examples})"


def _describe_reach(run: Run) -> Sentence | None:
    """Where nothing fits longer sequences than something else: how long they may be in each framework, with the best choice of the others."""
    draft, parts = Draft(), []
    limit = memory_limit(run)
    best: dict[object, Reach] = {}
    for each in find_reaches(run):
        best[each.values["framework"]] = max(
            best.get(each.values["framework"], each), each, key=lambda reach: reach.tokens
        )
    for each in best.values():
        name = STYLES[str(each.values["framework"])].label
        if each.longest is None:
            parts.append(f"none fits in {name}")
        else:
            more = "" if each.too_long is None else f", {_tokens(draft, each.too_long)} do not"
            parts.append(f"{_tokens(draft, each.tokens)} tokens fit in {name}{more}")
    where = f"under {draft.label(show_memory(limit))} a worker " if limit else ""
    return draft.finish(NAME, f"{where}sequences of {'; '.join(parts)}.") if parts else None


def _tokens(draft: Draft, value: int) -> str:
    return draft.quote(f"{value:,}", float(value), "tokens")


def _span(draft: Draft, values: Sequence[float]) -> str:
    texts: dict[str, float] = {}
    for value in (min(values), max(values)):
        texts.setdefault(f"{value:.3g}", value)
    return " to ".join(draft.quote(text, value, "length_ratio") for text, value in texts.items())


TOPIC = Topic(
    name="Sequence length",
    question="How long may a sequence be, what fits longer ones in the same memory, and for how much time?",
    needs=Need(words="launches with several sequence lengths", is_met=has_lengths),
    tables=length_tables,
    plots=plot_lengths,
    sentences=describe_lengths,
    precedence=7,
    answers=asks_about_lengths,
)
