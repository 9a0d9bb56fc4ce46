"""Estimates -> sentences that can be quoted: what is fastest, which framework, what each choice buys, and how sure.

A sentence says that one point is faster than another only where their intervals do not overlap; where they overlap, or
where one launch has no interval, it says so or nothing. Every number in a sentence is kept beside it with the metric
and the points that it comes from, and every `faster than` as a claim, so that both can be checked against the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hvbench.analysis.frame.axes import AXES, order_values, varying_axes
from hvbench.analysis.show.panels import STYLES, describe_value, emulated_precisions
from hvbench.analysis.show.sentences import RATE, Draft, Finding, Findings
from hvbench.analysis.show.tables import INTERVAL, show_value
from hvbench.analysis.stats.estimates import Estimate, read_estimate, summarize_launches
from hvbench.analysis.topics.batch_findings import describe_batches
from hvbench.analysis.topics.stamps import Verdict

TO_TARGET = "seconds_to_target"
MAX_HEADLINES = 3


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two points that differ in one axis: tokens per second of `one` / `other`, and its range by the intervals' ends.

    The range leaves out 1 exactly where the two intervals do not overlap, which happens by chance in fewer than one of
    a hundred comparisons (see the tests). It is None where a point was launched once.
    """

    one: pd.Series
    other: pd.Series
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
        """The same comparison the other way round."""
        low, high = (None if end is None else 1.0 / end for end in (self.high, self.low))
        return Pair(one=self.other, other=self.one, ratio=1.0 / self.ratio, low=low, high=high)


def find_all(points: pd.DataFrame, *, verdict: Verdict | None, answers: Sequence[Finding] = ()) -> Findings:
    """Everything that can be said of the launches of `point_frame`.

    `verdict` decides whether the frameworks may be compared; `answers` come from models of the launches, and first.
    """
    if points.empty:
        return Findings(
            headlines=(Draft().finish("nothing", "No launch has left a record yet, so there is nothing to say."),)
        )
    summary = summarize_launches(points)
    measured = summary[summary[RATE].notna()]
    axes = [axis for axis in varying_axes(points) if axis != "framework"]
    failures = describe_failures(points)
    if measured.empty:
        return Findings(
            headlines=(Draft().finish("nothing", "No launch ended in ok, so no speed was measured."), *failures)
        )
    is_comparison = measured["framework"].nunique() > 1
    comparable = is_comparison and verdict is not None and verdict.is_proven
    converged = describe_convergence(summary, axes=axes, comparable=comparable)
    fastest = describe_fastest(measured, axes=axes, comparable=comparable)
    frameworks = describe_frameworks(measured, verdict=verdict) if is_comparison else []
    choices = describe_choices(measured, axes=axes, emulated=emulated_precisions(points))
    # A run towards a target loss is about the target; any other is about speed.
    ordered = [*answers, *converged, *describe_batches(points), *fastest, *frameworks, *choices]
    return Findings(
        headlines=tuple(ordered[:MAX_HEADLINES]),
        details=tuple(ordered[MAX_HEADLINES:]),
        certainty=(*describe_certainty(measured), *failures),
    )


def compare_values(summary: pd.DataFrame, axis: str, one: object, other: object) -> list[Pair]:
    """Pairs of measured points that differ in nothing but `axis`: `one` against `other`, in table order."""
    names = [name for name in AXES if name != axis]
    found: dict[tuple, dict[object, pd.Series]] = {}
    for _, row in summary.iterrows():
        if not pd.isna(row[RATE]) and row[axis] in (one, other):
            key = tuple(None if pd.isna(row[name]) else row[name] for name in names)
            found.setdefault(key, {})[row[axis]] = row
    return [make_pair(pair[one], pair[other]) for pair in found.values() if len(pair) == 2]


def make_pair(one: pd.Series, other: pd.Series) -> Pair:
    """The comparison of two measured rows of `summarize_launches`."""
    a, b = read_estimate(one, RATE), read_estimate(other, RATE)
    assert a is not None and b is not None
    low = None if a.low is None or b.high is None else a.low / b.high
    high = None if a.high is None or b.low is None else a.high / b.low
    return Pair(one=one, other=other, ratio=a.centre / b.centre, low=low, high=high)


def describe_point(row: pd.Series, axes: Sequence[str]) -> str:
    """The axes that vary, in words, such as `micro-batch 8, bf16 (emulated)`; nothing where none does."""
    emulated = frozenset({row["precision"]} if row["is_emulated"] else ())
    return ", ".join(describe_value(axis, row[axis], emulated=emulated) for axis in axes)


def describe_fastest(measured: pd.DataFrame, *, axes: Sequence[str], comparable: bool) -> list[Finding]:
    """The fastest point of all where the frameworks may be compared, else of each framework."""
    groups = [rows for _, rows in measured.groupby("framework", sort=False)]
    if not axes:
        return [] if comparable else [describe_best(rows, axes=axes, name=label_of(rows.iloc[0])) for rows in groups]
    if any(read_estimate(row, RATE).low is None for _, row in measured.iterrows()):
        return [describe_single_launches(measured)]
    best = [pick_best(rows) for rows in groups]
    shared = {describe_point(row, axes) for row, _ in best}
    if (
        len(best) > 1
        and len(shared) == 1
        and all(len(beaten) + 1 == len(rows) for (_, beaten), rows in zip(best, groups, strict=True))
    ):
        draft = Draft()
        where = draft.label(shared.pop())
        rates = []
        for row, beaten in best:
            rates.append(f"{label_of(row)} {draft.estimate(row)}")
            for loser in beaten:
                draft.claim(row, loser)
        counts = sorted({len(rows) for rows in groups})
        of = " and ".join(draft.count(count) for count in counts)
        return [
            draft.finish(
                "fastest",
                f"{where} is the fastest of the {of} configurations in {draft.all_of(len(best), 'frameworks')}: {', '.join(rates)}.",
            )
        ]
    if comparable:
        return [describe_best(measured, axes=axes, name="")]
    return [describe_best(rows, axes=axes, name=label_of(rows.iloc[0])) for rows in groups]


def pick_best(rows: pd.DataFrame) -> tuple[pd.Series, list[pd.Series]]:
    """The row with the highest rate, and the rows that it is faster than beyond both intervals."""
    each = [row for _, row in rows.iterrows()]
    best = max(each, key=lambda row: row[RATE])
    return best, [row for row in each if row is not best and make_pair(best, row).is_faster]


def describe_best(rows: pd.DataFrame, *, axes: Sequence[str], name: str) -> Finding:
    """The fastest of `rows`: one framework's (`name` is its label), or all."""
    draft = Draft()
    best, beaten = pick_best(rows)
    where = draft.label(describe_point(best, axes))
    label = label_of(best)
    rate = draft.estimate(best)
    others = len(rows) - 1
    if not others:
        return draft.finish("fastest", f"{label} trains at {rate}.")
    if read_estimate(best, RATE).low is None:
        return draft.finish("fastest", f"{label} ran at {rate} with {where}: a single launch, so nothing is ranked.")
    for row in beaten:
        draft.claim(best, row)
    subject = f"{label} with {where}" if where else label
    whole = f"{name}'s {draft.count(len(rows))} configurations" if name else draft.all_of(len(rows), "points")
    if len(beaten) == others:
        return draft.finish("fastest", f"{subject} is the fastest of {whole}: {rate}.")
    if not beaten:
        return draft.finish(
            "fastest",
            f"No point is shown to be the fastest of {whole}: {subject} has the highest measured rate, {rate}, and that interval overlaps with all others.",
        )
    return draft.finish(
        "fastest",
        f"{subject} has the highest measured rate of {whole}, {rate}; that interval lies above those of {draft.count(len(beaten))} "
        f"others, and the remaining {draft.count(others - len(beaten))} cannot be told from it.",
    )


def describe_single_launches(measured: pd.DataFrame) -> Finding:
    """What can be said where some point was launched once: no order."""
    draft = Draft()
    slow, fast = (measured.loc[measured[RATE].astype(float).agg(which)] for which in ("idxmin", "idxmax"))
    once = sum(1 for _, row in measured.iterrows() if row["launches_ok"] == 1)
    whole = "every point" if once == len(measured) else f"{draft.count(once)} of {draft.count(len(measured))} points"
    low, high = (draft.number(row[RATE], "centre", row) for row in (slow, fast))
    span = f"between {low} and {high} tokens/s were measured" if len(measured) > 1 else f"{high} tokens/s were measured"
    return draft.finish(
        "fastest",
        f"No configuration is called the fastest: {span}, but {whole} ended in ok once only, and one launch says nothing about chance.",
    )


def describe_frameworks(measured: pd.DataFrame, *, verdict: Verdict | None) -> list[Finding]:
    """Which framework is faster, over the configurations that both ran; only where they provably trained alike."""
    if verdict is None or not verdict.is_proven:
        return [
            Draft().finish(
                "frameworks",
                "The frameworks' speeds are not compared, because they were not proven to do the same work in this run.",
            )
        ]
    names = order_values("framework", measured["framework"])
    findings = []
    for index, other in enumerate(names):
        for one in names[index + 1 :]:
            pairs = compare_values(measured, "framework", one, other)
            labels = (STYLES[one].label, STYLES[other].label)
            said = describe_contrast("frameworks", pairs, labels=labels, things="configurations")
            if said:
                findings.append(said)
            elif pairs and all(pair.low is not None for pair in pairs):
                draft = Draft()
                many = (
                    draft.all_of(len(pairs), "configurations that both ran")
                    if len(pairs) > 1
                    else "the configuration that both ran"
                )
                findings.append(
                    draft.finish(
                        "frameworks",
                        f"{labels[0]} and {labels[1]} cannot be told apart in speed: their intervals overlap in {many}.",
                    )
                )
    return findings


def describe_choices(measured: pd.DataFrame, *, axes: Sequence[str], emulated: frozenset[str]) -> list[Finding]:
    """What each axis does: its first value against the others (of numbers: the largest), largest effect first."""
    findings = []
    for axis in axes:
        first, *others = order_values(axis, measured[axis])
        if pd.api.types.is_numeric_dtype(measured[axis]):
            others = others[-1:]
        for other in (value for value in others if value is not None and first is not None):
            by_framework = {
                name: compare_values(rows, axis, other, first)
                for name, rows in measured.groupby("framework", sort=False)
            }
            findings += describe_choice_of(axis, (other, first), by_framework, emulated=emulated)
    return sorted(findings, key=lambda finding: -finding.strength)


def describe_choice_of(
    axis: str, values: tuple[object, object], by_framework: dict[str, list[Pair]], *, emulated: frozenset[str]
) -> list[Finding]:
    """One sentence for all frameworks where they show the same, else one each."""
    labels = (describe_value(axis, values[0], emulated=emulated), describe_value(axis, values[1], emulated=emulated))
    directions = {
        name: (any(p.is_faster for p in pairs), any(p.is_slower for p in pairs)) for name, pairs in by_framework.items()
    }
    if len(directions) > 1 and set(directions.values()) in ({(True, False)}, {(False, True)}):
        whole = "both" if len(directions) == 2 else "all"
        groups = {f"in {whole} frameworks": [pair for pairs in by_framework.values() for pair in pairs]}
    else:
        groups = {f"in {STYLES[name].label}": pairs for name, pairs in by_framework.items()}
    said = [
        describe_contrast(
            axis, pairs, labels=labels, things="pairs of points that differ in nothing else", differ=f" {where}"
        )
        for where, pairs in groups.items()
    ]
    return [finding for finding in said if finding]


def describe_contrast(
    topic: str, pairs: list[Pair], *, labels: tuple[str, str], things: str, differ: str = ""
) -> Finding | None:
    """`A is faster than B in 5 of 8 pairs, by a factor of 1.2 to 1.8`; None where no pair can be told apart."""
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
    if len(pairs) == 1:
        return draft.finish(
            topic, f"{one} is faster than {other}{differ}, by {describe_factor(draft, up)}.", strength=strength
        )
    whole = (
        draft.all_of(len(pairs), things)
        if len(up) == len(pairs)
        else f"{draft.count(len(up))} of {draft.count(len(pairs))} {things}"
    )
    sentence = f"{one} is faster than {other}{differ} in {whole}, by {describe_factor(draft, up)}"
    if down:
        sentence += f"; it is slower in {draft.count(len(down))}, by {describe_factor(draft, down)}"
    if rest := len(pairs) - len(up) - len(down):
        sentence += f"; {'' if down else 'the other '}{draft.count(rest)} cannot be told apart"
    return draft.finish(topic, f"{sentence}.", strength=strength)


def describe_factor(draft: Draft, pairs: list[Pair]) -> str:
    """`a factor of 1.21 to 1.75 (by their intervals at least 1.10)`."""
    span = draft.span([(pair.ratio, (pair.one, pair.other)) for pair in pairs], "ratio")
    least = min(pairs, key=lambda pair: pair.low or 0.0)
    at_least = draft.number(least.low or 0.0, "ratio_low", least.one, least.other)
    return f"a factor of {span} (by their intervals at least {at_least})"


def describe_convergence(summary: pd.DataFrame, *, axes: Sequence[str], comparable: bool) -> list[Finding]:
    """Who reached the target loss, and the soonest where the intervals say so."""
    asked = summary[summary["target"].notna()]
    if asked.empty:
        return []
    reached = asked[(asked["target"] == "reached") & asked[TO_TARGET].notna()]
    draft = Draft()
    targets = asked["target_loss"].dropna().unique()
    name = f"the target loss {draft.label(show_value(float(targets[0])))}" if len(targets) == 1 else "their target loss"
    if reached.empty:
        return [draft.finish("convergence", f"No point reached {name} in all of its launches.")]
    whole = (
        draft.all_of(len(asked), "points")
        if len(reached) == len(asked) > 1
        else f"{draft.count(len(reached))} of {draft.count(len(asked))} points"
    )
    steps = [(float(row["steps_to_target"]), (row,)) for _, row in reached.iterrows()]
    sentence = f"{whole} reached {name}, after {draft.span(steps, 'centre', metric='steps_to_target')} steps"
    each = [row for _, row in reached.iterrows()]
    groups = (
        {"": each}
        if comparable
        else {label_of(row): [r for r in each if r["framework"] == row["framework"]] for row in each}
    )
    for of, rows in groups.items():
        best = min(rows, key=lambda row: row[TO_TARGET])
        estimate = read_estimate(best, TO_TARGET)
        beaten = [row for row in rows if row is not best and is_sooner(estimate, read_estimate(row, TO_TARGET))]
        if len(rows) > 1 and len(beaten) == len(rows) - 1:
            where = draft.label(describe_point(best, axes))
            for row in beaten:
                draft.claim(row, best, metric=TO_TARGET)
            subject = f"{label_of(best)} with {where}" if where else label_of(best)
            sentence += f"; {subject} was the soonest{f' in {of}' if of else ''}, {draft.estimate(best, metric=TO_TARGET, unit='s of training')}"
    return [draft.finish("convergence", f"{sentence}.")]


def is_sooner(one: Estimate | None, other: Estimate | None) -> bool:
    """Whether `one` ends below `other` beyond both intervals."""
    return bool(one and other and one.high is not None and other.low is not None and one.high < other.low)


def describe_certainty(measured: pd.DataFrame) -> list[Finding]:
    """How wide the intervals are: what a difference must exceed to be seen here."""
    spreads = [e.high / e.low for _, row in measured.iterrows() if (e := read_estimate(row, RATE)) and e.low and e.high]
    if not spreads:
        return []
    draft = Draft()
    rows = [row for _, row in measured.iterrows() if not pd.isna(row[f"{RATE}_low"])]
    spread = draft.number(float(np.median(spreads)), "spread", *rows)
    return [
        draft.finish(
            "certainty",
            f"Points are told apart where their {INTERVAL}s over launches do not overlap; in the median point that "
            f"takes a difference by a factor of {spread}.",
        )
    ]


def describe_failures(points: pd.DataFrame) -> list[Finding]:
    """How many launches did not end in ok, and how."""
    bad = points.loc[points["status"] != "ok", "status"]
    if bad.empty:
        return []
    draft = Draft()
    kinds = ", ".join(f"{draft.count(count)} {status}" for status, count in bad.value_counts().items())
    whole = f"{draft.count(len(bad))} of {draft.count(len(points))} launches"
    return [draft.finish("failures", f"{whole} did not end in ok: {kinds}.")]


def label_of(row: pd.Series) -> str:
    """The name of a row's framework."""
    return STYLES[row["framework"]].label
