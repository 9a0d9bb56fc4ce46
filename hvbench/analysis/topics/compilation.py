"""What compiling costs and saves: the first step, which compiles, against shorter steps after it, and how many of them pay it back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hvbench.analysis.contrasts.points import PointFamily, contrast_points
from hvbench.analysis.frame.axes import AXES
from hvbench.analysis.frame.metrics import STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, Row, format_number
from hvbench.analysis.show.effects import PAIRS, Sides, describe_family, describe_price
from hvbench.analysis.show.panels import describe_value
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.tables import Table, are_numbers, describe_constants, describe_lost, head_axes, show_axes
from hvbench.analysis.stats.contrasts import Call, Contrast
from hvbench.analysis.stats.estimates import Estimate, estimate_mean, estimate_rate, summary_of
from hvbench.analysis.stats.quotients import Quotient, quotient_of_means
from hvbench.analysis.topics.choices import Choice, list_choices
from hvbench.analysis.topics.paired_steps import show_difference, show_ratio, spread_columns, step_ratios
from hvbench.analysis.topics.questions import asks_about, was_launched_once
from hvbench.analysis.topics.throughput.pairs import by_framework, title_of
from hvbench.analysis.topics.topic import Need, Topic

NAME = "compilation"
AXIS, BASE = "compile", "none"
FIRST = "first_step_seconds"


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A point that was compiled beside the same one that was not: seconds are means over the rounds that both have."""

    one: Row
    other: Row
    contrast: Contrast  # of step seconds, compiled / not
    first_seconds: Estimate  # of the first step, compiled
    base_first_seconds: Estimate
    extra_seconds: Estimate  # that the first step takes longer
    step_seconds: Estimate
    base_step_seconds: Estimate
    saved_seconds: Estimate  # that a step takes less
    steps: Quotient  # extra seconds / saved seconds a step

    @property
    def pays(self) -> bool:
        """Whether a step is shorter, by the one rule: only then is anything paid back."""
        return self.contrast.call is Call.SLOWER  # fewer seconds

    @property
    def minutes(self) -> float:
        """Minutes of training without compiling after which both have done as many steps."""
        return (self.steps.centre * self.base_step_seconds.centre + self.base_first_seconds.centre) / 60


def find_compiled(run: Run) -> list[Compiled]:
    """Every compiled point that was also run without, in table order; step ratios are one family."""
    return run.derive(_find_compiled)


def _find_compiled(run: Run) -> list[Compiled]:
    points = run.points[(run.points["status"] == "ok") & run.points[STEP].notna() & run.points[FIRST].notna()]
    pairs = [pair for choice in _choices(run) for pair in choice.pairs]
    ratios = step_ratios(run, {str(one["point_id"]): (one["point_id"], other["point_id"]) for one, other in pairs})
    found = []
    for one, other in pairs:
        a, b = (
            points[points["point_id"] == row["point_id"]].set_index("repeat")[[FIRST, STEP]] for row in (one, other)
        )
        both = a.merge(b, left_index=True, right_index=True, suffixes=("", "_base")).astype(float)
        ratio = ratios.get(str(one["point_id"]))
        if ratio is None or both.empty:
            continue
        extra, saved = both[FIRST] - both[f"{FIRST}_base"], both[f"{STEP}_base"] - both[STEP]
        found.append(
            Compiled(
                one=one,
                other=other,
                contrast=ratio,
                first_seconds=estimate_rate(both[FIRST].tolist()),
                base_first_seconds=estimate_rate(both[f"{FIRST}_base"].tolist()),
                extra_seconds=estimate_mean(extra.tolist()),
                step_seconds=estimate_rate(both[STEP].tolist()),
                base_step_seconds=estimate_rate(both[f"{STEP}_base"].tolist()),
                saved_seconds=estimate_mean(saved.tolist()),
                steps=quotient_of_means(extra.tolist(), saved.tolist()),
            )
        )
    return found


def _choices(run: Run) -> list[Choice]:
    """Every way to compile against not compiling, where both were measured."""
    return [choice for choice in list_choices(run, [AXIS]) if choice.other == BASE]


def has_both(run: Run) -> bool:
    """Whether launches that were compiled and launches that were not were measured."""
    measured = run.points.loc[run.points[STEP].notna()]
    return AXIS in run.other_axes and set(measured[AXIS]) > {BASE}


# The table


def compilation_tables(run: Run) -> list[Table]:
    """The one table."""
    table = compilation_table(run)
    return [table] if table.cells else []


def compilation_table(run: Run) -> Table:
    """One row per compiled point: its first step and its other steps beside those without, and what pays it back."""
    found, varying = find_compiled(run), [name for name in run.other_axes if name != AXIS]
    rows, data = [], []
    for each in found:
        rows.append(
            [
                str(each.one["framework"]), *show_axes([*varying, AXIS], each.one), str(each.steps.n),
                _seconds(each.base_first_seconds), _seconds(each.first_seconds), show_difference(each.extra_seconds, scale=1.0),
                _milliseconds(each.base_step_seconds), _milliseconds(each.step_seconds), show_ratio(each.contrast),
                show_difference(each.saved_seconds), show_steps(each), show_minutes(each),
            ]
        )  # fmt: skip
        data.append(_raw(each))
    header = (
        "framework", *head_axes([*varying, AXIS]), "n", "first step, not compiled (s)", "first step (s)", "compiling costs (s)",
        "step, not compiled (ms)", "step (ms)", "against not compiled", "saves a step (ms)", "steps to pay back", "pays after (min)",
    )  # fmt: skip
    return Table(
        name=NAME,
        title="What compiling costs and saves",
        constants=describe_constants(run.points, without=("framework", AXIS)),
        notes=(
            "Compiling happens in the first step, and every launch compiles everything anew. Costs: what the first step takes longer than one that is "
            f"not compiled; saves: what the median of the others takes less; means over n rounds that both have, {INTERVAL} in brackets (Student's t). "
            "Against not compiled: ratio of step times by the one rule, below 1 is faster, corrected for all rows. Steps to pay back: costs over saves, "
            "Fieller's interval; never, where steps are not shorter but longer; open, where the rounds cannot say. Pays after: the training time, "
            "without compiling, of as many steps.",
            *describe_lost(run.points),
        ),
        data=pd.DataFrame(data),
        header=header,
        is_number=(False, *are_numbers([*varying, AXIS], summary_of(run)), *(True,) * 10),
        is_brief=(True, *(True,) * (len(varying) + 2), False, True, True, False, True, True, False, True, True),
        cells=rows,
    )


def show_steps(each: Compiled) -> str:
    """`412 (310 to 560)`; `never` where steps are longer, `none saved` where they are as long, `open` where nobody can say."""
    if each.contrast.call is Call.FASTER:  # more seconds
        return "never"
    if not each.pays:
        return "open" if each.contrast.call is Call.OPEN else "no shorter step"
    if each.extra_seconds.centre <= 0:
        return "0"
    return f"{each.steps.centre:,.0f}{_ends(each.steps)}"


def show_minutes(each: Compiled) -> str:
    """`3.1`, where it pays."""
    return format_number(each.minutes, decimals=1) if each.pays and each.extra_seconds.centre > 0 else NOT_AVAILABLE


def _ends(steps: Quotient) -> str:
    if steps.low is None or steps.high is None:
        return f" (n={steps.n})"
    low = max(0.0, steps.low)
    return f" (over {low:,.0f})" if math.isinf(steps.high) else f" ({low:,.0f} … {steps.high:,.0f})"


def _seconds(estimate: Estimate) -> str:
    return format_number(estimate.centre, decimals=1)


def _milliseconds(estimate: Estimate) -> str:
    return format_number(1e3 * estimate.centre, decimals=1)


def _raw(each: Compiled) -> dict[str, Any]:
    steps = each.steps if each.pays else None
    return (
        {**{name: each.one[name] for name in AXES}, "point_id": each.one["point_id"], "rounds": each.steps.n}
        | {
            "base_first_step_seconds": each.base_first_seconds.centre,
            "base_step_seconds": each.base_step_seconds.centre,
        }
        | spread_columns(FIRST, *_three(each.first_seconds))
        | spread_columns("compile_seconds", *_three(each.extra_seconds))
        | spread_columns(STEP, *_three(each.step_seconds))
        | spread_columns("step_ratio", each.contrast.ratio, each.contrast.low, each.contrast.high)
        | spread_columns("saved_seconds_per_step", *_three(each.saved_seconds))
        | spread_columns("steps_to_pay_back", *((steps.centre, steps.low, steps.high) if steps else ()))
        | {"minutes_to_pay_back": each.minutes if steps else None, "call": str(each.contrast.turned().call)}
    )


def _three(estimate: Estimate) -> tuple[float, float | None, float | None]:
    return estimate.centre, estimate.low, estimate.high


# The sentence


def describe_compilation(run: Run) -> list[Sentence]:
    """Whether compiling pays, and after how many steps and minutes: a clause a framework and way to compile, those that pay first."""
    if was_launched_once(run):
        return []
    draft, said = Draft(), []
    for choice in _choices(run):
        for name, pairs in by_framework_pairs(choice).items():
            family = contrast_points(run, pairs)
            ids = {one["point_id"] for one, _ in pairs}
            mine = [each for each in find_compiled(run) if each.one["point_id"] in ids]
            said.append((_describe(draft, run, choice, name, family, mine), family))
    if not said:
        return []
    said.sort(key=lambda pair: pair[0].place)
    text = "; ".join(clause.text for clause, _ in said)
    is_open = all(clause.is_open for clause, _ in said)
    price = next((describe_price(run, family) for clause, family in said if clause.is_open), None)
    strength = max(clause.strength for clause, _ in said)
    return [draft.finish(NAME, f"{text}.", strength=strength, is_open=is_open, price=price)]


@dataclass(frozen=True, kw_only=True)
class Said:
    """A clause about one framework; `place` sorts those that pay before those that do not."""

    text: str
    place: int
    strength: float
    is_open: bool


def by_framework_pairs(choice: Choice) -> dict[str, list[tuple[Row, Row]]]:
    """Framework -> its pairs."""
    names = by_framework([one for one, _ in choice.pairs])
    return {name: [pair for pair in choice.pairs if pair[0]["framework"] == name] for name in names}


def _describe(
    draft: Draft, run: Run, choice: Choice, framework: str, family: PointFamily, mine: Sequence[Compiled]
) -> Said:
    one, other = (
        draft.label(describe_value(AXIS, value, emulated=frozenset())) for value in (choice.one, choice.other)
    )
    where = f"in {title_of(run, framework)}"
    clause = describe_family(draft, family, Sides(one=one, other=other, things=PAIRS))
    paying = [each for each in mine if each.pays and each.extra_seconds.centre > 0]
    place, text = 2, f"{where} {clause.text}"
    if paying:
        place, text = 0, f"{where} {_say_payback(draft, paying, whole=len(mine))}{clause.text}"
    elif not clause.is_open and all(each.contrast.call is Call.FASTER for each in mine):
        place, text = 1, f"{where} compiling never pays: {clause.text}"
    return Said(text=text, place=place, strength=clause.strength, is_open=clause.is_open)


def _say_payback(draft: Draft, paying: Sequence[Compiled], *, whole: int) -> str:
    """`compiling pays after 412 steps, 3.1 minutes of training (95 % interval 310 to 560 steps): it costs 24.1 s, then `."""
    steps = _span(draft, [each.steps.centre for each in paying], "steps_to_pay_back")
    minutes = _span(draft, [each.minutes for each in paying], "minutes_to_pay_back", decimals=1)
    seconds = _span(draft, [each.extra_seconds.centre for each in paying], "compile_seconds", decimals=1)
    n = draft.count(max(each.steps.n for each in paying))
    where = "" if len(paying) == whole else f" in {draft.count(len(paying))} of {draft.count(whole)} {PAIRS}"
    lows = [each.steps.low for each in paying if each.steps.low is not None]
    highs = [each.steps.high for each in paying if each.steps.high is not None]
    interval = "no interval"
    if lows and highs:
        low, high = max(0.0, min(lows)), max(highs)
        ends = f"over {draft.quote(f'{low:,.0f}', low, 'steps_to_pay_back_low')}"
        if math.isfinite(high):
            ends = f"{ends.removeprefix('over ')} to {draft.quote(f'{high:,.0f}', high, 'steps_to_pay_back_high')}"
        each = " of each within" if len(paying) > 1 else ""
        interval = f"{INTERVAL}{each} {ends} steps"
    return f"compiling pays{where} after {steps} steps, {minutes} minutes of training ({interval}, n = {n}): it costs {seconds} s, then "


def _span(draft: Draft, values: Sequence[float], kind: str, *, decimals: int = 0) -> str:
    """`310 to 412`, or one number where both read the same."""
    texts: dict[str, float] = {}
    for value in (min(values), max(values)):
        texts.setdefault(f"{value:,.{decimals}f}", value)
    return " to ".join(draft.quote(text, value, kind) for text, value in texts.items())


def asks_about_compilation(run: Run) -> bool:
    """Whether the question is what compiling does."""
    return asks_about(run, AXIS) and run.compared_axes == [AXIS]


TOPIC = Topic(
    name="Compilation",
    question="What does compiling cost and save, and after how many steps does it pay?",
    needs=Need(words="launches that were compiled, and launches that were not", is_met=has_both),
    tables=compilation_tables,
    sentences=describe_compilation,
    precedence=32,
    answers=asks_about_compilation,
)
