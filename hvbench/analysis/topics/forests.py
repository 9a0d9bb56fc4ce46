"""A family of contrasts of points -> the forest plot of it: what every topic that compares points draws first."""

from __future__ import annotations

from collections.abc import Sequence

from hvbench.analysis.contrasts.points import PointContrast, PointFamily
from hvbench.analysis.frame.axes import order_values
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.forest import Effect, Forest, Side
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.stats.contrasts import EQUAL_WITHIN, Contrast
from hvbench.analysis.topics.throughput.pairs import describe_point, label_of
from hvbench.registry import SCRIPT


def side_of(framework: str, *, words: str = "is faster") -> Side:
    """The side on which a framework is the faster one, in the framework's look."""
    style = STYLES[framework]
    return Side(words=f"{style.label} {words}", colour=style.colour, marker=style.marker)


def draw_family(
    run: Run, family: PointFamily, *, name: str, title: str, quantity: str, sides: tuple[Side, Side]
) -> Forest:
    """The family's forest plot. `sides`: what a ratio below 1 means, and what one above 1 does.

    A row says what distinguishes its two points from those of other rows. It has its framework's look where the framework is no side.
    """
    same_framework = all(each.one["framework"] == each.other["framework"] for each in family.contrasts)
    axes = axes_of_rows(run, family)
    rows = [
        _effect(
            describe_row(each, axes, with_framework=same_framework),
            each.contrast,
            side=side_of(each.one["framework"]) if same_framework else None,
        )
        for each in family.contrasts
    ]
    count = len(family.contrasts)
    return Forest(
        name=name,
        title=title,
        quantity=quantity,
        left=sides[0],
        right=sides[1],
        rows=rows,
        mean=_effect(f"mean over all {count}", family.mean) if family.mean else None,
        equal_within=EQUAL_WITHIN,
    )


def axes_of_rows(run: Run, family: PointFamily) -> list[str]:
    """The axes that vary over the contrasts, and are the same on both sides of each."""

    def varies(axis: str) -> bool:
        return len(order_values(axis, [each.one[axis] for each in family.contrasts])) > 1

    def is_compared(axis: str) -> bool:
        return any(len(order_values(axis, [each.one[axis], each.other[axis]])) > 1 for each in family.contrasts)

    return [axis for axis in run.other_axes if varies(axis) and not is_compared(axis)]


def describe_row(pair: PointContrast, axes: Sequence[str], *, with_framework: bool) -> str:
    """`PyTorch, micro-batch 8, fp32`, or the framework alone, or that there is but one configuration."""
    row = {**pair.one, "is_emulated": bool(pair.one["is_emulated"] or pair.other["is_emulated"])}
    is_named = with_framework and not (pair.one["framework"] == SCRIPT and axes)
    framework = label_of(pair.one) if is_named else ""
    return ", ".join(filter(None, [framework, describe_point(row, axes)])) or "the one configuration"


def _effect(label: str, contrast: Contrast, *, side: Side | None = None) -> Effect:
    return Effect(
        label=label,
        value=contrast.ratio,
        low=contrast.low,
        high=contrast.high,
        n=contrast.rounds,
        call=contrast.call,
        side=side,
    )
