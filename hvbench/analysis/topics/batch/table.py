"""The table "What a larger batch costs": fewest steps, fewest samples and the critical batch between them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hvbench.analysis.frame.axes import GLOBAL_BATCH
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, format_number
from hvbench.analysis.show.tables import Table, are_numbers, describe_constants, head_axes, show_axes
from hvbench.analysis.topics.batch.tradeoff import find_curves
from hvbench.analysis.topics.noise import show_ends, show_scale


def tradeoff_table(run: Run) -> Table:
    """One row per curve: S_min, E_min, the critical batch that they mean and the noise scale that predicts it."""
    points, curves = run.points, find_curves(run)
    axes = list(curves[0].chosen)
    rows, cells = [], []
    for curve in curves:
        complete = curve.complete
        n = sum(len(each) for each in complete.values())
        row: dict[str, Any] = {
            **curve.chosen,
            "n": n,
            "batches": len(complete),
            "batches_not_reached": len(curve.launches) - len(complete),
        }
        cell = [
            *show_axes(axes, {**curve.chosen, "is_emulated": curve.is_emulated}),
            str(n),
            f"{len(complete)} of {len(curve.launches)}",
        ]
        for name in ("fewest_steps", "fewest_samples", "critical_batch"):
            estimate = getattr(curve.fit, name) if curve.fit else None
            low, high = (estimate.low, estimate.high) if estimate else (None, None)
            row |= {name: estimate and estimate.centre, f"{name}_low": low, f"{name}_high": high}
            ends = ["open" if end is None else format_number(end) for end in (low, high)]
            centre = NOT_AVAILABLE if estimate is None or estimate.low is None else format_number(estimate.centre)
            cell += [centre, " to ".join(ends) if estimate else "no fit"]
        noise = curve.noise
        row |= {
            "noise_scale_samples": noise.centre,
            "noise_scale_samples_low": noise.low,
            "noise_scale_samples_high": noise.high,
        }
        rows.append(row)
        cells.append([*cell, show_scale(noise), show_ends(noise)])
    return Table(
        name="critical_batch",
        title="What a larger batch costs",
        constants=describe_constants(points, without=("framework", *GLOBAL_BATCH)),
        notes=(
            "S = S_min (1 + B_crit / B) steps and B S samples reach the target with a global batch B (McCandlish et al., "
            "arXiv:1812.06162), fitted to the mean logarithm of the steps at each batch, over the seeds of n launches; a "
            "batch at which any launch missed the target, or ended otherwise than in ok, is left out of the fit. The loss "
            "reached the target between two evaluations: S is where the line between their losses meets it. Intervals are of the fit over the "
            "batches (Student's t): they carry how far the batches scatter about the law, not what "
            "is the same at all of them, such as a warm-up, whose steps count in full. Noise scale: measured along the way "
            "(later half of the looks), not fitted; it predicts B_crit only where the learning rate suits each batch.",
        ),
        data=pd.DataFrame(rows),
        header=(
            *head_axes(axes), "n", "batches fitted",
            "S_min (steps)", f"{INTERVAL} (S_min)", "E_min (samples)", f"{INTERVAL} (E_min)",
            "B_crit (samples)", f"{INTERVAL} (B_crit)", "noise scale (samples)", f"{INTERVAL} (noise scale)",
        ),
        is_number=(*are_numbers(axes, points), True, False, *[True, False] * 4),
        is_brief=(*[True] * len(axes), True, True, *[False] * 4, *[True] * 4),
        cells=cells,
    )  # fmt: skip
