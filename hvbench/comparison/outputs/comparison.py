"""A comparison as text, Markdown, CSV or JSON: the verdict first, then what changed most, then everything.

Records are untrusted: what they say is cleaned of control characters and escaped where it is written, never before.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, format_number
from hvbench.analysis.show.render import frame_to_csv
from hvbench.analysis.show.text import clean_text, escape_markdown
from hvbench.analysis.stats.contrasts import EQUAL_WITHIN, Contrast
from hvbench.analysis.stats.estimates import Estimate
from hvbench.comparison.result import Change, Comparison, PointComparison
from hvbench.spec.messages import shorten

MOST = 5
NO_SPREAD = "no spread"  # in place of an interval from a value to itself
SHOWN = 1e-4  # of a value: what four digits cannot show
WORDS = {
    "worse": ("slower", "larger"),
    "better": ("faster", "smaller"),
    "same": ("same", "same"),
    "unclear": ("unclear", "unclear"),
}
HEADER = ("point", "figure", "A", "B", "B/A", "95 % interval", "verdict")
FULL_HEADER = (
    "point",
    "figure",
    "A",
    "interval",
    "B",
    "interval",
    "B/A",
    "interval",
    "p (corrected)",
    "p (sign-flip)",
    "verdict",
)
NOTE = (
    "B/A: ratio of geometric means. Launches that were interleaved are compared round by round, step times and rates by the median of all ratios of "
    "a step of B to one of A; others as two samples (Welch). Interval and p-value are corrected for the number of points, by the one "
    "rule of a report: worse or better if the interval leaves out 1 and the change is at least 1 %, the same if it lies within "
    f"{EQUAL_WITHIN * 100:g} %, else unclear. p (sign-flip) is of the rounds alone, and not corrected."
)


def summarize(comparison: Comparison) -> list[str]:
    """The verdict as sentences, one a line: what a reader must know before any figure comes first."""
    lines = []
    if comparison.differences:
        lines.append("Not comparable: the fingerprints differ, so no change is called a regression.")
        lines += [f"{name}: A {shorten(a)}, B {shorten(b)}" for name, (a, b) in comparison.differences.items()]
    unlike = [point for point in comparison.points if point.mismatch]
    if unlike:
        did = "did NOT do" if any(point.is_different for point in unlike) else "are not proven to have done"
        lines.append(f"The frameworks {did} the same work: do not compare their speed.")
        lines += [f"{point.label}: {point.mismatch}" for point in unlike[:MOST]]
    if not comparison.points:
        lines.append("Nothing to compare: no point ended in ok on both sides.")
    elif comparison.is_comparable:
        lines += _count(comparison)
    lines += [
        f"The loss changed: {point.label}: step {point.loss.step}, {describe_loss(point)}"
        for point in comparison.points
        if point.loss and point.loss.is_outside
    ]
    if comparison.missing:
        crashed = sum(each.is_crash for each in comparison.missing)
        counts = {"on one side only": len(comparison.missing) - crashed, "not ended in ok": crashed}
        lines.append(
            f"Points {', '.join(f'{what}: {count}' for what, count in counts.items() if count)}; they are named below."
        )
    return [*lines, *comparison.notes]


def _count(comparison: Comparison) -> Iterator[str]:
    """One sentence for every side but the reference and decisive metric: how many points are worse, better or the same."""
    for arm in comparison.arms[1:]:
        points = [point for point in comparison.points if point.arm_b == arm]
        changes: dict[str, list[Change]] = {}
        for change in (change for point in points for change in point.changes if change.metric.is_decisive):
            changes.setdefault(change.metric.name, []).append(change)
        for name, found in changes.items():
            counts = Counter(change.call for change in found)
            few = min(min(change.ratio.n_a, change.ratio.n_b) for change in found)
            hint = "; one launch a side says nothing about chance" if few < 2 else ""
            mean = comparison.means.get((arm, name))
            whole = f"; over all of them {describe_mean(mean, found[0])}" if mean else ""
            yield (
                f"{arm} against {comparison.arms[0]}, {found[0].metric.title} of {len(found)} points: {counts['worse']} worse, "
                f"{counts['better']} better, {counts['same']} the same (within {EQUAL_WITHIN * 100:g} %), "
                f"{counts['unclear']} unclear{whole}{hint}."
            )


def describe_mean(mean: Contrast, change: Change) -> str:
    """`4.2 % longer (95 % interval 1.0 to 7.5 %)`, of B."""
    words = ("longer", "shorter") if change.metric.is_timing else ("larger", "smaller")
    shown = mean if mean.ratio > 1 else mean.turned()
    ends = " to ".join(f"{(end - 1) * 100:.1f}" for end in (shown.low, shown.high))
    known = NO_SPREAD if has_no_spread(shown.low, shown.high) else f"{INTERVAL} {ends} %"
    return f"{(shown.ratio - 1) * 100:.1f} % {words[mean.ratio < 1]} ({known})"


def render_text(comparison: Comparison) -> str:
    """For a terminal."""

    def table(header: Sequence[str], rows: list[list[str]]) -> str:
        cells = [[clean_text(cell, limit=60) for cell in row] for row in rows]
        align = ["left" if name in ("point", "figure", "verdict") else "right" for name in header]
        return tabulate(cells, headers=header, tablefmt="simple", colalign=align, disable_numparse=True)

    return _render(
        comparison, title=str.upper, table=table, item=lambda text: f"  {clean_text(text, limit=300)}", note=NOTE
    )


def render_markdown(comparison: Comparison) -> str:
    """For a pull request or a report."""

    def table(header: Sequence[str], rows: list[list[str]]) -> str:
        align = [":---" if name in ("point", "figure", "verdict") else "---:" for name in header]
        lines = [list(header), align, *([escape_markdown(cell) for cell in row] for row in rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def item(text: str) -> str:
        return f"- {escape_markdown(text, limit=300)}"

    return _render(comparison, title=lambda text: f"## {text}", table=table, item=item, note=NOTE)


def _render(
    comparison: Comparison, *,
    title: Callable[[str], str], table: Callable[[Sequence[str], list[list[str]]], str], item: Callable[[str], str], note: str,
) -> str:  # fmt: skip
    blocks = [title("Verdict"), "\n".join(item(line) for line in summarize(comparison))]
    if comparison.points:
        sides = f"A: {comparison.arms[0]}; B: {', '.join(comparison.arms[1:])}"
        several = len(comparison.arms) > 2
        most = [brief_row(*pair, several=several) for pair in sort_changes(comparison)[:MOST]]
        blocks += [title("What changed most"), item(sides), table(HEADER, most)]
        rows = [full_row(point, change, several=several) for point in comparison.points for change in point.changes]
        blocks += [title("Everything"), table(FULL_HEADER, rows), note]
    if comparison.missing:
        lines = [item(f"{each.label}: {each.arm}: {each.reason}") for each in comparison.missing]
        blocks += [title("On one side only, or ended otherwise"), "\n".join(lines)]
    return "\n\n".join(blocks) + "\n"


def sort_changes(comparison: Comparison) -> list[tuple[PointComparison, Change]]:
    """Every change of a decisive metric with its point: those that are called first, and the largest of them."""
    decisive = [(point, change) for point in comparison.points for change in point.changes if change.metric.is_decisive]
    return sorted(decisive, key=lambda pair: -_size(pair[1]))


def _size(change: Change) -> float:
    estimate, _, _ = change.worse
    return abs(estimate) * (1.0 if change.call in ("worse", "better") else 1e-3)


def brief_row(point: PointComparison, change: Change, *, several: bool) -> list[str]:
    """The cells below HEADER; `several` sides are named."""
    return [
        _name(point, several=several), _title(change), show_estimate(change.a, change), show_estimate(change.b, change),
        f"{change.ratio.ratio:.4g}", show_ratio_interval(change), describe_change(change),
    ]  # fmt: skip


def full_row(point: PointComparison, change: Change, *, several: bool) -> list[str]:
    """The cells below FULL_HEADER; `several` sides are named."""
    corrected = change.contrast.p_value if change.contrast else None
    p_values = [NOT_AVAILABLE if p is None else f"{p:.2g}" for p in (corrected, change.ratio.sign_flip_p_value)]
    return [
        _name(point, several=several), _title(change), show_estimate(change.a, change), show_interval(change.a, change),
        show_estimate(change.b, change), show_interval(change.b, change), f"{change.ratio.ratio:.4g}",
        show_ratio_interval(change), *p_values, describe_change(change),
    ]  # fmt: skip


def _name(point: PointComparison, *, several: bool) -> str:
    return f"{point.label} ({point.arm_b})" if several else point.label


def _title(change: Change) -> str:
    unit = "" if change.metric.unit == "1/s" else f" ({change.metric.unit})"
    return f"{change.metric.title}{unit}"


def show_estimate(estimate: Estimate, change: Change) -> str:
    """The centre in the metric's shown unit."""
    return format_number(estimate.centre * change.metric.scale)


def show_interval(estimate: Estimate, change: Change) -> str:
    """The interval in the metric's shown unit, or `n=1`."""
    if estimate.low is None or estimate.high is None:
        return f"n={estimate.n}"
    if has_no_spread(estimate.low, estimate.high):
        return NO_SPREAD
    return " to ".join(format_number(end * change.metric.scale) for end in (estimate.low, estimate.high))


def show_ratio_interval(change: Change) -> str:
    """The corrected interval of B/A, where sides of two machines have none to correct their own; or how many launches there were."""
    ratio = change.contrast or change.ratio
    n = min(change.ratio.n_a, change.ratio.n_b)
    if ratio.low is None:
        return f"n={n}"
    return NO_SPREAD if has_no_spread(ratio.low, ratio.high) else f"{ratio.low:.4g} to {ratio.high:.4g}"


def has_no_spread(low: float, high: float) -> bool:
    """Whether an interval is one value: all launches agreed to as many digits as are shown."""
    return high - low <= SHOWN * abs(high)


def describe_change(change: Change) -> str:
    """`5.2 % slower`, `same`, `unclear`, or a dash where no words are allowed."""
    if change.call is None:
        return NOT_AVAILABLE
    word = WORDS[change.call][0 if change.metric.is_timing else 1]
    return (
        f"{abs(change.ratio.ratio - 1):.1%} {word}".replace("%", " %") if change.call in ("worse", "better") else word
    )


def describe_loss(point: PointComparison) -> str:
    """What the losses of two sides differ by, and by how much they may."""
    a, b = ("no number" if loss is None else f"{loss:.6g}" for loss in (point.loss.loss_a, point.loss.loss_b))
    return f"{a} became {b} (largest relative difference {point.loss.largest:.1e}, allowed {point.loss.allowed:.1e})"


def comparison_frame(comparison: Comparison) -> pd.DataFrame:
    """One row per point and metric: raw values, units in the names of the metrics."""
    rows = [
        {
            "point": point.label, "arm_a": point.arm_a, "arm_b": point.arm_b, "point_id_a": point.point_ids[0],
            "point_id_b": point.point_ids[1], "metric": change.metric.name,
            "better": "lower" if change.metric.is_lower_better else "higher", "is_decisive": change.metric.is_decisive,
            "a": change.a.centre, "a_low": change.a.low, "a_high": change.a.high, "n_a": change.ratio.n_a,
            "b": change.b.centre, "b_low": change.b.low, "b_high": change.b.high, "n_b": change.ratio.n_b,
            "ratio": change.ratio.ratio, "ratio_low": (change.contrast or change.ratio).low,
            "ratio_high": (change.contrast or change.ratio).high,
            "is_paired": change.ratio.is_paired, "p_value": change.ratio.p_value,
            "adjusted_p_value": change.contrast.p_value if change.contrast else None, "sign_flip_p_value": change.ratio.sign_flip_p_value,
            "call": change.call,
        }
        for point in comparison.points
        for change in point.changes
    ]  # fmt: skip
    return pd.DataFrame(rows)


def render_csv(comparison: Comparison) -> str:
    """One row per point and metric; text that a spreadsheet would run is defused."""
    return frame_to_csv(comparison_frame(comparison))


def render_json(comparison: Comparison) -> str:
    """Everything, for programs."""
    rows = json.loads(comparison_frame(comparison).to_json(orient="records", double_precision=15))
    losses = [
        {"point": point.label, "arm_b": point.arm_b, **vars(point.loss), "is_outside": point.loss.is_outside}
        for point in comparison.points
        if point.loss
    ]
    content: dict[str, Any] = {
        "schema_version": 2,  # 2: `mismatches` was `not_alike`
        "verdict": summarize(comparison),
        "is_comparable": comparison.is_comparable,
        "arms": comparison.arms,
        "joined_over": comparison.joined_over,
        "differences": {name: {"a": a, "b": b} for name, (a, b) in comparison.differences.items()},
        "mismatches": {point.label: point.mismatch for point in comparison.points if point.mismatch},
        "missing": [vars(each) for each in comparison.missing],
        "changes": rows,
        "losses": [_without_infinities(loss) for loss in losses],
    }
    return json.dumps(content, indent=1, allow_nan=False, default=str) + "\n"


def _without_infinities(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if value in (float("inf"), float("-inf")) else value for key, value in values.items()}


RENDERERS: dict[str, Callable[[Comparison], str]] = {
    "text": render_text,
    "markdown": render_markdown,
    "csv": render_csv,
    "json": render_json,
}
