"""The table "What was learned, seed by seed": every contrast of what the question compares, and of the frameworks."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from hvbench.analysis.contrasts.learning import Learned, compared_axes, contrast_axis
from hvbench.analysis.contrasts.twins import contrast_frameworks
from hvbench.analysis.frame.axes import GLOBAL_BATCH
from hvbench.analysis.frame.learning import choice_axes
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE
from hvbench.analysis.show.panels import STYLES, describe_value
from hvbench.analysis.show.tables import Table, describe_constants, describe_lost
from hvbench.analysis.stats.contrasts import Call, Contrast
from hvbench.analysis.stats.losses import SAME_WITHIN, LossCall, LossContrast
from hvbench.analysis.topics.convergence.words import name_budget

VERDICTS = {LossCall.LOWER: "lower", LossCall.HIGHER: "higher", LossCall.SAME: "the same", LossCall.OPEN: "open"}
OF_STEPS = {Call.FASTER: "more", Call.SLOWER: "fewer", Call.EQUAL: "as many", Call.OPEN: "open"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One contrast in words, and what the rule says of its losses and of its steps to the target."""

    choice: str
    against: str
    loss: LossContrast | None
    steps: Contrast | None


def contrast_tables(run: Run) -> list[Table]:
    """The one table; none where nothing was evaluated, or nothing is compared."""
    lines = run.derive(list_lines)
    return [_make_table(run, lines)] if lines else []


def list_lines(run: Run) -> list[Line]:
    """All contrasts in the order of the sentences: the axes that the question compares, then the frameworks."""
    lines = []
    for axis in compared_axes(run):
        gaps = contrast_axis(run, axis) if axis not in GLOBAL_BATCH else None
        for gap in gaps.gaps if gaps else ():
            if gap.loss or gap.steps:
                names = (name_choice(run, gap.one), name_choice(run, gap.other))
                lines.append(Line(choice=names[0], against=names[1], loss=gap.loss, steps=gap.steps))
    for gap in contrast_frameworks(run):
        chosen = ", ".join(describe_value(axis, value, emulated=frozenset()) for axis, value in gap.chosen.items())
        where = f" ({chosen})" if chosen else ""
        labels = (STYLES[gap.framework].label, STYLES[gap.against].label)
        lines.append(Line(choice=f"{labels[0]}{where}", against=labels[1], loss=gap.loss, steps=None))
    return lines


def name_choice(run: Run, one: Learned) -> str:
    """A value in words, with the setting by which it speaks where it has several."""
    text = describe_value(one.axis, one.value, emulated=frozenset())
    others = [axis for axis in choice_axes(run) if axis != one.axis]
    if len(one.learners) > 1 or not others:
        return text
    setting = ", ".join(describe_value(axis, one.learners[0].chosen[axis], emulated=frozenset()) for axis in others)
    return f"{text} ({setting})"


def _make_table(run: Run, lines: list[Line]) -> Table:
    has_steps = any(line.steps for line in lines)
    header = (
        "choice",
        "against",
        "n",
        f"difference of loss{' (nats)' if run.has_losses_in_nats else ''}",
        INTERVAL,
        "of the loss (%)",
        f"{INTERVAL} (%)",
        "loss",
    )
    if has_steps:
        header += ("steps to target, ratio", f"{INTERVAL} (steps)", "steps")
    return Table(
        name="learned",
        title="What was learned, seed by seed",
        constants=describe_constants(run.points, without=("framework",)),
        notes=(
            f"Validation losses after as many {name_budget(run)} as every launch was evaluated for, choice - against, paired by seed: "
            f"n seeds. Launches of one seed are one piece of evidence{'' if run.is_of_scripts else ', whichever framework trained them'}, and are averaged. "
            "A value that switches its axis off is what the others are compared with, all else equal; of any other axis "
            "each value speaks by its best setting, and the best one is what the others are compared with. Intervals are "
            f"corrected for the number of contrasts of an axis{'' if run.is_of_scripts else ', or of the frameworks'}. Lower and higher: the interval leaves "
            f"out 0, and the estimate is at least {100 * SAME_WITHIN:g} % of the loss; the same: the interval lies within ± "
            f"{100 * SAME_WITHIN:g} % of it. Steps to the target: where the line between two evaluations meets it; only where every "
            "launch of both got there.",
            *describe_lost(run.points),
        ),
        data=pd.DataFrame([_raw(line) for line in lines]),
        header=header,
        is_number=(False, False, True, True, False, True, False, False, *((True, False, False) if has_steps else ())),
        is_brief=(True, True, True, True, True, False, False, True, *((True, False, False) if has_steps else ())),
        cells=[_show(line, has_steps=has_steps) for line in lines],
    )


def _show(line: Line, *, has_steps: bool) -> list[str]:
    cells = [line.choice, line.against, str(_count(line))]
    if line.loss:
        base = line.loss.base
        cells += [f"{line.loss.difference:+.4f}", _ends(line.loss.low, line.loss.high, n=line.loss.seeds, decimals=4)]
        share = [None if end is None else 100 * end / base for end in (line.loss.low, line.loss.high)]
        cells += [
            f"{100 * line.loss.share:+.2f}",
            _ends(*share, n=line.loss.seeds, decimals=2),
            VERDICTS[line.loss.call],
        ]
    else:
        cells += [NOT_AVAILABLE] * 5
    if not has_steps:
        return cells
    if line.steps is None:
        return [*cells, NOT_AVAILABLE, NOT_AVAILABLE, NOT_AVAILABLE]
    low, high = line.steps.low, line.steps.high
    ends = "n=1" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return [*cells, f"{line.steps.ratio:.3f}", ends, OF_STEPS[line.steps.call]]


def _ends(low: float | None, high: float | None, *, n: int, decimals: int) -> str:
    return f"n={n}" if low is None or high is None else f"{low:+.{decimals}f} to {high:+.{decimals}f}"


def _count(line: Line) -> int:
    return line.loss.seeds if line.loss else line.steps.rounds if line.steps else 0


def _raw(line: Line) -> dict[str, object]:
    loss, steps = line.loss, line.steps
    return {
        "choice": line.choice,
        "against": line.against,
        "n": _count(line),
        "loss_difference": loss and loss.difference,
        "loss_difference_low": loss and loss.low,
        "loss_difference_high": loss and loss.high,
        "loss_call": loss and str(loss.call.value),
        "steps_ratio": steps and steps.ratio,
        "steps_ratio_low": steps and steps.low,
        "steps_ratio_high": steps and steps.high,
        "steps_call": steps and OF_STEPS[steps.call],
    }
