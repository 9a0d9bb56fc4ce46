"""A comparison -> the checks of a gate: obstacles, changes of metrics with their decisions, changes of the loss. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hvbench.analysis.frame.metrics import METRICS, PARTS, Metric
from hvbench.comparison.gate.judgement import Check, Kind
from hvbench.comparison.gate.policy import Policy
from hvbench.comparison.gate.rule import Decision
from hvbench.comparison.result import Change, Comparison, PointComparison
from hvbench.spec.messages import shorten

FigureOfPoint = tuple[PointComparison, Change]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a suite is judged by: the policy, on a day, against something."""

    policy: Policy
    suite: str
    against: str  # in words
    today: str  # ISO 8601

    def margin_of(self, change: Change) -> float:
        """A change of this metric that is smaller is none: a share of what side a has."""
        return self.policy.margin_of(change.metric.name, suite=self.suite, typical=change.a.centre)

    def describe_margin(self, change: Change) -> str:
        """The margin in words, and its size where that is more than the policy's share of so small a value."""
        metric, margin = change.metric, self.margin_of(change)
        if margin == self.policy.margin_of(metric.name, suite=self.suite):
            return "the margin"
        return f"the margin, {margin * change.a.centre * metric.scale:.3g} {metric.unit} here"

    def is_flipped(self, change: Change) -> bool:
        """Whether the policy counts the metric in the other direction than the metric itself."""
        return self.policy.is_lower_better(change.metric.name, suite=self.suite) != change.metric.is_lower_better

    def excepts(self, point: PointComparison, change: Change) -> bool:
        """Whether an exception in force names the metric of this point, however large its change."""
        place = {"point_id": point.point_ids[1], "metric": change.metric.name, "suite": self.suite}
        return self.policy.find_accepted(**place, change=-math.inf, today=self.today) is not None

    def accept(self, check: Check, *, change: float) -> Check:
        """`check` as an accepted one where an exception in force covers a change by `change`."""
        found = self.policy.find_accepted(
            point_id=check.point_id, metric=check.metric, suite=self.suite, change=change, today=self.today
        )
        if not found:
            return check
        text = f"{check.text}: accepted until {found.expires.isoformat()}: {found.reason}"
        return Check(**{**vars(check), "kind": Kind.ACCEPTED, "text": text})

    def describe_expired(self) -> tuple[str, ...]:
        """A line for each exception that no longer counts."""
        return tuple(
            f"the exception for {one.metric} of {one.point} expired on {one.expires.isoformat()} and no longer counts: remove it"
            for one in self.policy.expired(today=self.today)
        )


def find_obstacles(comparison: Comparison) -> list[Check]:
    """Why some or all of the sides cannot be compared."""
    checks = [
        Check(kind=Kind.NOT_COMPARABLE, label="", metric=name, text=f"{name} differs: A {shorten(a)}, B {shorten(b)}")
        for name, (a, b) in comparison.differences.items()
    ]
    checks += [
        Check(kind=Kind.NOT_COMPARABLE, label=point.label, metric="parity", text=point.mismatch)
        for point in comparison.points
        if point.mismatch
    ]
    checks += [
        Check(
            kind=Kind.CRASH if gap.is_crash else Kind.MISSING,
            label=gap.label,
            metric="outcome",
            text=f"{gap.arm}: {gap.reason}",
        )
        for gap in comparison.missing
    ]
    if not comparison.points and not checks:
        checks.append(Check(kind=Kind.MISSING, label="", metric="points", text="no point ended in ok on both sides"))
    return checks


def choose_figures(comparison: Comparison, terms: Terms) -> tuple[list[FigureOfPoint], list[Check]]:
    """The figures that the verdict rests on, and a check for every one that some launch lacks."""
    judged = [metric for metric in METRICS if terms.policy.judges(metric.name, suite=terms.suite)]
    chosen, gaps = [], []
    for point in comparison.points:
        changes = {change.metric.name: change for change in point.changes}
        for metric in judged:
            is_named = terms.policy.names(metric.name, suite=terms.suite)
            if metric.name in changes:
                chosen.append((point, changes[metric.name]))
            elif is_named or metric.name != "peak_device_memory_bytes":  # without a GPU there is no such figure
                needs = f", which needs {metric.needs}" if metric.needs else ""
                text = f"{metric.title}: not every launch has it{needs}"
                place = {"label": point.label, "point_id": point.point_ids[1]}
                gaps.append(Check(kind=Kind.MISSING, metric=metric.name, text=text, **place))
    return chosen, gaps


def check_change(point: PointComparison, change: Change, decision: Decision, terms: Terms) -> Check:
    """The check of one metric of one point, from what was decided of it."""
    origin = describe_origin(point, change.metric) if decision.call == Kind.REGRESSION else ""
    check = Check(
        kind=Kind(decision.call),
        label=point.label,
        metric=change.metric.name,
        text=describe_estimate(change.metric, decision) + origin,
        point_id=point.point_ids[1],
        change=change,
        decision=decision,
    )
    return terms.accept(check, change=decision.estimate) if check.kind is Kind.REGRESSION else check


def check_suite(figures: Sequence[FigureOfPoint], decision: Decision, terms: Terms) -> Check:
    """The check of one metric's mean over the points of the suite."""
    metric = figures[0][1].metric
    text = f"all {len(figures)} points together: {describe_estimate(metric, decision)}"
    check = Check(kind=Kind(decision.call), label="", metric=metric.name, text=text, decision=decision)
    return terms.accept(check, change=decision.estimate) if check.kind is Kind.REGRESSION else check


def check_losses(comparison: Comparison, terms: Terms) -> list[Check]:
    """A check of every point's loss: a loss that changed is a regression, for a change of speed alone leaves it as it is."""
    points = [point for point in comparison.points if point.loss is not None and terms.policy.check_loss]
    return [check_loss(point, terms) for point in points]


def check_loss(point: PointComparison, terms: Terms) -> Check:
    """The check of one point's loss."""
    loss = point.loss
    largest = f"(largest relative difference {loss.largest:.1e}, allowed {loss.allowed:.1e})"
    place = {"label": point.label, "metric": "loss", "point_id": point.point_ids[1]}
    if not loss.is_outside:
        return Check(kind=Kind.PASS, text=f"losses agree {largest}", **place)
    a, b = ("no number" if value is None else f"{value:.6g}" for value in (loss.loss_a, loss.loss_b))
    text = f"the loss changed at step {loss.step}: {a} became {b} {largest}"
    return terms.accept(Check(kind=Kind.REGRESSION, text=text, **place), change=loss.largest)


def describe_estimate(metric: Metric, decision: Decision) -> str:
    """`step time 5.2 % worse (+3.1 % to +7.4 %): the interval …`."""
    if decision.estimate is None:
        return f"{metric.title}: {decision.reason}"
    better = " worse" if decision.estimate > 0 else " better"
    figures = f"{abs(decision.estimate):.1%}{better}"
    if decision.low is not None:
        figures += f" ({decision.low:+.1%} to {decision.high:+.1%})"
    return f"{metric.title} {figures}".replace("%", " %") + f": {decision.reason}"


def describe_origin(point: PointComparison, metric: Metric) -> str:
    """Which part of the step grew most, from the ablation, and which operators, from the profiler, where there are such."""
    operators = point.operators.describe() if metric.is_timing else ""
    return describe_grown_part(point) + (f"; {operators}" if operators else "")


def describe_grown_part(point: PointComparison) -> str:
    """Which part of the step grew most, from the ablation, where there is one."""
    parts = [change for change in point.changes if change.metric.name in PARTS]
    grown = {change.metric.title: change.b.centre - change.a.centre for change in parts}
    total = sum(value for value in grown.values() if value > 0)
    if not total > 0:
        return ""
    title, seconds = max(grown.items(), key=lambda item: item[1])
    text = f"; the {title} grew most, by {seconds * 1e3:.3g} ms ({seconds / total:.0%} of all that grew)"
    return text.replace("%", " %")
