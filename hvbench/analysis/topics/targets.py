"""Time, steps and tokens to the target loss: launches that did not get there are censored, and say so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hvbench.analysis.frame.axes import stated_axes
from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.targets import NOT_REACHED
from hvbench.analysis.show.cells import INTERVAL, ONE_SEED, format_number
from hvbench.analysis.show.panels import (
    STYLES,
    Cell,
    add_legend,
    choose_rows,
    combine_axes,
    describe_choice,
    draw_panels,
    emulated_precisions,
    format_large,
    list_frameworks,
)
from hvbench.analysis.show.tables import (
    Table,
    are_numbers,
    describe_constants,
    head_axes,
    leading_axes,
    show_axes,
)
from hvbench.analysis.stats.estimates import sort_points
from hvbench.analysis.stats.survival import Arrival, Observed, estimate_arrival, share_arrived
from hvbench.analysis.topics.topic import Need, Topic

MAX_ROWS = 8
CROSSING = "steps_at_target"
# clock: (column when reached, column when last seen, column of the evaluation before it was reached, header)
CLOCKS = {
    "steps": ("steps_to_target", "evaluated_steps", "steps_before_target", "steps to target"),
    "tokens": ("tokens_to_target", "evaluated_tokens", "tokens_before_target", "tokens to target"),
    "seconds": ("seconds_to_target", "evaluated_seconds", "seconds_before_target", "training seconds to target"),
}


def observe(launches: pd.DataFrame, clock: str) -> list[Observed]:
    """What each launch of `point_frame` says of the way to the target; none for those that were not asked to take it.

    A launch that diverged, failed, timed out, ran out of memory or of patience never arrives, whatever it had reached
    by then; one that ran out of steps was on the way until then. Launches of one seed take the same steps; their seconds
    differ by the machine, and are evidence of their own as long as all launches share the seed.
    """
    reached, seen, before, _ = CLOCKS[clock]
    asked = launches[launches["target"].notna()]
    is_by_seed = clock != "seconds" or asked["trained_seed"].nunique() > 1
    found = []
    columns = ["status", "target", "stopped_by", "trained_seed", reached, seen, before, CROSSING]
    for launch in asked[columns].to_dict("records"):
        seed = int(launch["trained_seed"]) if is_by_seed else None
        if launch["target"] == "reached":
            since = float(launch[before])
            at = float(launch[CROSSING]) if clock == "steps" else None
            found.append(Observed(value=float(launch[reached]), is_reached=True, seed=seed, since=since, crossing=at))
        else:
            never = launch["status"] != "ok" or launch["stopped_by"] == "patience"
            found.append(Observed(value=math.inf if never else float(launch[seen]), is_reached=False, seed=seed))
    return found


def clocks_of(run: Run) -> list[str]:
    """The clocks of CLOCKS; without tokens where a script does not say them."""
    known = run.evaluations["tokens"].notna().all()
    return [clock for clock in CLOCKS if known or clock != "tokens"]


def has_repeated_targets(run: Run) -> bool:
    """Whether any point has two launches that say something about the way to its target."""
    points = run.points[run.points["target_loss"].notna()]
    return any(len(observe(group, "steps")) > 1 for _, group in points.groupby("point_id", sort=False))


def target_tables(run: Run) -> list[Table]:
    """The one table."""
    return [target_table(run)]


def target_table(run: Run) -> Table:
    """One row per point: medians and intervals of the way to the target."""
    points, axes, clocks = run.points, leading_axes(run.points), clocks_of(run)
    rows, cells = [], []
    for launches in _by_point(points):
        first, seen = launches.iloc[0], {clock: observe(launches, clock) for clock in clocks}
        if not seen["steps"]:
            continue
        arrivals = {clock: estimate_arrival(found) for clock, found in seen.items()}
        counts = arrivals["steps"]
        row: dict[str, Any] = {name: first[name] for name in ("point_id", *stated_axes(points), "target_loss")}
        row |= {"n": counts.n, "launches_reached": counts.reached, "seeds": counts.seeds}
        cell = [*show_axes(axes, first), str(counts.n), str(counts.seeds), f"{counts.reached} of {counts.n}"]
        for clock, arrival in arrivals.items():
            name = CLOCKS[clock][0]
            row |= {name: arrival.median, f"{name}_low": arrival.low, f"{name}_high": arrival.high}
            decimals = None if clock == "seconds" else 0
            cell += [show_median(arrival, decimals=decimals), show_bounds(arrival, decimals=decimals)]
        rows.append(row)
        cells.append(cell)
    heads = [CLOCKS[clock][-1] for clock in clocks]
    figures = [name for head in heads for name in (head, f"{INTERVAL} ({head.split()[-3]})")]
    is_brief = [clock != "tokens" for clock in clocks for _ in ("", INTERVAL)]
    header = (*head_axes(axes), "n", "seeds", "reached", *figures)
    return Table(
        name="time_to_target",
        title="Time to the target loss",
        constants=describe_constants(points, without=("framework",)),
        notes=(
            "Kaplan-Meier medians over seeds, each with the median of its launches: one that did not reach the target "
            "counts as on its way for as long as it was trained, and for ever if it diverged, failed or gave up. Seconds "
            "are over launches where all of them have one seed, whose training alone they then speak of. The interval is "
            "that of the median (beta product); open: so few, or so few that arrived, do not bound it: six are needed for "
            "both ends. Reached means at an evaluation: the truth lies up to one distance of evaluations earlier. Seconds "
            "leave evaluations out and contain the first step, which traces or compiles.",
        ),
        data=pd.DataFrame(rows),
        header=header,
        is_number=(*are_numbers(axes, points), True, True, False, *[True, False] * len(clocks)),
        is_brief=(*[True] * len(axes), True, True, True, *is_brief),
        cells=cells,
    )


def show_median(arrival: Arrival, *, decimals: int | None) -> str:
    """The median, or that half of the launches did not get there."""
    return NOT_REACHED if arrival.median is None else format_number(arrival.median, decimals=decimals)


def show_bounds(arrival: Arrival, *, decimals: int | None) -> str:
    """`12 to 40`, `12 to open`, or that one launch, or one seed, has none."""
    if arrival.seeds == 1:
        return "n=1" if arrival.n == 1 else ONE_SEED
    low, high = (
        "open" if end is None else format_number(end, decimals=decimals) for end in (arrival.low, arrival.high)
    )
    return f"{low} to {high}"


def plot_targets(run: Run) -> dict[str, Figure]:
    """The one plot."""
    return {"target_reached": plot_share_at_target(run)}


def plot_share_at_target(run: Run) -> Figure:
    """The share of launches that have reached the target against steps, tokens and seconds."""
    points, clocks = run.points, clocks_of(run)
    choices = combine_axes(points, run.other_axes)[:MAX_ROWS]
    emulated = emulated_precisions(points)
    cells = [
        [
            Cell(title="" if column else describe_choice(chosen, emulated=emulated), chosen=chosen)
            for column in range(len(clocks))
        ]
        for chosen in choices
    ]
    with draw_panels(cells, width=3.2, height=1.9) as (figure, panels):
        for index, (panel, chosen) in enumerate(panels):
            clock = clocks[index % len(clocks)]
            for framework in list_frameworks(points):
                style = STYLES[framework]
                launches = observe(choose_rows(points, {"framework": framework} | chosen), clock)
                finite = [one.value for one in launches if math.isfinite(one.value)]
                share = share_arrived(launches)
                end = max(finite, default=1.0)
                x = [0.0, *share.values, end]
                y = [0.0, *share.shares, share.shares[-1] if share.shares else 0.0]
                look = {"color": style.colour, "linestyle": style.line, "linewidth": 1.2}
                panel.plot(x, [100 * value for value in y], drawstyle="steps-post", **look)
                left = [one.value for one in launches if not one.is_reached and math.isfinite(one.value)]
                panel.plot(left, [3.0] * len(left), "|", color=style.colour, markersize=7)
            panel.set_ylim(-4, 104)
            panel.xaxis.set_major_formatter(FuncFormatter(format_large))
            panel.set_xlabel({"steps": "steps", "tokens": "tokens", "seconds": "training seconds"}[clock])
        figure.supylabel("launches at the target (%)")
        figure.suptitle(
            "Which share of the launches has reached the target?\nticks below: launches that ended without it"
        )
        add_legend(figure, list_frameworks(points), [])
    return figure


def _by_point(points: pd.DataFrame) -> Iterator[pd.DataFrame]:
    ordered = sort_points(points)
    for _, launches in ordered.groupby("point_id", sort=False):
        yield launches


TOPIC = Topic(
    name="Time to target",
    question="How long does it take to reach the target loss, and how many launches get there?",
    needs=Need(words="a target loss and several launches of a point", is_met=has_repeated_targets),
    tables=target_tables,
    plots=plot_targets,
)
