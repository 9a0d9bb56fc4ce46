"""The gradient noise scale of every point: the batch from which on a larger one saves fewer and fewer steps."""

from __future__ import annotations

import pandas as pd

from hvbench.analysis.frame.axes import AXES
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, format_number
from hvbench.analysis.show.tables import (
    Table,
    are_numbers,
    describe_constants,
    describe_lost,
    head_axes,
    leading_axes,
    show_axes,
)
from hvbench.analysis.stats.estimates import sort_points
from hvbench.analysis.topics.batch.noise import (
    MIN_LOOKS,
    NoiseScale,
    estimate_noise_scale,
    join_looks,
    measured_looks,
)
from hvbench.analysis.topics.topic import Need, Topic, never


def measured_noise(run: Run) -> bool:
    """Whether any launch measured the noise of its gradients."""
    return bool(measured_looks(run))


def noise_tables(run: Run) -> list[Table]:
    """The one table."""
    return [noise_table(run)]


def noise_table(run: Run) -> Table:
    """One row per point whose gradients' noise was measured."""
    looks_of = measured_looks(run)
    measured = {id(record) for launches in looks_of.values() for record, _ in launches}
    points = sort_points(run.points_of(lambda record: id(record) in measured).drop_duplicates("point_id"))
    axes = leading_axes(points)
    rows, cells = [], []
    for _, point in points.iterrows():
        same, looks = zip(*looks_of[point["point_id"]], strict=True)
        batch = same[0].point.global_batch_size
        scales = {"": join_looks(looks), "_late": join_looks(launch.late() for launch in looks)}
        row = {name: point[name] for name in ("point_id", *AXES)} | {"global_batch_samples": batch, "n": len(same)}
        cell = [*show_axes(axes, point), str(batch), str(len(same)), str(scales[""].noise.size)]
        for suffix, joined in scales.items():
            scale, name = estimate_noise_scale(joined), f"noise_scale{suffix}_samples"
            row |= {
                f"looks{suffix}": scale.looks,
                name: scale.centre,
                f"{name}_low": scale.low,
                f"{name}_high": scale.high,
            }
            cell += [show_scale(scale), show_ends(scale)]
        rows.append(row)
        cells.append(cell)
    return Table(
        name="gradient_noise",
        title="Gradient noise scale",
        constants=describe_constants(points, without=("framework",)),
        notes=(
            "B_simple (McCandlish et al., arXiv:1812.06162, app. A.1) in samples: well below it a larger batch saves steps "
            "in proportion, well above it saves none. From the norms of each micro-batch's gradient and of their average over "
            "accumulation steps and ranks, both squared and averaged over n launches' looks before dividing; late: the "
            "later half of the looks. Launches of one seed look at the same samples: their looks at a step are averaged and "
            "count as one. Intervals: of a ratio of means (Fieller) over looks; open: the gradient may be nothing but its "
            "noise.",
            *describe_lost(run.points),
        ),
        data=pd.DataFrame(rows),
        header=(
            *head_axes(axes), "global batch", "n", "looks",
            "noise scale", INTERVAL, "noise scale, late", f"{INTERVAL} (late)",
        ),
        is_number=(*are_numbers(axes, points), True, True, True, True, False, True, False),
        is_brief=(True,) * (len(axes) + 7),
        cells=cells,
    )  # fmt: skip


def show_scale(scale: NoiseScale) -> str:
    """The centre in samples, or that there is none."""
    return NOT_AVAILABLE if scale.centre is None else format_number(scale.centre)


def show_ends(scale: NoiseScale) -> str:
    """`12.3 to 40.1`, `12.3 to open`, or how many looks there are where they are too few."""
    if scale.looks < MIN_LOOKS:
        return f"{scale.looks} looks"
    low, high = ("open" if end is None else format_number(end) for end in (scale.low, scale.high))
    return f"{low} to {high}"


TOPIC = Topic(
    name="Gradient noise",
    question="From which batch on does a larger one save fewer steps, by the noise of the gradients?",
    needs=Need(
        words="launches that measured the norms of their micro-batches' gradients (noise_every)", is_met=measured_noise
    ),
    tables=noise_tables,
    is_in_terminal=never,
)
