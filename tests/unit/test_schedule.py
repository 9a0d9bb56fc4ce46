"""The learning rate at a step against hand-computed values."""

from __future__ import annotations

import pytest

from hvbench.training.schedule import learning_rate_at


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
