"""A comparison and a policy -> findings, a verdict, an exit code. Pure: the day it is asked on is an argument."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hvbench.analysis.frame.metrics import METRICS, PARTS
from hvbench.analysis.stats.ratios import adjust_holm
from hvbench.comparison.calls import MIN_LAUNCHES
from hvbench.comparison.gate.policy import Policy
from hvbench.comparison.gate.rule import LOOKS, Decision, Series, decide, is_final
from hvbench.comparison.result import Change, Comparison, PointComparison
from hvbench.spec.messages import shorten

# Kinds of findings, the gravest first, each with the exit code that it asks for.
EXIT_CODES = {
    "not comparable": 4, "regression": 1, "crash": 5, "missing": 5, "inconclusive": 3, "accepted": 0, "pass": 0,
}  # fmt: skip
SINGLE_LOOK = 0.05  # two-sided level against a stored baseline, which is looked at once


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that the gate has to say of one point (or of all: an empty label)."""

    kind: str  # a key of EXIT_CODES
    label: str
    metric: str  # name of a metric, `loss`, or what is missing
    text: str
    point_id: str = ""
    change: Change | None = None
    decision: Decision | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict and all that it rests on."""

    suite: str
    against: str  # what B was compared with
    findings: tuple[Finding, ...]
    comparison: Comparison | None
    launches: int  # pairs, or launches of the run
    notes: tuple[str, ...] = ()
    is_final: bool = True  # no further pair would change it

    @property
    def verdict(self) -> str:
        """The gravest kind among the findings; nothing found is missing data."""
        kinds = {finding.kind for finding in self.findings}
        return next(
            (kind for kind in EXIT_CODES if kind in kinds and kind != "accepted"), "pass" if kinds else "missing"
        )

    @property
    def exit_code(self) -> int:
        """0 pass, 1 regression, 3 inconclusive, 4 not comparable, 5 missing data or a crash."""
        return EXIT_CODES[self.verdict]

    def of(self, *kinds: str) -> list[Finding]:
        """Findings of these kinds."""
        return [finding for finding in self.findings if finding.kind in kinds]

    def headline(self) -> str:
        """The verdict in one line."""
        found = self.of(self.verdict)
        unit = (
            "pairs"
            if self.comparison and any(c.worse_by for p in self.comparison.points for c in p.changes)
            else "launches"
        )
        start = f"{self.verdict.upper()} ({self.suite}, {self.launches} {unit} against {self.against})"
        if self.verdict == "pass":
            accepted = len(self.of("accepted"))
            extra = f", {accepted} accepted" if accepted else ""
            return f"{start}: {len(self.of('pass'))} checks passed{extra}"
        if not found:
            return f"{start}: nothing to judge"
        more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
        where = f"{found[0].label}: " if found[0].label else ""
        return f"{start}: {where}{found[0].text}{more}"


def judge_pairs(
    comparison: Comparison,
    *,
    policy: Policy,
    suite: str,
    against: str,
    today: str,
    pairs: int,
    controls: Mapping[str, Sequence[float]] | None = None,
    notes: Sequence[str] = (),
) -> Judgement:
    """Judge interleaved pairs by the rule of `hvbench.comparison.gate.rule`; below six pairs nothing is decided."""
    findings = _find_obstacles(comparison)
    if comparison.is_comparable:
        chosen, gaps = _choose(comparison, policy=policy, suite=suite)
        findings += gaps
        series = [_series(change, policy=policy, suite=suite) for _, change in chosen]
        decisions = decide(series, controls=controls)
        for (point, change), decision in zip(chosen, decisions, strict=True):
            findings.append(_judge_change(point, change, decision, policy=policy, suite=suite, today=today))
        findings += _judge_losses(comparison, policy=policy, suite=suite, today=today)
    # What is accepted or broken does not change with more pairs; what is undecided may.
    kinds = {finding.kind for finding in findings}
    stops = bool(kinds & {"not comparable", "crash", "missing", "regression"}) and (
        pairs >= LOOKS[0] or "regression" not in kinds
    )
    undecided = [finding.decision for finding in findings if finding.decision and finding.kind != "accepted"]
    return Judgement(
        suite=suite,
        against=against,
        findings=tuple(_sort(findings)),
        comparison=comparison,
        launches=pairs,
        notes=(*notes, *_describe_expired(policy, today=today)),
        is_final=stops or (pairs >= LOOKS[0] and is_final(undecided, pairs=pairs)),
    )


def judge_baseline(
    comparison: Comparison, *, policy: Policy, suite: str, against: str, today: str, launches: int
) -> Judgement:
    """Judge a run against a stored one: unless the policy says otherwise, a regression is a suspicion only."""
    findings = _find_obstacles(comparison)
    if comparison.is_comparable:
        chosen, gaps = _choose(comparison, policy=policy, suite=suite)
        findings += gaps
        oriented = [_orient(change, policy=policy, suite=suite) for _, change in chosen]
        adjusted = iter(adjust_holm([one.p_value for one in oriented if one.p_value is not None]))
        for (point, change), one in zip(chosen, oriented, strict=True):
            p_value = None if one.p_value is None else next(adjusted)
            decision = _decide_once(
                change, one, p_value=p_value, margin=policy.margin_of(change.metric.name, suite=suite)
            )
            found = _judge_change(point, change, decision, policy=policy, suite=suite, today=today)
            if found.kind == "regression" and not policy.fail_on_baseline:
                text = f"{found.text}: suspected; a stored baseline cannot tell a slower program from a slower day, run hvbench ab"
                found = Finding(**{**vars(found), "kind": "inconclusive", "text": text})
            findings.append(found)
        findings += _judge_losses(comparison, policy=policy, suite=suite, today=today)
    return Judgement(
        suite=suite,
        against=against,
        findings=tuple(_sort(findings)),
        comparison=comparison,
        launches=launches,
        notes=_describe_expired(policy, today=today),
    )


def _find_obstacles(comparison: Comparison) -> list[Finding]:
    findings = [
        Finding(kind="not comparable", label="", metric=name, text=f"{name} differs: A {shorten(a)}, B {shorten(b)}")
        for name, (a, b) in comparison.differences.items()
    ]
    findings += [
        Finding(kind="not comparable", label=point.label, metric="parity", text=point.mismatch)
        for point in comparison.points
        if point.mismatch
    ]
    findings += [
        Finding(
            kind="crash" if each.is_crash else "missing",
            label=each.label,
            metric="outcome",
            text=f"{each.arm}: {each.reason}",
        )
        for each in comparison.missing
    ]
    if not comparison.points and not findings:
        findings.append(Finding(kind="missing", label="", metric="points", text="no point ended in ok on both sides"))
    return findings


def _choose(
    comparison: Comparison, *, policy: Policy, suite: str
) -> tuple[list[tuple[PointComparison, Change]], list[Finding]]:
    """The figures that the verdict rests on, and a finding for each that some launch lacks."""
    judged = [metric for metric in METRICS if policy.judges(metric.name, suite=suite)]
    chosen, gaps = [], []
    for point in comparison.points:
        changes = {change.metric.name: change for change in point.changes}
        for metric in judged:
            if metric.name in changes:
                chosen.append((point, changes[metric.name]))
            elif (
                policy.names(metric.name, suite=suite) or metric.name != "peak_device_memory_bytes"
            ):  # no GPU: no such figure
                text = f"{metric.title}: not every launch has it"
                gaps.append(
                    Finding(
                        kind="missing", label=point.label, metric=metric.name, text=text, point_id=point.point_ids[1]
                    )
                )
    return chosen, gaps


def _series(change: Change, *, policy: Policy, suite: str) -> Series:
    is_flipped = policy.is_lower_better(change.metric.name, suite=suite) != change.metric.is_lower_better
    return Series(
        worse_by=tuple(-d for d in change.worse_by) if is_flipped else change.worse_by,
        margin=policy.margin_of(change.metric.name, suite=suite),
        is_timing=change.metric.is_timing,
    )


@dataclass(frozen=True, kw_only=True)
class _Oriented:
    """A ratio of unpaired launches as "worse by": fractions, and the one-sided p-value."""

    estimate: float
    low: float | None
    high: float | None
    p_value: float | None


def _orient(change: Change, *, policy: Policy, suite: str) -> _Oriented:
    estimate, low, high = change.worse
    if policy.is_lower_better(change.metric.name, suite=suite) != change.metric.is_lower_better:
        estimate, low, high = (None if value is None else 1 / (1 + value) - 1 for value in (estimate, high, low))
    two_sided = change.ratio.p_value
    p_value = None if two_sided is None else two_sided / 2 if estimate > 0 else 1 - two_sided / 2
    return _Oriented(estimate=estimate, low=low, high=high, p_value=p_value)


def _decide_once(change: Change, one: _Oriented, *, p_value: float | None, margin: float) -> Decision:
    n = min(change.ratio.n_a, change.ratio.n_b)
    if n < MIN_LAUNCHES or p_value is None:
        return Decision(
            "inconclusive",
            f"{n} launches a side; {MIN_LAUNCHES} are needed",
            (),
            one.estimate,
            one.low,
            one.high,
            p_value,
        )
    if p_value <= SINGLE_LOOK / 2 and one.estimate >= margin:
        call, reason = "regression", "the interval lies above 0, and the estimate reaches the margin"
    elif one.high < margin:
        call, reason = "pass", "the interval lies below the margin"
    else:
        call, reason = "inconclusive", "the interval reaches beyond the margin"
    return Decision(call, reason, (), one.estimate, one.low, one.high, p_value)


def _judge_change(
    point: PointComparison, change: Change, decision: Decision, *, policy: Policy, suite: str, today: str
) -> Finding:
    kind, text = decision.call, describe_decision(change, decision)
    if kind == "regression":
        text += describe_origin(point)
        accepted = policy.find_accepted(
            point_id=point.point_ids[1], metric=change.metric.name, suite=suite, change=decision.estimate, today=today
        )
        if accepted:
            kind, text = "accepted", f"{text}: accepted until {accepted.expires.isoformat()}: {accepted.reason}"
    return Finding(
        kind=kind, label=point.label, metric=change.metric.name, text=text, point_id=point.point_ids[1], change=change,
        decision=decision,
    )  # fmt: skip


def _judge_losses(comparison: Comparison, *, policy: Policy, suite: str, today: str) -> list[Finding]:
    """A loss that moved is a regression of its own kind: nothing that should change speed alone changes it."""
    findings = []
    for point in comparison.points if policy.check_loss else ():
        if point.loss is None:
            continue
        kind, text = (
            "pass",
            f"losses agree (largest relative difference {point.loss.largest:.1e}, allowed {point.loss.allowed:.1e})",
        )
        if point.loss.is_outside:
            a, b = ("no number" if loss is None else f"{loss:.6g}" for loss in (point.loss.loss_a, point.loss.loss_b))
            kind = "regression"
            text = (
                f"the loss changed at step {point.loss.step}: {a} became {b} (largest relative difference "
                f"{point.loss.largest:.1e}, allowed {point.loss.allowed:.1e})"
            )
            accepted = policy.find_accepted(
                point_id=point.point_ids[1], metric="loss", suite=suite, change=point.loss.largest, today=today
            )
            if accepted:
                kind, text = "accepted", f"{text}: accepted until {accepted.expires.isoformat()}: {accepted.reason}"
        findings.append(Finding(kind=kind, label=point.label, metric="loss", text=text, point_id=point.point_ids[1]))
    return findings


def describe_decision(change: Change, decision: Decision) -> str:
    """`step time 5.2 % worse (+3.1 % to +7.4 %): the interval …`."""
    if decision.estimate is None:
        return f"{change.metric.title}: {decision.reason}"
    better = " worse" if decision.estimate > 0 else " better"
    figures = f"{abs(decision.estimate):.1%}{better}"
    if decision.low is not None:
        figures += f" ({decision.low:+.1%} to {decision.high:+.1%})"
    return f"{change.metric.title} {figures}: {decision.reason}".replace("%", " %")


def describe_origin(point: PointComparison) -> str:
    """Which part of the step grew most, from the ablation, where there is one."""
    parts = [change for change in point.changes if change.metric.name in PARTS]
    grown = {change.metric.title: change.b.centre - change.a.centre for change in parts}
    total = sum(value for value in grown.values() if value > 0)
    if not total > 0:
        return ""
    title, seconds = max(grown.items(), key=lambda item: item[1])
    return f"; the {title} grew most, by {seconds * 1e3:.3g} ms ({seconds / total:.0%} of all that grew)".replace(
        "%", " %"
    )


def _describe_expired(policy: Policy, *, today: str) -> tuple[str, ...]:
    return tuple(
        f"the exception for {one.metric} of {one.point} expired on {one.expires.isoformat()} and no longer counts: remove it"
        for one in policy.expired(today=today)
    )


def _sort(findings: Sequence[Finding]) -> list[Finding]:
    order = list(EXIT_CODES)

    def size(finding: Finding) -> float:
        estimate: Any = finding.decision.estimate if finding.decision else None
        return -abs(estimate) if estimate is not None and math.isfinite(estimate) else 0.0

    return sorted(findings, key=lambda finding: (order.index(finding.kind), size(finding)))
