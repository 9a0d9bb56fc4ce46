"""What a straggler on purpose costs: launches with `straggler_seconds` beside the same without, for each way to exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hvbench.analysis.frame.axes import AXES
from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.samples import find_defect, make_samples
from hvbench.analysis.show.cells import INTERVAL, format_percent
from hvbench.analysis.show.panels import describe_value
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.tables import Table, describe_constants, head_axes, leading_axes, show_axes
from hvbench.analysis.stats.estimates import Estimate, estimate_mean, sort_points
from hvbench.analysis.topics.paired_steps import find_launches, show_difference, spread_columns
from hvbench.analysis.topics.questions import asks_about
from hvbench.records.record import Record

AXIS = "straggler_seconds"
NAME = "straggler_costs"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """By how many seconds a point's steps are longer than those of the same point without its straggler, round by round."""

    point: Mapping[str, Any]
    base_id: str
    rounds: Mapping[int, float]  # repeat -> seconds

    @property
    def estimate(self) -> Estimate:
        """The mean over the rounds."""
        return estimate_mean(list(self.rounds.values()))


def pace_seconds(record: Record) -> float:
    """Seconds of a step at the mean of the ranks' own rates: of ranks that wait for each other what a step takes, and of others what all get done."""
    samples = make_samples(record)
    steps = samples.timed(samples.step_seconds)
    return 1 / float((steps.shape[1] / steps.sum(axis=1)).mean())


def find_costs(run: Run) -> list[Cost]:
    """One for every point with a straggler that was measured without one, too."""
    paces = {
        record.key: pace_seconds(record) for record in run.records if record.is_measured and find_defect(record) is None
    }
    points = run.points
    late = sort_points(points[points[AXIS] > 0].drop_duplicates("point_id"))
    costs = []
    for _, row in late.iterrows():
        point = {name: row[name] for name in AXES}
        base = find_launches(points, point, changed={AXIS: 0.0})
        if base.empty:
            continue
        ids = str(row["point_id"]), str(base["point_id"].iloc[0])
        with_it, without = (_by_repeat(run, point_id, paces) for point_id in ids)
        rounds = {repeat: with_it[repeat] - without[repeat] for repeat in with_it if repeat in without}
        if rounds:
            costs.append(Cost(point=row.to_dict(), base_id=ids[1], rounds=rounds))
    return costs


def _by_repeat(run: Run, point_id: str, paces: Mapping[str, float]) -> dict[int, float]:
    return {record.repeat: paces[record.key] for record in run.records_by_point[point_id] if record.key in paces}


def has_costs(run: Run) -> bool:
    """Whether the run compares launches with a straggler on purpose with launches without."""
    return AXIS in run.varying_axes and bool(run.derive(find_costs))


def cost_table(run: Run) -> Table:
    """One row per point with a straggler."""
    costs = run.derive(find_costs)
    points = run.points[run.points["point_id"].isin([cost.point["point_id"] for cost in costs])]
    axes = [name for name in leading_axes(run.points) if name != AXIS]
    rows, cells = [], []
    for cost in costs:
        delay, estimate = float(cost.point[AXIS]), cost.estimate
        share = estimate.centre / delay
        spread = spread_columns("cost_seconds", estimate.centre, estimate.low, estimate.high)
        named = {name: cost.point[name] for name in ("point_id", *AXES)}
        rows.append({**named, "n": estimate.n, **spread, "share_of_delay": share})
        cells.append(
            [
                *show_axes(axes, cost.point),
                f"{1e3 * delay:g}",
                str(estimate.n),
                show_difference(estimate),
                format_percent(share),
            ]
        )
    header = (*head_axes(axes), "late by (ms)", "n", "steps longer by (ms)", "of the delay (%)")
    return Table(
        name=NAME,
        title="What a straggler costs",
        constants=describe_constants(points, without=("framework", AXIS)),
        notes=(
            "The last rank begins every step so much later. Steps at the mean of the ranks' own rates, with it and without, round by round: mean of "
            f"the differences, {INTERVAL}. Ranks that wait for each other lose all of the delay, or less where it hides a wait that they have anyhow.",
        ),
        data=pd.DataFrame(rows),
        header=header,
        is_number=(*(False for _ in axes), True, True, True, True),
        is_brief=(True,) * len(header),
        cells=cells,
    )


def describe_costs(run: Run) -> list[Sentence]:
    """What a late rank costs each strategy, the mean over the other axes; the cheapest first."""
    if not has_costs(run):
        return []
    groups: dict[tuple[float, str], list[Cost]] = {}
    for cost in run.derive(find_costs):
        groups.setdefault((float(cost.point[AXIS]), str(cost.point["strategy"])), []).append(cost)
    sentences = []
    for delay in sorted({delay for delay, _ in groups}):
        parts = {strategy: costs for (other, strategy), costs in groups.items() if other == delay}
        sentences.append(_describe(delay, parts))
    return sentences


def _describe(delay: float, parts: Mapping[str, Sequence[Cost]]) -> Sentence:
    draft = Draft()
    means = {strategy: _mean_by_round(costs) for strategy, costs in parts.items()}
    texts = []
    for strategy, estimate in sorted(means.items(), key=lambda each: each[1].centre):
        ids = [{"point_id": cost.point["point_id"]} for cost in parts[strategy]]
        centre = draft.quote(f"{1e3 * estimate.centre:.1f}", 1e3 * estimate.centre, "cost", *ids)
        ends = f"n = {draft.count(estimate.n)}"
        if estimate.low is not None and estimate.high is not None:
            low, high = (
                draft.quote(f"{1e3 * end:.1f}", 1e3 * end, f"cost_{name}", *ids)
                for name, end in (("low", estimate.low), ("high", estimate.high))
            )
            ends = f"{INTERVAL} {low} to {high}, {draft.count(estimate.n)} rounds"
        texts.append(f"{centre} ms with {draft.label(strategy)} ({ends})")
    late = draft.label(describe_value(AXIS, delay, emulated=frozenset()).removeprefix("straggler "))
    return draft.finish(
        NAME, f"A rank that begins every step {late} late makes the steps longer by {', '.join(texts)}."
    )


def _mean_by_round(costs: Sequence[Cost]) -> Estimate:
    """Over the rounds, of each the mean over the costs that have it: launches of a round ran near each other."""
    repeats = sorted({repeat for cost in costs for repeat in cost.rounds})
    of_rounds = ([cost.rounds[repeat] for cost in costs if repeat in cost.rounds] for repeat in repeats)
    return estimate_mean([sum(values) / len(values) for values in of_rounds])


def asks_about_stragglers(run: Run) -> bool:
    """Whether the question is what a late rank costs."""
    return asks_about(run, AXIS) and has_costs(run)
