"""What reading costs a step: the wait for its batch, by who hands it over, and what preparing batches takes from the steps themselves."""

from __future__ import annotations

from hvbench.analysis.contrasts.points import contrast_points
from hvbench.analysis.frame.metrics import STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, Row
from hvbench.analysis.show.effects import PAIRS, Sides, describe_family, describe_price
from hvbench.analysis.show.panels import describe_value
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.stats.estimates import read_estimate
from hvbench.analysis.topics.choices import list_choices
from hvbench.analysis.topics.questions import was_launched_once
from hvbench.analysis.topics.throughput.pairs import by_framework, describe_point, label_of, measured_rows
from hvbench.analysis.topics.topic import Need, Topic

NAME = "input"
AXES = ("input", "input_workers")
WAIT = "data_seconds_median"


def asks_about_reading(run: Run) -> bool:
    """Whether the question is who should hand the steps their batches."""
    return not run.was_evaluated and bool(run.compared_axes) and set(run.compared_axes) <= set(AXES)


def describe_reading(run: Run) -> list[Sentence]:
    """How long each framework's steps wait for their batches, by who hands them over, and what each choice makes of the steps themselves."""
    if was_launched_once(run):
        return []
    draft, parts = Draft(), []
    for rows in by_framework(measured_rows(run)).values():
        waits = [_describe_wait(draft, row, run.other_axes) for row in rows]
        parts.append(f"a step in {label_of(rows[0])} waits {', '.join(waits)}")
    if not parts:
        return []
    price, is_open = None, False
    count = len(parts)
    for choice in list_choices(run, run.compared_axes):
        one, other = (
            draft.label(describe_value(choice.axis, value, emulated=frozenset()))
            for value in (choice.one, choice.other)
        )
        family = contrast_points(run, choice.pairs)
        sides = Sides(one=one, other=other, things=PAIRS)
        clause = describe_family(draft, family, sides, unmeasured=choice.unmeasured)
        parts.append(clause.text if len(parts) > count else f"in the rest of the step, {clause.text}")
        if clause.is_open and price is None:
            price, is_open = describe_price(run, family), True
    return [draft.finish(NAME, f"{'; '.join(parts)}.", is_open=is_open, price=price)]


def _describe_wait(draft: Draft, row: Row, axes: list[str]) -> str:
    """`0.06 ms (0.3 % of it; 95 % interval 0.05 to 0.07, n = 5) for batches from arrays`."""
    estimate = read_estimate(row, WAIT)
    share = 100 * estimate.centre / (estimate.centre + float(row[STEP]))
    milliseconds = {
        end: draft.quote(f"{1e3 * value:.2g}", 1e3 * value, "milliseconds", row)
        for end in ("centre", "low", "high")
        if (value := getattr(estimate, end)) is not None
    }
    known = f"n = {draft.quote(str(estimate.n), estimate.n, 'count', row)}"
    if "low" in milliseconds and "high" in milliseconds:
        known = f"{INTERVAL} {milliseconds['low']} to {milliseconds['high']}, {known}"
    part = draft.quote(f"{share:.2g}", share, "share", row)
    who = "batches from arrays"
    if row["input"] != "array":
        who = f"its own input with {row['input_workers'] or 'no'} worker{'' if row['input_workers'] == 1 else 's'}"
    others = describe_point(row, [axis for axis in axes if axis not in AXES])
    where = draft.label(f"{who}, {others}" if others else who)
    return f"{milliseconds['centre']} ms ({part} % of all; {known}) for {where}"


def has_inputs(run: Run) -> bool:
    """Whether launches differ in who hands the steps their batches."""
    return not run.is_of_scripts and run.points["input"].nunique() > 1


TOPIC = Topic(
    name="Input",
    question="What does reading its batch cost a step?",
    needs=Need(words="launches with another input", is_met=has_inputs),
    sentences=describe_reading,
    precedence=30,
    answers=asks_about_reading,
)
