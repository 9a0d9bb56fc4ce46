"""The frameworks side by side: which is faster, over the configurations that two of them ran, where they did the same work."""

from __future__ import annotations

from itertools import combinations

import pandas as pd
from matplotlib.figure import Figure

from hvbench.analysis.frame.axes import AXES, order_values
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, SPREAD_NOTE, show_spread
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.sentences import RATE, Draft, Sentence
from hvbench.analysis.show.tables import (
    Table,
    are_numbers,
    describe_constants,
    describe_lost,
    head_axes,
    show_axes,
)
from hvbench.analysis.stats.estimates import summary_of, summary_rows
from hvbench.analysis.topics.parity.stamps import are_comparable
from hvbench.analysis.topics.throughput.pairs import (
    Pair,
    asked_rows,
    compare_values,
    count_unmeasured,
    describe_contrast,
    measured_rows,
)
from hvbench.analysis.topics.throughput.plot import plot_axes
from hvbench.analysis.topics.topic import Need, Topic, never

NAME = "frameworks"
ENDS = ("", "_low", "_high")

show_rate = show_spread(RATE)

NOTE = (
    "Ratio: of the tokens/s over all launches; its range goes from the least to the most that the two intervals allow. "
    "A framework is called faster only where the intervals do not overlap, that is where the range leaves out 1. n: launches "
    f"of the framework that has fewer. {SPREAD_NOTE}"
)


def framework_tables(run: Run) -> list[Table]:
    """The table of `framework_table`, where two frameworks ran the same configuration."""
    table = framework_table(run)
    return [table] if table.cells else []


def framework_table(run: Run) -> Table:
    """One row per configuration and pair of frameworks."""
    points, axes, rows_of = run.points, run.other_axes, summary_rows(run)
    names = order_values("framework", points["framework"])
    pairs = [pair for other, one in combinations(names, 2) for pair in compare_values(rows_of, "framework", one, other)]
    rates = [STYLES[name].label for name in names]
    rows = []
    for pair in pairs:
        speeds = {pair.one["framework"]: pair.one, pair.other["framework"]: pair.other}
        is_emulated = bool(pair.one["is_emulated"] or pair.other["is_emulated"])
        cells = show_axes(axes, {**pair.one, "is_emulated": is_emulated})
        cells.append(str(count_launches(pair)))
        cells += [show_rate(speeds[name]) if name in speeds else NOT_AVAILABLE for name in names]
        rows.append([*cells, f"{pair.ratio:.2f}", show_range(pair), show_verdict(pair)])
    ratio = f"{rates[1]} / {rates[0]}" if len(rates) == 2 else "ratio"
    allowed = f"{INTERVAL}s allow"
    shown = (*head_axes(axes), "n", *(f"{rate} (tokens/s)" for rate in rates))
    header = (*shown, ratio, allowed, "faster")
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


def count_launches(pair: Pair) -> int:
    """Launches of the framework that has fewer."""
    return int(min(pair.one["launches_ok"], pair.other["launches_ok"]))


def show_range(pair: Pair) -> str:
    """`0.87 to 1.12`, or that one launch has none."""
    return "n=1" if pair.low is None or pair.high is None else f"{pair.low:.2f} to {pair.high:.2f}"


def show_verdict(pair: Pair) -> str:
    """Which framework is faster, or why none is named."""
    if pair.low is None:
        return "one launch: not ranked"
    if pair.is_faster or pair.is_slower:
        return STYLES[(pair.one if pair.is_faster else pair.other)["framework"]].label
    return "cannot be told apart"


def _raw(pairs: list[Pair]) -> pd.DataFrame:
    names = [axis for axis in AXES if axis != "framework"]
    rows = [
        {
            **{axis: pair.one[axis] for axis in names},
            "framework": pair.one["framework"],
            "point_id": pair.one["point_id"],
            "launches_ok": count_launches(pair),
            **{f"{RATE}{end}": pair.one[f"{RATE}{end}"] for end in ENDS},
            "other_framework": pair.other["framework"],
            "other_point_id": pair.other["point_id"],
            **{f"other_{RATE}{end}": pair.other[f"{RATE}{end}"] for end in ENDS},
            "ratio": pair.ratio,
            "ratio_low": pair.low,
            "ratio_high": pair.high,
        }
        for pair in pairs
    ]
    figures = [f"{name}{end}" for name in (RATE, f"other_{RATE}", "ratio") for end in ENDS]
    columns = ["framework", "other_framework", *names, "point_id", "other_point_id", "launches_ok", *figures]
    return pd.DataFrame(rows, columns=columns)


def describe_frameworks(run: Run) -> list[Sentence]:
    """Which framework is faster, over the configurations that both ran; only where they provably did the same work."""
    measured = measured_rows(run)
    names = order_values("framework", [row["framework"] for row in measured])
    if len(names) < 2:
        return []
    if not are_comparable(run):
        text = "The frameworks' speeds are not compared, because they were not proven to do the same work in this run."
        return [Draft().finish(NAME, text)]
    said = [
        describe_two(
            compare_values(measured, "framework", one, other),
            one=one,
            other=other,
            unmeasured=count_unmeasured(asked_rows(run), "framework", one, other),
        )
        for index, other in enumerate(names)
        for one in names[index + 1 :]
    ]
    return [sentence for sentence in said if sentence]


def describe_two(pairs: list[Pair], *, one: str, other: str, unmeasured: int = 0) -> Sentence | None:
    """Which of two frameworks is faster, or that their intervals overlap; None where that cannot be said either.

    `unmeasured`: configurations that both tried, and of which no launch of one of them ended in `ok`.
    """
    labels = (STYLES[one].label, STYLES[other].label)
    said = describe_contrast(NAME, pairs, labels=labels, things="configurations", unmeasured=unmeasured)
    if said or not pairs or any(pair.low is None for pair in pairs):
        return said
    draft = Draft()
    where = "the configuration that both ran"
    if len(pairs) > 1:
        where = draft.all_of(len(pairs), "configurations that both ran")
    if unmeasured:
        where += f" to an end; of {draft.count(unmeasured)} more no launch of one side ended in ok"
    return draft.finish(
        NAME, f"{labels[0]} and {labels[1]} cannot be told apart in speed: their intervals overlap in {where}."
    )


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
    plots=plot_frameworks,
    sentences=describe_frameworks,
    precedence=40,
    is_in_terminal=never,
)
