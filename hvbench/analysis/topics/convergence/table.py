"""The table "Convergence": losses at the end of training, and what it took to reach the target loss."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import (
    INTERVAL,
    NOT_AVAILABLE,
    SPREAD_NOTE,
    Row,
    show_estimate,
    show_interval,
    show_spread,
    show_value,
)
from hvbench.analysis.show.tables import Layout, Shown, Table, build_table
from hvbench.analysis.stats.estimates import summary_of


def convergence_table(run: Run) -> Table:
    """One row per point: losses at the end, and steps, tokens and seconds to the target loss."""
    validation, seconds, later = "final_validation_loss", "seconds_to_target", "seconds_after_first_step_to_target"
    accuracy = "final_validation_accuracy"
    columns = [
        Shown("seeds", lambda row: str(row["seeds_ok"]), is_brief=True),
        Shown("training loss at end", show_estimate("final_loss", decimals=4), is_brief=True),
        Shown(INTERVAL, show_interval("final_loss", decimals=4), is_brief=True),
        Shown("validation loss at end", show_estimate(validation, decimals=4), is_brief=True),
        Shown(f"{INTERVAL} (validation)", show_interval(validation, decimals=4), metric=validation),
        Shown("validation accuracy at end (%)", show_estimate(accuracy, scale=100, decimals=1), is_brief=True),
        Shown(f"{INTERVAL} (accuracy, %)", show_interval(accuracy, scale=100, decimals=1), metric=accuracy),
        Shown("target loss", lambda row: show_value(row["target_loss"])),
        Shown("steps to target", show_target("steps_to_target", decimals=0)),
        Shown("tokens to target", show_target("tokens_to_target", decimals=0)),
        Shown("training seconds to target", show_target(seconds), is_brief=True),
        Shown(f"{INTERVAL} (s)", show_interval(seconds), metric=seconds),
        Shown("without the first step (s)", show_target(later), is_brief=True),
        Shown(f"{INTERVAL} (without it, s)", show_interval(later), metric=later),
        Shown("evaluation seconds until then", show_target("evaluation_seconds_to_target")),
        Shown("clipped updates (%)", show_estimate("clipped_fraction", scale=100, decimals=0)),
        Shown(f"{INTERVAL} (%)", show_interval("clipped_fraction", scale=100, decimals=0), metric="clipped_fraction"),
    ]
    logged = ", of those that were logged, by the ranks that did" if run.is_of_scripts else ""
    notes = (
        f"Training loss: mean over ranks and the last tenth of the timed steps{logged}. Validation: after the "
        "last step, every sample once; missing where a launch was evaluated only before. The launches of a point share its seed "
        "unless seed_per_repeat is set. Those of one seed are one piece of evidence about losses, steps and tokens, and are "
        "averaged: n of these figures is the number of seeds, and one seed has no interval. Time to target leaves "
        "evaluation out; its interval is over launches where all have one seed, whose training alone it then speaks of. It "
        "also holds the distance to the evaluation before: somewhere in between the loss got there. The first step traces "
        f"or compiles{'' if run.is_of_scripts else ': frameworks are compared without it'}. A launch that ended otherwise than in ok did not reach the "
        f"target; where one diverged, no losses at the end are averaged. {SPREAD_NOTE}",
    )
    metrics = ["final_loss", "final_validation_loss", accuracy, "steps_to_target", "tokens_to_target", seconds, later,
               "evaluation_seconds_to_target", "clipped_fraction"]  # fmt: skip
    extra = ["target_loss", "target", "seeds_ok", "loss_digests"]
    layout = Layout(name="convergence", title="Convergence", columns=columns, metrics=metrics, extra=extra, notes=notes)
    return build_table(layout, run.points, summary=summary_of(run))


def show_target(metric: str, *, decimals: int | None = None) -> Callable[[Row], str]:
    """Column text: the centre of a `*_to_target` metric with its spread, or that the target was not reached."""

    def text(row: Row) -> str:
        if pd.isna(row["target"]):
            return NOT_AVAILABLE
        return show_spread(metric, decimals=decimals)(row) if row["target"] == "reached" else row["target"]

    return text
