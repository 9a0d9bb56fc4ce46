"""Early stopping: at the target, or after as many evaluations without a better loss as patience allows."""

from __future__ import annotations

import math

import pytest

from hvbench.plan.jobs import Job
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.sweep.tasks import seeded_point
from hvbench.training.stopping import EarlyStopping


@pytest.mark.parametrize(
    ("target_loss", "patience", "losses", "expected"),
    [
        (3.0, 0, [4.0, 3.5, 3.0], [None, None, "target"]),
        (3.0, 0, [4.0, 3.001], [None, None]),
        (None, 2, [4.0, 4.0, 3.9, 3.9, 4.1], [None, None, None, None, "patience"]),
        (None, 1, [4.0, math.nan], [None, "patience"]),
        (3.0, 1, [4.0, math.nan, 2.0], [None, "patience", "target"]),
        (None, 0, [4.0, 5.0, 6.0, 7.0], [None] * 4),
    ],
)
def test_training_stops_at_the_target_or_when_patience_is_used_up(target_loss, patience, losses, expected) -> None:
    stopping = EarlyStopping(target_loss=target_loss, patience=patience)
    assert [stopping.judge(loss) for loss in losses] == expected


@pytest.mark.parametrize(("seed_per_repeat", "seeds"), [(False, [5, 5, 5]), (True, [5, 6, 7])])
def test_a_repeat_may_have_a_seed_of_its_own(seed_per_repeat: bool, seeds: list[int]) -> None:
    settings = MeasureSettings(seed_per_repeat=seed_per_repeat)
    point = Point(model="tiny", seed=5, world_size=1)
    trained = [seeded_point(Job(point=point, repeat=repeat), settings) for repeat in range(3)]
    assert [each.seed for each in trained] == seeds
    assert {each.model_copy(update={"seed": 5}) for each in trained} == {point}
