"""The learning rate and the batch of a step against hand-computed values."""

from __future__ import annotations

import pytest

from hvbench.spec.point import Point
from hvbench.training.schedule import (
    accumulation_steps_at,
    learning_rate_at,
    learning_rate_factor,
    passes_before,
    point_learning_rate,
    sequence_length_at,
    tokens_before,
    tokens_of_step,
)


def cosine(step: int) -> float:
    """Peak 1, 4 steps of warm-up, the end at step 12: 8 steps of decay."""
    return learning_rate_at(step, peak=1.0, schedule="cosine", lr_warmup_steps=4, schedule_steps=12)


@pytest.mark.parametrize(("step", "rate"), [(0, 1 / 5), (1, 2 / 5), (2, 3 / 5), (3, 4 / 5), (4, 1.0)])
def test_warm_up_rises_linearly_and_never_from_zero(step: int, rate: float) -> None:
    assert cosine(step) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (6, 0.1 + 0.9 * (1 + 0.7071067811865476) / 2),  # a quarter: cos 45°
        (8, 0.1 + 0.9 / 2),  # half way: cos 90°
        (10, 0.1 + 0.9 * (1 - 0.7071067811865476) / 2),  # three quarters: cos 135°
        (12, 0.1),  # cos 180°
    ],
)
def test_the_cosine_falls_to_a_tenth_of_the_peak(step: int, rate: float) -> None:
    assert cosine(step) == pytest.approx(rate)


@pytest.mark.parametrize("step", [13, 100, 10**6])
def test_after_the_schedule_the_rate_stays_at_a_tenth(step: int) -> None:
    assert cosine(step) == pytest.approx(0.1)


def test_a_constant_schedule_stays_at_the_peak_after_the_warm_up() -> None:
    rates = [
        learning_rate_at(step, peak=3.0, schedule="constant", lr_warmup_steps=2, schedule_steps=5) for step in range(8)
    ]
    assert rates == pytest.approx([1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0])


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert learning_rate_at(0, peak=0.5, schedule="cosine", lr_warmup_steps=0, schedule_steps=10) == 0.5


def test_the_rate_scales_with_the_peak() -> None:
    for step in range(15):
        scaled = learning_rate_at(step, peak=1e-3, schedule="cosine", lr_warmup_steps=4, schedule_steps=12)
        assert scaled == pytest.approx(1e-3 * cosine(step))


def test_the_rate_never_rises_after_the_warm_up() -> None:
    rates = [cosine(step) for step in range(4, 20)]
    assert rates == sorted(rates, reverse=True)


# Linear and inverse square root


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.2), (3, 0.8), (4, 1.0), (6, 0.775), (8, 0.55), (10, 0.325), (12, 0.1), (13, 0.1), (10**6, 0.1)],
)
def test_the_linear_schedule_falls_to_a_tenth_of_the_peak(step: int, rate: float) -> None:
    """Peak 1, 4 steps of warm-up, 8 of decay: 0.9 / 8 = 0.1125 a step."""
    found = learning_rate_at(step, peak=1.0, schedule="linear", lr_warmup_steps=4, schedule_steps=12)
    assert found == pytest.approx(rate)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0), (8, 2 / 3), (15, 0.5), (35, 1 / 3), (399, 0.1)]
)
def test_the_inverse_square_root_falls_without_end(step: int, rate: float) -> None:
    """Warm-up 4 counted from 1 (peak at step number 4): sqrt(4/9), sqrt(4/16), sqrt(4/36), sqrt(4/400)."""
    found = learning_rate_at(step, peak=1.0, schedule="inverse_sqrt", lr_warmup_steps=3, schedule_steps=1)
    assert found == pytest.approx(rate)


def test_without_warm_up_the_inverse_square_root_is_that_of_the_step_number() -> None:
    rates = [
        learning_rate_at(step, peak=6.0, schedule="inverse_sqrt", lr_warmup_steps=0, schedule_steps=1)
        for step in (0, 3, 8)
    ]
    assert rates == pytest.approx([6.0, 3.0, 2.0])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "inverse_sqrt", "plateau"])
def test_all_schedules_share_their_warm_up(schedule: str) -> None:
    rates = [
        learning_rate_at(step, peak=5.0, schedule=schedule, lr_warmup_steps=4, schedule_steps=50) for step in range(5)
    ]
    assert rates == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0])


# Scaling with the global batch


@pytest.mark.parametrize(
    ("lr_scaling", "size", "factor"),
    [("none", 64, 1.0), ("linear", 64, 4.0), ("sqrt", 64, 2.0), ("linear", 16, 1.0), ("sqrt", 16, 1.0),
     ("linear", 4, 0.25), ("sqrt", 4, 0.5)],
)  # fmt: skip
def test_the_rate_is_scaled_by_the_batch_over_the_reference(lr_scaling: str, size: int, factor: float) -> None:
    assert learning_rate_factor(size, reference_batch_size=16, lr_scaling=lr_scaling) == factor


def test_ranks_accumulation_and_micro_batch_all_count() -> None:
    """2 ranks x 4 passes x 8 samples = 64, 16 times the reference of 4."""
    fields = {"world_size": 2, "gradient_accumulation_steps": 4, "micro_batch_size": 8, "reference_batch_size": 4}
    fields |= {"schedule": "constant", "lr_warmup_steps": 0, "learning_rate": 0.01}
    assert point_learning_rate(Point(lr_scaling="linear", **fields), 7) == pytest.approx(0.16)
    assert point_learning_rate(Point(lr_scaling="sqrt", **fields), 7) == pytest.approx(0.04)


# A batch that warms up


def warming(steps: int, *, passes: int, **fields: object) -> Point:
    return Point(model="tiny", world_size=2, gradient_accumulation_steps=passes, batch_warmup_steps=steps, **fields)


@pytest.mark.parametrize(
    ("steps", "passes", "expected"),
    [
        (0, 3, [3, 3, 3]),
        (3, 4, [1, 2, 3, 4, 4]),
        (7, 2, [1, 1, 1, 1, 2, 2, 2, 2, 2]),
        (4, 2, [1, 1, 2, 2, 2]),  # 2/5, 4/5, 6/5, 8/5, rounded up
        (1, 8, [4, 8, 8]),
    ],
)
def test_the_passes_of_a_step_rise_evenly(steps: int, passes: int, expected: list[int]) -> None:
    point = warming(steps, passes=passes)
    assert [accumulation_steps_at(point, step) for step in range(len(expected))] == expected


@pytest.mark.parametrize(("steps", "passes"), [(0, 1), (0, 5), (3, 4), (7, 2), (1, 8), (10, 3), (100, 7), (5, 5)])
def test_the_passes_before_a_step_are_those_of_the_steps_before(steps: int, passes: int) -> None:
    point, total = warming(steps, passes=passes), 0
    for step in range(steps + 5):
        assert passes_before(point, step) == total
        total += accumulation_steps_at(point, step)


def test_the_rate_follows_the_batch_of_its_own_step() -> None:
    """Batches of 16, 32, 48, 64 on 2 ranks, against a reference of 16."""
    fields = {"micro_batch_size": 8, "schedule": "constant", "lr_warmup_steps": 0, "learning_rate": 1.0}
    point = warming(3, passes=4, lr_scaling="linear", reference_batch_size=16, **fields)
    assert [point_learning_rate(point, step) for step in range(5)] == pytest.approx([1.0, 2.0, 3.0, 4.0, 4.0])


# Samples that grow


@pytest.mark.parametrize(
    ("steps", "length", "expected"),
    [
        (0, 32, [32, 32]),
        (3, 32, [8, 16, 24, 32, 32]),
        (6, 32, [8, 8, 16, 16, 24, 24, 32]),
        (4, 30, [8, 8, 15, 23, 30]),  # stages 0, 3 / 4, 6 / 4 and 9 / 4, rounded down; quarters of 30, rounded up
        (1, 5, [2, 5]),
    ],
)
def test_samples_grow_in_quarters(steps: int, length: int, expected: list[int]) -> None:
    point = Point(model="tiny", sequence_length=length, length_warmup_steps=steps)
    assert [sequence_length_at(point, step) for step in range(len(expected))] == expected


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 6, 10])
@pytest.mark.parametrize("passes", [0, 7])
def test_the_tokens_before_a_step_are_those_of_the_steps_before(steps: int, passes: int) -> None:
    """With a batch that grows at the same time, too."""
    point, total = warming(passes, passes=4, length_warmup_steps=steps, sequence_length=30, micro_batch_size=3), 0
    for step in range(15):
        assert tokens_before(point, step) == total
        assert tokens_of_step(point, step) == 2 * 3 * accumulation_steps_at(point, step) * sequence_length_at(
            point, step
        )
        total += tokens_of_step(point, step)
