"""How many steps the epochs are that a suite asks for: its samples say it, so it is known once its texts are read."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from hvbench.errors import UsageError
from hvbench.plan.skip import reason_to_skip
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite
from hvbench.training.corpus_cache import Report
from hvbench.training.labelled.rows import TRAIN, examine_rows
from hvbench.training.labelled.source import Source, source_of
from hvbench.training.packages import make_batches, prepare_text
from hvbench.training.schedule import samples_before

MOST_STEPS = 1_000_000  # as many as `steps` may be


def resolve_epochs(
    suite: Suite,
    points: Sequence[Point],
    *,
    world_size: int,
    say: Callable[[str], None],
    report: Report = lambda line: None,
    assumes_frameworks: bool = False,
) -> Suite:
    """The suite with the `steps` of its epochs, of which `say` is told; itself where it asks for none.

    `report` is told what takes long: a text is read into tokens to count its samples. `assumes_frameworks`: as in `make_plan`.

    Raises UsageError where its points have different numbers of steps, and DataError where a text cannot be read.
    """
    epochs, warmup_steps = suite.measure.epochs, suite.measure.warmup_steps
    if epochs is None:
        return suite
    if suite.search:
        raise UsageError(f"{suite.where}: epochs = {epochs:g}: not with [search], whose launches only see what fits")
    resolved = [point.model_copy(update={"world_size": point.world_size or world_size}) for point in points]
    runnable = [
        point
        for point in resolved
        if reason_to_skip(point, world_size=world_size, assumes_frameworks=assumes_frameworks) is None
    ]
    found: dict[int, int] = {}  # steps -> samples of an epoch
    counts: dict[Source, int] = {}
    for point in runnable:
        source = source_of(point) if point.has_label_file else None
        samples = counts[source] if source in counts else count_training_samples(point, report)
        counts |= {source: samples} if source else {}
        found[steps_of_epochs(point, epochs, samples=samples)] = samples
    if not found:
        return suite
    if len(found) > 1:
        raise UsageError(
            f"{suite.where}: epochs = {epochs:g}: {', '.join(map(str, sorted(found)))} steps, for its points have different global batches "
            "or samples; one suite has one number of steps: set steps, or split the suite"
        )
    ((steps, samples),) = found.items()
    if not warmup_steps < steps <= MOST_STEPS + warmup_steps:
        raise UsageError(
            f"{suite.where}: epochs = {epochs:g} of {samples:,} samples: {steps:,} steps, allowed: more than warmup_steps "
            f"({warmup_steps}), up to {MOST_STEPS:,}"
        )
    say(
        f"{epochs:g} epoch{'s' * (epochs != 1)} of {samples:,} training samples: {steps:,} steps, {warmup_steps} of them warm-up"
    )
    # Not model_copy: the number is checked as one in the file would be.
    measure = MeasureSettings(**suite.measure.model_dump() | {"steps": steps - warmup_steps})
    return replace(suite, measure=measure)


def count_training_samples(point: Point, report: Report) -> int:
    """Training samples of one epoch of a point whose `world_size` is known. Raises DataError."""
    if point.has_label_file:  # no tokens are needed to count them
        return examine_rows(source_of(point)).rows[TRAIN]
    return make_batches(point, prepare_text(point, report=report), rank=0).samples_per_epoch


def steps_of_epochs(point: Point, epochs: float, *, samples: int) -> int:
    """Steps after which at least `epochs` times `samples` are read; a batch that grows reads fewer at first."""
    wanted = math.ceil(epochs * samples)
    least = wanted // point.global_batch_size  # were every step a full one
    most = least + 1 + point.batch_warmup_steps
    return bisect.bisect_left(range(most + 1), wanted, key=lambda step: samples_before(point, step))
