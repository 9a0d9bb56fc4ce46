"""Steps of coupled ranks: rates, step times and efficiencies are those of a clock on the wall around the timed steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hvbench.analysis.frame.elapsed import elapsed_after_steps, slowest_series
from hvbench.analysis.frame.frames import choose_slowest_rank, point_frame, step_frame
from hvbench.analysis.frame.samples import make_samples
from hvbench.analysis.topics.scaling.efficiency import scaling_efficiencies
from hvbench.comparison.compare import compare
from hvbench.comparison.result import LaunchSet
from hvbench.records.record import Record
from hvbench.sweep.tune import step_seconds
from hvbench.tracking.export import make_run, pair_with_figures
from tests.unit.sample_records import make_evaluation, make_rank, make_record

COMPUTE, UPDATE = 10e-3, 0.5e-3  # seconds


def train_in_lockstep(ranks: int, *, steps: int, seed: int = 0, **fields: object) -> tuple[Record, float]:
    """A launch whose ranks compute, meet in an all-reduce and update by themselves, and the wall's seconds of its timed steps."""
    random = np.random.default_rng(seed)
    ends = np.zeros((ranks, 1))
    for _ in range(steps + 1):
        all_reduced = (ends[:, -1] + COMPUTE).max()
        ends = np.column_stack([ends, all_reduced + random.exponential(UPDATE, ranks)])
    seconds = np.diff(ends)  # (ranks, steps), warm-up step first
    wall = float(ends[:, -1].max() - ends[:, 1].min())
    record = make_record([make_rank(rank, step_seconds=list(seconds[rank])) for rank in range(ranks)], **fields)
    return record, wall


def row_of(record: Record) -> pd.Series:
    return point_frame([record]).iloc[0]


# (seconds of each rank's timed steps; elapsed, median of the slowest rank; what per-step maxima would have added up to)
BY_HAND = [
    ([[1.0, 3.0, 1.0, 3.0], [3.0, 1.0, 3.0, 1.0]], 8.0, 2.0, 12.0),  # late by turns
    ([[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]], 6.0, 2.0, 7.0),
    ([[1.0, 1.0, 1.0], [1.0, 2.0, 1.0]], 4.0, 1.0, 4.0),  # one rank is always as late
    ([[5.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 5.5]], 7.5, 1.0, 15.5),
    ([[4.0, 4.0]], 8.0, 4.0, 8.0),  # a rank alone
]


@pytest.mark.parametrize(("seconds", "elapsed", "median", "of_maxima"), BY_HAND)
def test_a_launch_takes_as_long_as_its_longest_clock(seconds, elapsed, median, of_maxima) -> None:
    ranks = [make_rank(rank, step_seconds=[9.0, *timed]) for rank, timed in enumerate(seconds)]
    record = make_record(ranks, micro_batch_size=2)
    row = row_of(record)
    tokens = 2 * 32 * len(seconds) * len(seconds[0])
    assert np.max(seconds, axis=0).sum() == of_maxima
    assert row["elapsed_seconds"] == elapsed
    assert row["tokens_per_second"] == pytest.approx(tokens / elapsed)
    assert row["tokens_per_second_per_rank"] == pytest.approx(tokens / elapsed / len(seconds))
    assert row["step_seconds_median"] == median and step_seconds(record) == median
    assert make_samples(record).slowest.sum() == elapsed
    assert slowest_series(seconds).sum() == elapsed and elapsed_after_steps(seconds)[-1] == elapsed
    steps = choose_slowest_rank(step_frame([record]))
    assert steps.loc[~steps["is_warmup"], "step_seconds"].sum() == elapsed
    assert set(steps["rank"]) == {row["slowest_rank"]}


@pytest.mark.parametrize(("seconds", "elapsed", "median", "of_maxima"), BY_HAND)
def test_evaluations_take_as_long_as_the_longest_clock_too(seconds, elapsed, median, of_maxima) -> None:
    """As many evaluations, the last of which reaches the target."""
    ranks = [
        make_rank(
            rank, step_seconds=[1.0] * 9,
            evaluations=[make_evaluation(step, 9.0 - step, seconds=each) for step, each in enumerate(mine, start=1)],
        )
        for rank, mine in enumerate(seconds)
    ]  # fmt: skip
    for reached in range(1, len(seconds[0]) + 1):
        row = row_of(make_record(ranks, target_loss=9.0 - reached))
        assert row["evaluation_seconds"] == elapsed
        assert row["evaluation_seconds_to_target"] == max(sum(mine[:reached]) for mine in seconds)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 64])
def test_ranks_in_lockstep_are_measured_as_by_a_clock_on_the_wall(ranks: int) -> None:
    """Σ of per-step maxima is 3 % too long at 2 ranks and 16 % at 64."""
    record, wall = train_in_lockstep(ranks, steps=200)
    row = row_of(record)
    tokens = 200 * record.model.tokens_per_step
    assert row["tokens_per_second"] == pytest.approx(tokens / wall, rel=2e-3)
    assert row["model_flops_per_second"] == pytest.approx(tokens / wall * record.model.model_flops_per_token, rel=2e-3)
    assert row["step_seconds_median"] == pytest.approx(wall / 200, rel=3e-2)  # the updates' times lean to one side
    ((_, of_frame),) = pair_with_figures([record])
    curve = make_run(record, of_frame).curves["step_seconds"]
    warmup, last = curve[0], curve[-1]
    assert sum(one.value for one in curve[1:]) == pytest.approx(wall, rel=2e-3)
    waits = 200 * 1e-3  # for batches, which are part of no step
    assert last.seconds - warmup.seconds == pytest.approx(wall + waits, rel=1e-2)


@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_efficiency_is_not_biased_by_the_number_of_ranks(ranks: int) -> None:
    launches = [train_in_lockstep(n, steps=200, seed=n, world_size=n) for n in (1, ranks)]
    (weak,) = [
        one for one in scaling_efficiencies(point_frame([record for record, _ in launches])) if one.kind == "weak"
    ]
    alone, together = (wall for _, wall in launches)
    assert weak.estimate.centre == pytest.approx(alone / together, rel=5e-3)


def test_a_comparison_of_steps_sees_no_skew() -> None:
    """The same wall time, once with ranks that are late by turns: no change."""
    steady = [[1.0] * 8, [1.0] * 8]
    by_turns = [[0.9, 1.1] * 4, [1.1, 0.9] * 4]
    sets = [
        LaunchSet(
            name=name,
            job="one",
            records=[
                make_record(
                    [make_rank(rank, step_seconds=[9.0, *timed]) for rank, timed in enumerate(ranks)], repeat=repeat
                )
                for repeat in range(3)
            ],
        )
        for name, ranks in (("before", steady), ("after", by_turns))
    ]
    (point,) = compare(sets).points
    found = {change.metric.name: change.ratio.ratio for change in point.changes}
    assert found["step_seconds_median"] == pytest.approx(1.0, abs=0.01)
    assert found["tokens_per_second"] == pytest.approx(1.0, abs=0.01)  # step by step, too
