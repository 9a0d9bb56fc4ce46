"""What was learned, drawn: a forest plot an axis that the question compares, and one of the frameworks, of the contrasts that the table has."""

from __future__ import annotations

from dataclasses import replace

from hvbench.analysis.contrasts.learning import AxisGaps, Gap, compared_axes, contrast_axis
from hvbench.analysis.contrasts.twins import contrast_frameworks
from hvbench.analysis.frame.axes import GLOBAL_BATCH, plain_name
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.forest import Effect, Forest, Side
from hvbench.analysis.show.panels import STYLES, describe_value
from hvbench.analysis.show.sentences import NATS
from hvbench.analysis.stats.contrasts import EQUAL_WITHIN, Contrast
from hvbench.analysis.stats.losses import CALLS, SAME_WITHIN, LossContrast
from hvbench.analysis.topics.convergence.contrast_table import name_choice
from hvbench.analysis.topics.convergence.twins import is_about_frameworks
from hvbench.analysis.topics.convergence.words import name_budget
from hvbench.analysis.topics.parity.stamps import are_comparable

OF_RULE = {call: of_rule for of_rule, call in CALLS.items()}
LESS, MORE = "lower loss", "higher loss"


def draw_contrasts(run: Run) -> list[Forest]:
    """The axes and the frameworks, first whichever the question compares."""
    if not run.was_evaluated:
        return []  # nothing was learned that could be read, and to group the launches takes seconds of large runs
    found = [contrast_axis(run, axis) for axis in compared_axes(run) if axis not in GLOBAL_BATCH]
    axes = [forest for gaps in found if gaps and (forest := _draw_axis(run, gaps))]
    twins = _draw_frameworks(run)
    return [*twins, *axes] if is_about_frameworks(run) else [*axes, *twins]


def _draw_axis(run: Run, gaps: AxisGaps) -> Forest | None:
    base, axis = name_choice(run, gaps.base), plain_name(gaps.axis).replace("_", " ")
    title = f"What does {axis} do to the loss?" if gaps.is_off else f"Which {axis} gets furthest?"
    by_loss = [(gap, gap.loss) for gap in gaps.gaps if gap.loss]
    if by_loss:
        rows = [_of_loss(name_choice(run, gap.one), loss) for gap, loss in by_loss]
        losses = [loss for _, loss in by_loss]
        forest = _draw_losses(f"contrast_loss_{plain_name(gaps.axis)}", title, f"against {base}", rows, losses)
        if run.has_losses_in_nats:
            return forest
        quantity = f"validation loss after as many {name_budget(run)}, against {base}"
        return replace(forest, unit="in loss", quantity=quantity)  # in which unit nobody knows
    by_steps = [(gap, gap.steps) for gap in gaps.gaps if gap.steps]
    if not by_steps:
        return None
    return Forest(
        name=f"contrast_steps_{plain_name(gaps.axis)}",
        title=title,
        quantity=f"steps to the target loss, against {base}",
        left=Side(words="fewer steps"),
        right=Side(words="more steps"),
        rows=[_of_steps(run, gap, steps) for gap, steps in by_steps],
        equal_within=EQUAL_WITHIN,
        counted="seed",
    )


def _draw_frameworks(run: Run) -> list[Forest]:
    twins = contrast_frameworks(run) if are_comparable(run) else []
    if not twins:
        return []
    rows = []
    for twin in twins:
        chosen = ", ".join(describe_value(axis, value, emulated=frozenset()) for axis, value in twin.chosen.items())
        rows.append(_of_loss(chosen or "the one configuration", twin.loss))
    one, other = STYLES[twins[0].framework].label, STYLES[twins[0].against].label
    losses = [twin.loss for twin in twins]
    return [
        _draw_losses("contrast_loss_framework", "Do both frameworks learn the same?", f"{one} - {other}", rows, losses)
    ]


def _draw_losses(name: str, title: str, against: str, rows: list[Effect], losses: list[LossContrast]) -> Forest:
    return Forest(
        name=name,
        title=title,
        quantity=f"validation loss after as many tokens, {against}",
        left=Side(words=LESS),
        right=Side(words=MORE),
        rows=rows,
        equal_within=SAME_WITHIN * min(loss.base for loss in losses),
        unit=NATS.strip(),
        counted="seed",
    )


def _of_loss(label: str, loss: LossContrast) -> Effect:
    call = OF_RULE[loss.call]
    return Effect(label=label, value=loss.difference, low=loss.low, high=loss.high, n=loss.seeds, call=call)


def _of_steps(run: Run, gap: Gap, steps: Contrast) -> Effect:
    return Effect(
        label=name_choice(run, gap.one),
        value=steps.ratio,
        low=steps.low,
        high=steps.high,
        n=steps.rounds,
        call=steps.call,
    )
