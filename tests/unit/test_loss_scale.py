"""Dynamic loss scaling for fp16: when the factor halves, doubles and stays."""

from __future__ import annotations

import pytest

from hvbench.spec.numerics import PRECISIONS
from hvbench.training.loss_scale import LossScale


def test_it_starts_at_two_to_the_fifteenth() -> None:
    assert LossScale(enabled=True).scale == 32768


def test_without_fp16_the_factor_is_one_and_nothing_moves_it() -> None:
    scale = LossScale(enabled=False, growth_interval=1)
    scale.update(skipped=True)
    scale.update(skipped=False)
    assert scale.scale == 1.0


def test_an_overflow_halves_it() -> None:
    scale = LossScale(enabled=True)
    scale.update(skipped=True)
    assert scale.scale == 16384


def test_it_doubles_after_an_interval_of_clean_steps() -> None:
    scale = LossScale(enabled=True, scale=8.0, growth_interval=3)
    seen = []
    for _ in range(6):
        scale.update(skipped=False)
        seen.append(scale.scale)
    assert seen == [8, 8, 16, 16, 16, 32]


def test_an_overflow_starts_the_interval_again() -> None:
    scale = LossScale(enabled=True, scale=8.0, growth_interval=3)
    for skipped in (False, False, True, False, False):
        scale.update(skipped=skipped)
    assert scale.scale == 4
    scale.update(skipped=False)
    assert scale.scale == 8


@pytest.mark.parametrize(("start", "skipped", "end"), [(1.0, True, 1.0), (1.5, True, 1.0), (2.0**24, False, 2.0**24)])
def test_it_stays_between_one_and_two_to_the_twenty_fourth(start: float, skipped: bool, end: float) -> None:
    scale = LossScale(enabled=True, scale=start, growth_interval=1)
    scale.update(skipped=skipped)
    assert scale.scale == end


def test_only_fp16_needs_it() -> None:
    assert [name for name, precision in PRECISIONS.items() if precision.loss_scaling] == ["fp16"]
