"""The gradient noise scale of every point: the batch from which on a larger one saves fewer and fewer steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, format_number
from hvbench.analysis.show.record_table import Column, RecordLayout, tabulate_records
from hvbench.analysis.show.tables import Table, describe_lost
from hvbench.analysis.topics.batch.noise import (
    MIN_LOOKS,
    Looks,
    NoiseScale,
    estimate_noise_scale,
    join_looks,
    measured_looks,
)
from hvbench.analysis.topics.topic import Need, Topic, never
from hvbench.records.record import Record

COLUMNS = (
    Column(header="global batch"),
    Column(header="n"),
    Column(header="looks"),
    Column(header="noise scale"),
    Column(header=INTERVAL, is_number=False),
    Column(header="noise scale, late"),
    Column(header=f"{INTERVAL} (late)", is_number=False),
)


def measured_noise(run: Run) -> bool:
    """Whether any launch measured the noise of its gradients."""
    return bool(measured_looks(run))


def noise_tables(run: Run) -> list[Table]:
    """One row per point whose gradients' noise was measured."""
    looks = {id(record): each for launches in measured_looks(run).values() for record, each in launches}

    def fill(same: Sequence[Record]) -> tuple[dict[str, Any], list[str]]:
        return show_noise(same[0].point.global_batch_size, [looks[id(record)] for record in same])

    layout = RecordLayout(
        name="gradient_noise",
        title="Gradient noise scale",
        notes=(
            "B_simple (McCandlish et al., arXiv:1812.06162, app. A.1) in samples: well below it a larger batch saves steps "
            "in proportion, well above it saves none. From the norms of each micro-batch's gradient and of their average over "
            "accumulation steps and ranks, both squared and averaged over n launches' looks before dividing; late: the "
            "later half of the looks. Launches of one seed look at the same samples: their looks at a step are averaged and "
            "count as one. Intervals: of a ratio of means (Fieller) over looks; open: the gradient may be nothing but its "
            "noise.",
            *describe_lost(run.points),
        ),
        columns=COLUMNS,
        is_wanted=lambda record: id(record) in looks,
        fill=lambda same: [fill(same)],
    )
    return [tabulate_records(run, layout)]


def show_noise(batch: int, looks: Sequence[Looks]) -> tuple[dict[str, Any], list[str]]:
    """Raw values and cells of a point with a global batch of so many samples, from the looks of its launches."""
    scales = {"": join_looks(looks), "_late": join_looks(launch.late() for launch in looks)}
    values: dict[str, Any] = {"global_batch_samples": batch, "n": len(looks)}
    cells = [str(batch), str(len(looks)), str(scales[""].noise.size)]
    for suffix, joined in scales.items():
        scale, name = estimate_noise_scale(joined), f"noise_scale{suffix}_samples"
        values |= {
            f"looks{suffix}": scale.looks,
            name: scale.centre,
            f"{name}_low": scale.low,
            f"{name}_high": scale.high,
        }
        cells += [show_scale(scale), show_ends(scale)]
    return values, cells


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
