"""The plot of the losses: training and validation loss against steps, tokens and training seconds."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.panels import (
    GREY,
    MAX_SMALL_PANELS,
    STYLES,
    Cell,
    add_legend,
    choose_rows,
    combine_axes,
    count_shown,
    describe_choice,
    draw_panels,
    emulated_precisions,
    finite_max,
    format_large,
    join_curves,
    legend_mark,
    list_frameworks,
    mark_ends,
)

CLOCKS = {"step": "steps", "tokens": "tokens", "training_seconds": "training seconds (evaluation left out)"}


MAX_RISE = 1.2  # of a training loss over the first one, still drawn in full


MIN_CURVE_STEPS = 30  # fewer steps, and no evaluation, say nothing about convergence


def plot_convergence(run: Run) -> dict[str, Figure]:
    """The loss curves of a run that evaluated, or that trained for long enough to have any."""
    is_long = len(run.steps) and run.steps["step"].max() >= MIN_CURVE_STEPS and run.steps["loss"].notna().any()
    return {"loss_curves": plot_loss_curves(run)} if len(run.evaluations) or is_long else {}


def clocks_of(run: Run) -> list[str]:
    """The clocks of CLOCKS; without tokens where a script does not say them."""
    return [clock for clock in CLOCKS if clock != "tokens" or run.steps["tokens"].notna().all()]


def plot_loss_curves(run: Run) -> Figure:
    """Loss against steps, tokens and training seconds; all frameworks on one axis, a row per choice of other axes."""
    points, evaluations, clocks = run.points_with("target_loss"), run.evaluations, clocks_of(run)
    choices = combine_axes(points, run.other_axes)
    shown = choices[: MAX_SMALL_PANELS // len(clocks)]
    seen = pd.concat([choose_rows(points, chosen) for chosen in shown])
    steps, marks = (frame[frame["launch"].isin(seen["launch"])] for frame in (run.steps, evaluations))
    drawn = list_drawn_losses(steps, marks, ended_ok=seen.loc[seen["status"] == "ok", "launch"])
    curves = steps.groupby(["launch", "step"], as_index=False).agg(
        loss=("loss", "mean"), tokens=("tokens", "first"), training_seconds=("training_seconds", "max")
    )
    if run.is_of_scripts:  # which may log a loss every few steps
        curves = curves[curves["loss"].notna()]
    emulated = emulated_precisions(points)
    titles = [describe_choice(chosen, emulated=emulated).replace("\n", ", ") for chosen in shown]
    cells = [
        [Cell(title="" if column else title, chosen=chosen) for column in range(len(clocks))]
        for title, chosen in zip(titles, shown, strict=True)
    ]
    with draw_panels(cells, width=3.5, height=3.0) as (figure, panels):
        for index, (panel, chosen) in enumerate(panels):
            clock = clocks[index % len(clocks)]
            launches = choose_rows(points, chosen)
            for framework in list_frameworks(launches):
                mine = choose_rows(launches, {"framework": framework})
                own, seen = (frame[frame["launch"].isin(mine["launch"])] for frame in (curves, marks))
                _draw_curves(panel, own, seen=seen, clock=clock, launches=mine, highest=finite_max(drawn))
            for target in launches["target_loss"].dropna().unique():
                panel.axhline(target, color=GREY, linewidth=0.9, linestyle=":")
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=clock != "training_seconds"))
            panel.xaxis.set_major_formatter(FuncFormatter(format_large))
            panel.set_xlabel(CLOCKS[clock])
        if drawn.notna().any():
            margin = 0.05 * (drawn.max() - drawn.min()) + 0.01
            panels[0][0].set_ylim(min(drawn.min(), points["target_loss"].min()) - margin, drawn.max() + margin)
        figure.supylabel("loss (nats per token)" if run.has_losses_in_nats else "loss")
        frameworks = list_frameworks(points)
        several = (
            f"Do {'both' if len(frameworks) == 2 else 'the'} frameworks learn the same, and which gets there first?"
        )
        question = several if len(frameworks) > 1 else "How fast does the loss fall?"
        figure.suptitle(f"{question}{count_shown(shown, choices)}")
        extra = [legend_mark("training loss: lines", linestyle="-", linewidth=0.9)]
        if len(evaluations):
            extra.append(legend_mark("validation loss: markers", marker="o", markerfacecolor="none"))
        if points["target_loss"].notna().any():
            extra.append(legend_mark("target", linestyle=":", linewidth=0.9))
        add_legend(figure, list_frameworks(points), extra)
    return figure


def list_drawn_losses(steps: pd.DataFrame, marks: pd.DataFrame, *, ended_ok: pd.Series) -> pd.Series:
    """The losses that the scale has to show: of launches that ended in `ok`, and not those far above the first ones."""
    mine, seen = (frame[frame["launch"].isin(ended_ok)] for frame in (steps, marks))
    losses = pd.concat([mine["loss"], seen["validation_loss"]])
    known = mine.dropna(subset=["loss"])
    first = known.loc[known["step"] == known["step"].min(), "loss"].max()
    return losses[losses <= MAX_RISE * first] if first > 0 else losses.dropna()


def _draw_curves(
    panel: Axes,
    curves: pd.DataFrame,
    *,
    seen: pd.DataFrame,
    clock: str,
    launches: pd.DataFrame,
    highest: float | None,
) -> None:
    """The launches of one framework: training losses as one line, evaluations as marks, a cross where one was lost."""
    style = STYLES[launches["framework"].iloc[0]]
    line = join_curves(curves[clock], curves["loss"], launch=curves["launch"])
    panel.plot(*line, color=style.colour, linestyle=style.line, linewidth=style.line_width)
    look = {"marker": style.marker, "markersize": style.marker_size, "color": style.colour, "linestyle": "none"}
    panel.plot(
        seen[clock], seen["validation_loss"], markerfacecolor="none" if style.is_hollow else style.colour, **look
    )
    lost = launches.loc[launches["status"] != "ok", ["launch", "status"]]
    last = curves.dropna(subset=["loss"]).drop_duplicates("launch", keep="last").merge(lost)
    ends = [((x, min(loss, highest or loss)), status) for x, loss, status in last[[clock, "loss", "status"]].to_numpy()]
    mark_ends(panel, ends, transform=panel.transData, colour=style.colour)
    unseen = lost[~lost["launch"].isin(last["launch"])]
    foot = [((0.0, 0.03), status) for status in unseen["status"]]
    mark_ends(panel, foot, transform=panel.get_xaxis_transform(), colour=style.colour)
