"""The frameworks side by side: which is faster, over the configurations that two of them ran, where they did the same work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import pandas as pd
from matplotlib.figure import Figure

from hvbench.analysis.contrasts.points import PointContrast, PointFamily, contrast_points
from hvbench.analysis.frame.axes import AXES, order_values
from hvbench.analysis.frame.metrics import RATE
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, SPREAD_NOTE, show_spread
from hvbench.analysis.show.effects import Clause, Sides, describe_family, finish_clause, lead
from hvbench.analysis.show.forest import Forest
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.tables import (
    Table,
    are_numbers,
    describe_constants,
    describe_lost,
    head_axes,
    show_axes,
)
from hvbench.analysis.stats.contrasts import EQUAL_WITHIN, Call
from hvbench.analysis.stats.estimates import summary_of, summary_rows, with_interval
from hvbench.analysis.topics.forests import draw_family, side_of
from hvbench.analysis.topics.parity.stamps import are_comparable
from hvbench.analysis.topics.questions import asks_for_the_fastest, was_launched_once
from hvbench.analysis.topics.throughput.pairs import (
    asked_rows,
    count_unmeasured,
    label_of,
    measured_rows,
    pair_values,
)
from hvbench.analysis.topics.throughput.plot import plot_axes
from hvbench.analysis.topics.topic import Need, Topic, never

NAME = "frameworks"

show_rate = show_spread(RATE)

NOTE = (
    "Ratio: of tokens/s, from the steps of launches of the same round (Hodges and Lehmann): in turns each step against the one beside it, "
    "else all steps of one against all of the other; "
    f"geometric mean over n rounds. Its {INTERVAL} is corrected for the number of rows. A framework is called faster where "
    "that interval leaves out 1 and the ratio is 1 % or more from it; equal, where the interval lies within "
    f"{100 * EQUAL_WITHIN:g} % of 1; else it is open. {SPREAD_NOTE}"
)


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """Two frameworks, and the contrasts of the first against the second in all configurations that both ran."""

    one: str
    other: str
    family: PointFamily
    unmeasured: int  # configurations that both tried, and of which no launch of one of them ended in `ok`


def contrast_frameworks(run: Run) -> list[Rivals]:
    """Every two frameworks that ran the same configurations, judged once."""
    return run.derive(_contrast_frameworks)


def _contrast_frameworks(run: Run) -> list[Rivals]:
    measured, asked = measured_rows(run), asked_rows(run)
    found = []
    for other, one in combinations(order_values("framework", run.points["framework"]), 2):
        if pairs := pair_values(measured, "framework", one, other):
            lost = count_unmeasured(asked, "framework", one, other)
            found.append(Rivals(one=one, other=other, family=contrast_points(run, pairs), unmeasured=lost))
    return found


def framework_tables(run: Run) -> list[Table]:
    """The table of `framework_table`, where two frameworks ran the same configuration."""
    table = framework_table(run)
    return [table] if table.cells else []


def framework_table(run: Run) -> Table:
    """One row per configuration and pair of frameworks."""
    points, axes = run.points, run.other_axes
    names = order_values("framework", points["framework"])
    pairs = [pair for rivals in contrast_frameworks(run) for pair in rivals.family.contrasts]
    place: Mapping[str, int] = {row["point_id"]: number for number, row in enumerate(summary_rows(run))}
    pairs.sort(key=lambda pair: min(place[pair.one["point_id"]], place[pair.other["point_id"]]))
    rates = [STYLES[name].label for name in names]
    rows = []
    for pair in pairs:
        speeds = {pair.one["framework"]: pair.one, pair.other["framework"]: pair.other}
        is_emulated = bool(pair.one["is_emulated"] or pair.other["is_emulated"])
        cells = show_axes(axes, {**pair.one, "is_emulated": is_emulated})
        cells.append(str(pair.contrast.rounds))
        cells += [show_rate(speeds[name]) if name in speeds else NOT_AVAILABLE for name in names]
        rows.append([*cells, f"{pair.contrast.ratio:.3f}", show_range(pair), show_call(pair)])
    ratio = f"{rates[1]} / {rates[0]}" if len(rates) == 2 else "ratio"
    header = (
        *head_axes(axes),
        "n",
        *(f"{rate} (tokens/s)" for rate in rates),
        ratio,
        f"{INTERVAL} (corrected)",
        "faster",
    )
    is_number = (*are_numbers(axes, summary_of(run)), True, *(True for _ in rates), True, True, False)
    return Table(
        name="frameworks",
        title="Framework comparison",
        constants=describe_constants(points, without=("framework",)),
        notes=(NOTE, *describe_lost(points)),
        data=_raw(pairs),
        header=header,
        is_number=is_number,
        is_brief=(True,) * len(header),
        cells=rows,
    )


def show_range(pair: PointContrast) -> str:
    """`0.987 to 1.021`, or that one round has none."""
    low, high = pair.contrast.low, pair.contrast.high
    return f"n={pair.contrast.rounds}" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def show_call(pair: PointContrast) -> str:
    """Which framework is faster, that they are equal, or that it is open."""
    if pair.is_faster or pair.is_slower:
        return label_of(pair.one if pair.is_faster else pair.other)
    if pair.contrast.call is Call.EQUAL:
        return f"within {100 * EQUAL_WITHIN:g} %"
    return "open" if pair.contrast.rounds > 1 else "open: one round"


def _raw(pairs: list[PointContrast]) -> pd.DataFrame:
    names = [axis for axis in AXES if axis != "framework"]
    rows = [
        {
            **{axis: pair.one[axis] for axis in names},
            "framework": pair.one["framework"],
            "point_id": pair.one["point_id"],
            "rounds": pair.contrast.rounds,
            **{key: pair.one[key] for key in with_interval(RATE)},
            "other_framework": pair.other["framework"],
            "other_point_id": pair.other["point_id"],
            **{f"other_{key}": pair.other[key] for key in with_interval(RATE)},
            "ratio": pair.contrast.ratio,
            "ratio_low": pair.contrast.low,
            "ratio_high": pair.contrast.high,
            "p_value": pair.contrast.p_value,
            "call": str(pair.contrast.call),
        }
        for pair in pairs
    ]
    figures = [key for name in (RATE, f"other_{RATE}", "ratio") for key in with_interval(name)]
    columns = [
        "framework",
        "other_framework",
        *names,
        "point_id",
        "other_point_id",
        "rounds",
        *figures,
        "p_value",
        "call",
    ]
    return pd.DataFrame(rows, columns=columns)


def describe_frameworks(run: Run) -> list[Sentence]:
    """Which framework is faster, over the configurations that both ran; only where they provably did the same work."""
    if len({row["framework"] for row in measured_rows(run)}) < 2 or was_launched_once(run):
        return []
    if not are_comparable(run):
        text = "The frameworks' speeds are not compared, because they were not proven to do the same work in this run."
        return [Draft().finish(NAME, text)]
    found = []
    for rivals in contrast_frameworks(run):
        draft = Draft()
        clause = describe_rivals(draft, rivals)
        found.append(finish_clause(draft, NAME, clause, run, rivals.family))
    return found


def describe_rivals(draft: Draft, rivals: Rivals) -> Clause:
    """Which of two frameworks is faster, the faster one first."""
    sides = Sides(one=STYLES[rivals.one].label, other=STYLES[rivals.other].label)
    family, sides = lead(rivals.family, sides)
    return describe_family(draft, family, sides, unmeasured=rivals.unmeasured)


def asks_for_a_framework(run: Run) -> bool:
    """Whether the run's question is which framework is faster: nothing else varies, or everything was to be compared."""
    return not run.was_evaluated and (not run.other_axes or asks_for_the_fastest(run))


def draw_contrasts(run: Run) -> list[Forest]:
    """One framework against another in every configuration that both ran, only where they provably did the same work."""
    if not are_comparable(run):
        return []
    return [
        draw_family(
            run,
            rivals.family,
            name=f"contrast_{rivals.one}_{rivals.other}",
            title="Which framework is faster, and by how much?",
            quantity=f"tokens/s, {STYLES[rivals.one].label} / {STYLES[rivals.other].label}",
            sides=(side_of(rivals.other), side_of(rivals.one)),
        )
        for rivals in contrast_frameworks(run)
    ]


def plot_frameworks(run: Run) -> dict[str, Figure]:
    """Throughput by framework, where nothing else varies; else the plots of the other axes compare the frameworks."""
    return plot_axes(run, ["framework"]) if run.varying_axes == ["framework"] else {}


def has_two_frameworks(run: Run) -> bool:
    """Whether launches of more than one framework left a record."""
    return run.points["framework"].nunique() > 1


TOPIC = Topic(
    name="Framework comparison",
    question="Which framework is faster, where both did the same work?",
    needs=Need(words="launches of two frameworks", is_met=has_two_frameworks),
    tables=framework_tables,
    contrasts=draw_contrasts,
    plots=plot_frameworks,
    sentences=describe_frameworks,
    precedence=40,
    answers=asks_for_a_framework,
    is_in_terminal=never,
)
