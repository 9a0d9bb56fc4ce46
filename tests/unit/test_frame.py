"""The metrics of one launch against hand-computed cases."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hvbench.analysis.frame import shape
from hvbench.analysis.frame.axes import order_values, varying_axes
from hvbench.analysis.frame.columns import MEASURED_COLUMNS, POINT_COLUMNS
from hvbench.analysis.frame.frames import evaluation_frame, launch_row, point_frame, step_frame
from hvbench.records.record import Outcome
from hvbench.training.schedule import tokens_of_step
from tests.unit.sample_records import make_ceiling, make_evaluation, make_quickstart, make_rank, make_record


def measure(record) -> pd.Series:
    return point_frame([record]).iloc[0]


def two_ranks(**changes):
    """2 ranks, accumulation 4: 2 x 4 x 2 samples of 32 tokens = 512 tokens per step; one warm-up step."""
    ranks = [
        make_rank(0, step_seconds=[9.0, 1.0, 2.0, 1.0], loss=[9.0, 4.0, 3.0, 2.0], peak_rss_bytes=100),
        make_rank(1, step_seconds=[8.0, 3.0, 1.0, 2.0], loss=[9.0, 4.0, 3.0, 4.0], peak_rss_bytes=300),
    ]
    return make_record(ranks, micro_batch_size=2, gradient_accumulation_steps=4, **changes)


def test_throughput_is_tokens_over_the_slowest_ranks_seconds() -> None:
    """Timed steps of 1, 2, 1 s on rank 0 and of 3, 1, 2 s on rank 1."""
    row = measure(two_ranks())
    assert row["tokens_per_step"] == 512
    assert row["tokens_per_second"] == pytest.approx(3 * 512 / (3.0 + 1.0 + 2.0))
    assert row["tokens_per_second_per_rank"] == pytest.approx(3 * 512 / 6 / 2)


def test_chosen_metrics_are_the_same_and_the_others_missing() -> None:
    whole, part = point_frame([two_ranks()]), point_frame([two_ranks()], metrics=["tokens_per_second"])
    assert list(part.columns) == list(whole.columns)
    assert part["tokens_per_second"].equals(whole["tokens_per_second"]) and part["status"].equals(whole["status"])
    assert part["step_seconds_median"].isna().all()


def test_a_launch_s_row_is_that_of_the_frame() -> None:
    names = ("tokens_per_second", "final_loss", "step_seconds_median")
    records = make_quickstart()
    failed = records[0].model_copy(update={"outcome": Outcome(status="failed", message="a reason")})
    for record in [*records, failed]:
        row, expected = launch_row(record, metrics=names), point_frame([record]).iloc[0]
        assert row["status"] == expected["status"]
        np.testing.assert_equal([row[name] for name in names], [expected[name] for name in names])


def test_throughput_is_not_a_mean_of_rates() -> None:
    """One step of 1 s and one of 3 s: the harmonic 2 x 32 / 4, not the arithmetic (32 + 32 / 3) / 2."""
    row = measure(make_record([make_rank(step_seconds=[5.0, 1.0, 3.0])], micro_batch_size=1))
    assert row["tokens_per_second"] == pytest.approx(16.0)


def test_throughput_is_the_harmonic_mean_of_the_steps_rates() -> None:
    """Accumulation 4 on 2 ranks, the slower one's steps of 3, 1 and 2 s: 512 tokens each at 512/3, 512/1 and 512/2 tokens/s."""
    rates = [512 / 3, 512 / 1, 512 / 2]
    assert measure(two_ranks())["tokens_per_second"] == pytest.approx(statistics.harmonic_mean(rates))


def test_tokens_to_target_count_accumulation_and_ranks() -> None:
    ranks = [
        make_rank(rank, step_seconds=[1.0] * 5, evaluations=[make_evaluation(3, 2.0, training_seconds=4.0 + rank)])
        for rank in range(2)
    ]
    row = measure(make_record(ranks, micro_batch_size=2, gradient_accumulation_steps=4, target_loss=2.0))
    assert row["tokens_to_target"] == 3 * (2 * 4 * 2 * 32)
    assert row["seconds_to_target"] == 5.0


def test_step_times_are_the_slowest_ranks() -> None:
    row = measure(two_ranks())
    assert row["step_seconds_median"] == 2.0
    assert row["first_step_seconds"] == 9.0
    assert row["timed_steps"] == 3


def test_the_shape_of_the_timed_steps_is_that_of_the_slowest_rank() -> None:
    """Slowest: 1, 2, 3, 6. Lag 1: Pearson of (1, 2, 3) and (2, 3, 6); skewness: g1 sqrt(n (n - 1)) / (n - 2)."""
    ranks = [
        make_rank(0, step_seconds=[9.0, 1.0, 2.0, 3.0, 6.0]),
        make_rank(1, step_seconds=[8.0, 0.5, 9.0, 1.0, 1.0]),  # the slowest of one step, not of all
    ]
    row = measure(make_record(ranks))
    assert row["step_seconds_autocorrelation"] == pytest.approx(4 / math.sqrt(2 * 26 / 3))
    # mean 3, deviations -2 -1 0 3: m2 = 14 / 4, m3 = 18 / 4
    assert row["step_seconds_skewness"] == pytest.approx((18 / 4) / (14 / 4) ** 1.5 * math.sqrt(4 * 3) / 2)
    assert row["first_timed_step_ratio"] == pytest.approx(1.0 / 3.0)  # the median of 2, 3, 6


@pytest.mark.parametrize("steps", [[9.0, 1.0, 2.0, 3.0], [9.0, 1.0, 1.0, 1.0, 1.0]])
def test_too_few_steps_or_all_alike_have_no_shape(steps: list[float]) -> None:
    row = measure(make_record([make_rank(step_seconds=steps)]))
    assert math.isnan(row["step_seconds_autocorrelation"]) and math.isnan(row["step_seconds_skewness"])


def test_one_timed_step_has_no_other_to_compare_with() -> None:
    assert math.isnan(measure(make_record([make_rank(step_seconds=[9.0, 1.0])]))["first_timed_step_ratio"])


def test_flops_follow_the_tokens() -> None:
    record = two_ranks()
    assert measure(record)["model_flops_per_second"] == pytest.approx(3 * 512 / 6 * record.model.model_flops_per_token)


def with_ceilings(*rates: float | None, step_seconds: float = 1.0, generation: int | None = None, **point_fields):
    """A rank for each rate, all steps equally long; 4 x 32 tokens a rank and step."""
    ranks = [
        make_rank(rank, step_seconds=[step_seconds] * 3, ceiling=rate and make_ceiling(rate))
        for rank, rate in enumerate(rates)
    ]
    return make_record(ranks, micro_batch_size=4, generation=generation, **point_fields)


def test_mfu_is_against_the_ceilings_of_all_ranks() -> None:
    record = with_ceilings(3e9, 1e9, step_seconds=0.5)
    row = measure(record)
    achieved = 2 * 4 * 32 / 0.5 * record.model.model_flops_per_token
    assert row["model_flops_per_second"] == pytest.approx(achieved)
    assert row["gemm_flops_per_second"] == 4e9
    assert row["model_flops_utilization"] == pytest.approx(achieved / 4e9)


def test_mfu_of_the_machine_is_against_its_best_framework() -> None:
    """PyTorch at half of TensorFlow's products: its own MFU hides it, that of the machine does not."""
    records = [
        with_ceilings(1e9, 1e9, framework="pytorch"),
        with_ceilings(1e9, 3e9, framework="tensorflow"),
        with_ceilings(9e9, 9e9, framework="tensorflow", precision="bf16"),
        with_ceilings(9e9, framework="tensorflow"),  # one rank is another question
    ]
    frame = point_frame(records)
    pytorch = frame[frame["framework"] == "pytorch"].iloc[0]
    assert pytorch["model_flops_utilization"] == pytest.approx(pytorch["model_flops_per_second"] / 2e9)
    assert pytorch["model_flops_utilization_of_machine"] == pytest.approx(pytorch["model_flops_per_second"] / 4e9)
    assert (frame["model_flops_utilization_of_machine"] <= frame["model_flops_utilization"]).all()


def test_no_ceiling_gives_no_mfu() -> None:
    names = ["model_flops_utilization", "model_flops_utilization_of_machine", "gemm_flops_per_second",
             "allreduce_busbw_bytes_per_second"]  # fmt: skip
    assert measure(two_ranks())[names].isna().all()
    assert measure(with_ceilings(1e9, None))[names].isna().all()


def test_ceilings_of_a_launch() -> None:
    ranks = [
        make_rank(
            rank,
            step_seconds=[1.0, 1.0],
            ceiling=make_ceiling(memory_bandwidth_bytes_per_second=rate, allreduce_busbw_bytes_per_second=rate),
        )
        for rank, rate in enumerate((2e9, 3e9))
    ]
    row = measure(make_record(ranks))
    assert row["memory_bandwidth_bytes_per_second"] == 5e9
    assert row["allreduce_busbw_bytes_per_second"] == 2e9  # an all-reduce is as fast as its slowest rank
    alone = make_rank(step_seconds=[1.0, 1.0], ceiling=make_ceiling(allreduce_busbw_bytes_per_second=None))
    assert math.isnan(measure(make_record([alone]))["allreduce_busbw_bytes_per_second"])


def test_emulation_is_what_the_ceilings_say_or_else_the_processor() -> None:
    rank = make_rank(step_seconds=[1.0, 1.0], ceiling=make_ceiling(is_emulated=True))
    assert measure(make_record([rank], precision="bf16"))["is_emulated"]
    facts = {"native_bfloat16": False, "native_float16": True}
    for precision, expected in (("fp32", False), ("bf16", True), ("fp16", False)):
        lost = make_record(status="oom", precision=precision, environment=facts)
        assert measure(lost)["is_emulated"] == expected
    assert not measure(make_record(status="oom", precision="bf16", device="cuda", environment=facts))["is_emulated"]


def test_memory_is_the_largest_rank() -> None:
    row = measure(two_ranks())
    assert row["peak_rss_bytes"] == 300
    assert row["peak_device_memory_bytes"] is pd.NA


def test_final_loss_is_the_mean_of_the_last_tenth() -> None:
    assert measure(two_ranks())["final_loss"] == pytest.approx((2.0 + 4.0) / 2)
    loss = [9.0] + [5.0] * 18 + [2.0, 1.0]
    assert measure(make_record([make_rank(step_seconds=[1.0] * 21, loss=loss)]))["final_loss"] == pytest.approx(1.5)


def test_loss_digest_tells_losses_apart() -> None:
    digests = [
        measure(make_record([make_rank(step_seconds=seconds, loss=loss)]))["loss_digest"]
        for seconds, loss in (([1.0, 1.0], [3.0, 2.0]), ([7.0, 8.0], [3.0, 2.0]), ([1.0, 1.0], [3.0, 2.0000001]))
    ]
    assert digests[0] == digests[1] != digests[2]


def evaluated(target_loss: float | None, losses: tuple[float | None, ...] = (9.0, 4.0, 2.0)):
    ranks = [
        make_rank(
            rank,
            step_seconds=[1.0] * 5,
            evaluations=[
                make_evaluation(2 * i, loss, samples=samples, seconds=0.5 + rank, training_seconds=2.0 * i + rank)
                for i, loss in enumerate(losses)
            ],
        )
        for rank, samples in enumerate((30, 10))
    ]
    return make_record(ranks, micro_batch_size=1, target_loss=target_loss)


def test_time_to_target_is_the_first_evaluation_at_or_under_it() -> None:
    row = measure(evaluated(4.0))
    assert row["target"] == "reached"
    assert row["steps_to_target"] == 2
    assert row["tokens_to_target"] == 2 * 64
    assert row["seconds_to_target"] == 3.0  # the slower rank's training clock, without evaluation
    assert row["evaluation_seconds_to_target"] == pytest.approx(2 * 1.5)
    assert row["evaluation_seconds"] == pytest.approx(3 * 1.5)
    assert row["evaluated_steps"] == 4 and math.isnan(row["final_validation_loss"])  # of five steps


@pytest.mark.parametrize(
    ("target_loss", "losses", "status"),
    [(1.0, (9.0, 4.0), "not reached"), (4.0, (9.0, None), "not reached"), (None, (9.0, 4.0), None), (4.0, (), None)],
)
def test_a_target_not_reached_is_no_number(target_loss, losses, status) -> None:
    row = measure(evaluated(target_loss, losses))
    assert row["target"] == status or (status is None and pd.isna(row["target"]))
    assert row[["steps_to_target", "tokens_to_target", "seconds_to_target"]].isna().all()


def test_validation_loss_is_weighted_by_samples() -> None:
    ranks = [
        make_rank(
            0, step_seconds=[1.0] * 3, evaluations=[make_evaluation(2, 1.0, samples=30), make_evaluation(3, 1.0)]
        ),
        make_rank(1, step_seconds=[1.0] * 3, evaluations=[make_evaluation(2, 5.0, samples=10)]),
    ]
    frame = evaluation_frame([make_record(ranks)])
    assert frame["step"].tolist() == [2]  # what one rank alone evaluated is no evaluation
    assert frame["validation_loss"].tolist() == [2.0]
    assert frame["samples"].tolist() == [40]


@pytest.mark.parametrize("status", ["oom", "failed", "timeout", "diverged", "skipped", "interrupted"])
def test_a_launch_that_is_not_ok_keeps_its_row_without_metrics(status: str) -> None:
    row = measure(make_record([make_rank(step_seconds=[1.0, 1.0])], status=status, message="why", phase="measure"))
    assert (row["status"], row["message"], row["phase"]) == (status, "why", "measure")
    assert row[list(MEASURED_COLUMNS)].isna().all()


@pytest.mark.parametrize(
    ("ranks", "says"),
    [
        ([make_rank(0, step_seconds=[1.0, 1.0]), make_rank(1, step_seconds=[1.0])], "1 of at least 2 steps of rank 1"),
        ([make_rank(0, step_seconds=[1.0, 1.0], loss=[1.0])], "1 of at least 2 steps"),
        ([make_rank(0, step_seconds=[1.0, 0.0])], "took no time"),
    ],
)
def test_an_ok_record_without_its_samples_counts_as_failed(ranks, says: str) -> None:
    row = measure(make_record(ranks))
    assert row["status"] == "failed"
    assert says in row["message"]
    assert row[list(MEASURED_COLUMNS)].isna().all()


def test_a_missing_rank_counts_as_failed() -> None:
    assert "1 of 2 ranks" in measure(make_record([make_rank(step_seconds=[1.0, 1.0])], world_size=2))["message"]


def test_steps_are_long_form_with_clocks_and_tokens() -> None:
    frame = step_frame([two_ranks()])
    assert len(frame) == 8
    second = frame[frame["rank"] == 1]
    assert second["step"].tolist() == [1, 2, 3, 4]
    assert second["is_warmup"].tolist() == [True, False, False, False]
    assert second["tokens"].tolist() == [512, 1024, 1536, 2048]
    assert second["training_seconds"].tolist() == pytest.approx([8.001, 11.002, 12.003, 14.004])


def test_steps_of_a_broken_launch_are_kept() -> None:
    rank = make_rank(step_seconds=[1.0, 1.0], loss=[3.0], learning_rate=[])
    frame = step_frame([make_record([rank], status="failed")])
    assert frame["loss"].tolist()[0] == 3.0
    assert math.isnan(frame["loss"].tolist()[1])


def test_frames_agree_on_launches_in_any_order_of_records() -> None:
    records = make_quickstart(repeats=2)
    first, second = point_frame(records), point_frame(reversed(records))
    pd.testing.assert_frame_equal(first, second)
    assert set(step_frame(records)["launch"]) == set(first["launch"])


def test_columns_are_documented_and_stay_without_records() -> None:
    frame = point_frame([])
    assert list(frame.columns) == [column.name for column in POINT_COLUMNS]
    assert all(column.meaning for column in POINT_COLUMNS)
    assert step_frame([]).empty and evaluation_frame([]).empty


def test_varying_axes_leave_out_what_follows_from_the_model() -> None:
    names = ["framework", "micro_batch_size", "gradient_accumulation_steps", "precision", "compression"]
    assert varying_axes(point_frame(make_quickstart())) == names
    rank = make_rank(step_seconds=[1.0, 1.0])
    models = point_frame([make_record([rank], model=model) for model in ("tiny", "small")])
    assert varying_axes(models) == ["model"]
    assert varying_axes(point_frame([])) == []


def test_values_have_the_order_of_their_choices() -> None:
    assert order_values("precision", ["fp16", "bf16", "fp32", "bf16"]) == ["fp32", "bf16", "fp16"]
    assert order_values("micro_batch_size", [16, 4, 8]) == [4, 8, 16]
    assert order_values("world_size", [2, None, 1]) == [1, 2, None]


# Batches that warm up, and clipping


def warming_record(**changes):
    """Micro-batches of 2 x 32 tokens on 2 ranks: 128 tokens a pass; 1, 2, 3, 4, 4 passes; one warm-up step."""
    tokens = [128, 256, 384, 512, 512]
    ranks = [
        make_rank(rank, step_seconds=[9.0, 1.0, 2.0, 3.0, 4.0], step_tokens=tokens, **changes) for rank in range(2)
    ]
    return make_record(ranks, micro_batch_size=2, gradient_accumulation_steps=4, batch_warmup_steps=3, target_loss=2.0)


def test_throughput_counts_the_tokens_that_each_step_had() -> None:
    row = measure(warming_record())
    assert row["tokens_per_step"] == 512
    assert row["tokens_per_second"] == pytest.approx((256 + 384 + 512 + 512) / (1.0 + 2.0 + 3.0 + 4.0))


def test_curves_and_targets_count_them_too() -> None:
    record = warming_record(evaluations=[make_evaluation(2, 3.0), make_evaluation(4, 2.0)])
    assert measure(record)["tokens_to_target"] == 128 + 256 + 384 + 512
    assert step_frame([record]).query("rank == 1")["tokens"].tolist() == [128, 384, 768, 1280, 1792]
    assert evaluation_frame([record])["tokens"].tolist() == [384, 1280]
    assert measure(record)["evaluated_tokens"] == 1280


@pytest.mark.parametrize(
    ("warm_up", "first", "steps", "tokens"),
    [
        (200, 0, 170, 1_361_920),  # 170 steps of 16,384 were 2,785,280
        (0, 0, 170, 2_785_280),
        (3, 0, 5, (2 + 4 + 6 + 8 + 8) * 2048),  # 8 k / 4 passes of 2,048 tokens
        (3, 2, 2, (6 + 8) * 2048),  # goes on from a checkpoint after two steps
        (200, 300, 4, 4 * 16_384),  # or after the warm-up
    ],
)
@pytest.mark.parametrize("is_listed", [True, False])
def test_every_count_of_tokens_knows_the_batch_warm_up(
    warm_up: int, first: int, steps: int, tokens: int, is_listed: bool
) -> None:
    """2 ranks x 8 samples x 128 tokens x up to 8 passes; a record lists each step's tokens, or they follow from its point."""
    knobs = {"micro_batch_size": 8, "sequence_length": 128, "gradient_accumulation_steps": 8, "world_size": 2}
    point = make_record([make_rank(step_seconds=[1.0])], **knobs, batch_warmup_steps=warm_up).point
    listed = [tokens_of_step(point, first + step) for step in range(steps)]
    changes = {"step_tokens": listed if is_listed else [], "first_step": first}
    ranks = [
        make_rank(rank, step_seconds=[1.0] * steps, evaluations=[make_evaluation(steps, 1.5)], **changes)
        for rank in range(2)
    ]
    record = make_record(ranks, **knobs, batch_warmup_steps=warm_up, target_loss=2.0)
    row = measure(record)
    assert row["evaluated_tokens"] == row["tokens_to_target"] == tokens
    assert row["tokens_per_second"] * (steps - 1) == pytest.approx(tokens - listed[0])  # the first one warms up
    assert step_frame([record])["tokens"].max() == evaluation_frame([record])["tokens"].max() == tokens


def test_samples_that_grow_count_with_their_own_tokens_and_flops() -> None:
    """Two of three timed steps at 24 and 32 tokens a sample: attention's FLOPs a token are those of the mean length."""
    knobs = {"micro_batch_size": 2, "world_size": 1, "length_warmup_steps": 3}
    tokens = [16, 32, 48, 64, 64]
    rank = make_rank(step_seconds=[9.0, 1.0, 1.0, 1.0, 1.0], step_tokens=tokens)
    record, full = (make_record([rank], **knobs | changes) for changes in ({}, {"length_warmup_steps": 0}))
    row = measure(record)
    assert row["tokens_per_second"] == pytest.approx((32 + 48 + 64 + 64) / 4)
    length = (32 * 16 + 48 * 24 + 128 * 32) / 208
    attention = 12 * record.point.num_layers * record.point.hidden_size
    less = attention * (32 - length) * row["tokens_per_second"]
    assert row["model_flops_per_second"] == pytest.approx(measure(full)["model_flops_per_second"] - less)


@pytest.mark.parametrize("tokens", [[128, 256, 384, 512, 513], [128, 256, 384, 512], [0, 256, 384, 512, 512]])
def test_a_record_whose_tokens_cannot_be_is_not_counted(tokens: list[int]) -> None:
    record = warming_record()
    ranks = [rank.model_copy(update={"step_tokens": tokens}) for rank in record.ranks]
    assert measure(record.model_copy(update={"ranks": ranks}))["status"] == "failed"


def test_the_clipped_fraction_is_over_all_updates_and_leaves_skipped_steps_out() -> None:
    rank = make_rank(step_seconds=[1.0] * 6, gradient_norm=[2.0, 1.5, None, 1.0, 0.5, 3.0], skipped_steps=[2, 5])
    assert measure(make_record([rank], micro_batch_size=1))["clipped_fraction"] == pytest.approx(2 / 4)
    assert measure(make_record([rank], micro_batch_size=1, max_gradient_norm=0.5))["clipped_fraction"] == 0.75
    assert math.isnan(measure(make_record([rank], micro_batch_size=1, max_gradient_norm=0.0))["clipped_fraction"])


def test_what_only_follows_from_the_optimizer_is_no_axis() -> None:
    records = [make_record([make_rank(step_seconds=[1.0, 1.0])], optimizer=name) for name in ("adamw", "sgd", "lamb")]
    assert varying_axes(point_frame(records)) == ["optimizer"]
    records.append(make_record([make_rank(step_seconds=[1.0, 1.0])], optimizer="sgd", learning_rate=0.2))
    assert varying_axes(point_frame(records)) == ["optimizer", "learning_rate"]


@pytest.mark.parametrize("steps", [4, 7, 50])
def test_the_shape_of_steps_is_that_of_scipy_and_pandas(steps: int) -> None:
    seconds = np.random.default_rng(steps).lognormal(0.0, 0.2, steps)
    assert shape.skewness(seconds) == pytest.approx(stats.skew(seconds, bias=False), rel=1e-12)
    assert shape.autocorrelation(seconds) == pytest.approx(pd.Series(seconds).autocorr(lag=1), rel=1e-12)
