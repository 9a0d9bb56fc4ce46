"""A comparison and a policy -> checks, a verdict, an exit code. Pure: the day it is asked on is an argument."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvbench.analysis.stats.ratios import adjust_holm
from hvbench.comparison.gate.checks import (
    Terms,
    check_change,
    check_losses,
    check_suite,
    choose_figures,
    find_obstacles,
)
from hvbench.comparison.gate.judgement import Check, Judgement, Kind
from hvbench.comparison.gate.look import LEAST_SPREAD, find_suites
from hvbench.comparison.gate.rule import LOOKS, Decision, Series, decide, describe_call, is_final
from hvbench.comparison.result import Change, Comparison, PointComparison

MIN_LAUNCHES = 6  # a side; below them there is no verdict against a stored baseline
SINGLE_LOOK = 0.05  # two-sided level against a stored baseline, which is looked at once
SUSPICION = "suspected; a stored baseline cannot tell a slower program from a slower day, run hvbench ab"


def judge_pairs(
    comparison: Comparison,
    terms: Terms,
    *,
    pairs: int,
    controls: Mapping[str, Sequence[float]] | None = None,
    notes: Sequence[str] = (),
) -> Judgement:
    """Judge interleaved pairs by the rule of `hvbench.comparison.gate.rule`; below six pairs nothing is decided.

    Args:
        comparison: of the two arms; each change has its pairs in `worse_by`.
        terms: the policy, the suite, the day.
        pairs: how many complete pairs there are.
        controls: ln(B/A) pair by pair of what only the machine can move; where one did, timings are not decided.
        notes: sentences to show with the verdict.
    """
    checks = find_obstacles(comparison)
    if comparison.is_comparable:
        figures, gaps = choose_figures(comparison, terms)
        series = [make_series(point, change, terms) for point, change in figures]
        decisions = decide(series, controls=controls)
        of_points, of_suites = decisions[: len(figures)], decisions[len(figures) :]
        checks += gaps
        checks += [check_change(*figure, decision, terms) for figure, decision in zip(figures, of_points, strict=True)]
        checks += [
            check_suite([figures[index] for index in members], decision, terms)
            for members, decision in zip(find_suites(series).values(), of_suites, strict=True)
        ]
        checks += check_losses(comparison, terms)
    return Judgement(
        suite=terms.suite,
        against=terms.against,
        checks=sort_checks(checks),
        comparison=comparison,
        launches=pairs,
        notes=(*notes, *comparison.notes, *terms.describe_expired()),
        is_final=is_final_verdict(checks, pairs=pairs),
    )


def is_final_verdict(checks: Sequence[Check], *, pairs: int) -> bool:
    """Whether more pairs would change nothing: what is broken or accepted stays so, what is undecided may be decided."""
    kinds = {check.kind for check in checks}
    if kinds & {Kind.NOT_COMPARABLE, Kind.CRASH, Kind.MISSING} and Kind.REGRESSION not in kinds:
        return True
    if pairs < LOOKS[0]:
        return False
    decisions = [check.decision for check in checks if check.decision and check.kind is not Kind.ACCEPTED]
    return Kind.REGRESSION in kinds or is_final(decisions, pairs=pairs)


def judge_baseline(comparison: Comparison, terms: Terms, *, launches: int) -> Judgement:
    """Judge a run against a stored one: unless the policy says otherwise, a regression is only a suspicion.

    Args:
        comparison: of the stored run (a) and the new one (b), whose launches are not paired.
        terms: the policy, the suite, the day.
        launches: how many launches of each point the new run has, at least.
    """
    checks = find_obstacles(comparison)
    if comparison.is_comparable:
        figures, gaps = choose_figures(comparison, terms)
        decisions = decide_once([change for _, change in figures], terms)
        found = [check_change(*figure, decision, terms) for figure, decision in zip(figures, decisions, strict=True)]
        checks += [*gaps, *(found if terms.policy.fail_on_baseline else map(suspect, found))]
        checks += check_losses(comparison, terms)
    return Judgement(
        suite=terms.suite,
        against=terms.against,
        checks=sort_checks(checks),
        comparison=comparison,
        launches=launches,
        notes=(*comparison.notes, *terms.describe_expired()),
    )


def suspect(check: Check) -> Check:
    """A regression as a suspicion; any other check as it is."""
    if check.kind is not Kind.REGRESSION:
        return check
    return Check(**{**vars(check), "kind": Kind.INCONCLUSIVE, "text": f"{check.text}: {SUSPICION}"})


def make_series(point: PointComparison, change: Change, terms: Terms) -> Series:
    """The pairs of one figure, positive where b is worse by the policy."""
    is_flipped = terms.is_flipped(change)
    resolution = change.metric.resolution / change.a.centre
    return Series(
        worse_by=tuple(-d for d in change.worse_by) if is_flipped else change.worse_by,
        margin=terms.margin_of(change),
        margin_in_words=terms.describe_margin(change),
        metric=change.metric.name,
        is_timing=change.metric.is_timing,
        is_in_mean=not terms.excepts(point, change),
        resolution=max(resolution, LEAST_SPREAD),
    )


@dataclass(frozen=True, kw_only=True)
class WorseBy:
    """A ratio of unpaired launches as "worse by": fractions, 0.05 is 5 % worse, and the one-sided p-value."""

    estimate: float
    low: float | None
    high: float | None
    p_value: float | None


def orient(change: Change, terms: Terms) -> WorseBy:
    """By how much b is worse by the policy."""
    estimate, low, high = change.worse
    if terms.is_flipped(change):
        estimate, low, high = (None if value is None else 1 / (1 + value) - 1 for value in (estimate, high, low))
    p_value = change.ratio.p_value
    if p_value is not None:
        p_value = p_value / 2 if estimate > 0 else 1 - p_value / 2
    return WorseBy(estimate=estimate, low=low, high=high, p_value=p_value)


def decide_once(changes: Sequence[Change], terms: Terms) -> list[Decision]:
    """A decision for every figure at a single look, p-values corrected (Holm) for their number."""
    oriented = [orient(change, terms) for change in changes]
    adjusted = iter(adjust_holm([one.p_value for one in oriented if one.p_value is not None]))
    decisions = []
    for change, one in zip(changes, oriented, strict=True):
        p_value = None if one.p_value is None else next(adjusted)
        launches = min(change.ratio.n_a, change.ratio.n_b)
        call = call_once(one, p_value=p_value, launches=launches, margin=terms.margin_of(change))
        reason = f"{launches} launches a side; {MIN_LAUNCHES} are needed"
        if launches >= MIN_LAUNCHES and p_value is not None:
            reason = describe_call(call, margin=terms.describe_margin(change), limit=None)
        decisions.append(Decision(call, reason, (), one.estimate, one.low, one.high, p_value))
    return decisions


def call_once(one: WorseBy, *, p_value: float | None, launches: int, margin: float) -> str:
    """The call of one figure."""
    if launches < MIN_LAUNCHES or p_value is None:
        return "inconclusive"
    if p_value <= SINGLE_LOOK / 2 and one.estimate >= margin:
        return "regression"
    return "pass" if one.high < margin else "inconclusive"


def sort_checks(checks: Sequence[Check]) -> tuple[Check, ...]:
    """The gravest first, and of these the largest change."""
    order = list(Kind)

    def size(check: Check) -> float:
        estimate = check.decision.estimate if check.decision else None
        return -abs(estimate) if estimate is not None and math.isfinite(estimate) else 0.0

    return tuple(sorted(checks, key=lambda check: (order.index(check.kind), size(check))))
