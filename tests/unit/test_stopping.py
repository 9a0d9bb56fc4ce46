"""What follows from evaluations. Early stopping: at the target, or after as many evaluations without a better loss as patience allows."""

from __future__ import annotations

import math

import pytest

from hvbench.plan.jobs import Job, make_plan
from hvbench.plan.skip import reason_to_skip
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.sweep.tasks import seeded_point
from hvbench.training.stopping import EarlyStopping, Plateau


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


@pytest.mark.parametrize(
    ("patience", "losses", "scales"),
    [
        (2, [4.0, 3.0, 3.0, 3.1, 2.0, 2.0, 2.0, 2.0, 2.0], [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]),
        (1, [4.0, math.nan, 3.0, 3.5], [1, 0.5, 0.5, 0.25]),
    ],
)
def test_a_rate_falls_where_evaluations_no_longer_improve(patience: int, losses: list, scales: list) -> None:
    plateau, found = Plateau(factor=0.5, patience=patience), []
    for loss in losses:
        plateau.judge(loss)
        found.append(plateau.scale)
    assert found == scales


def test_a_plateau_needs_evaluations() -> None:
    point = Point(model="tiny", schedule="plateau", world_size=1)
    for settings, reason in ((MeasureSettings(), "set evaluate_every"), (MeasureSettings(evaluate_every=2), None)):
        plan = make_plan([point], settings, world_size=1)
        assert [reason in skipped.reason for skipped in plan.skipped] == ([True] if reason else [])
        assert len(plan.jobs) == (0 if reason else 1)
    assert "which initial_checkpoint does not have" in reason_to_skip(
        point.model_copy(update={"initial_checkpoint": "x.safetensors"}), world_size=1
    )


@pytest.mark.parametrize(("seed_per_repeat", "seeds"), [(False, [5, 5, 5]), (True, [5, 6, 7])])
def test_a_repeat_may_have_a_seed_of_its_own(seed_per_repeat: bool, seeds: list[int]) -> None:
    settings = MeasureSettings(seed_per_repeat=seed_per_repeat)
    point = Point(model="tiny", seed=5, world_size=1)
    trained = [seeded_point(Job(point=point, repeat=repeat), settings) for repeat in range(3)]
    assert [each.seed for each in trained] == seeds
    assert {each.model_copy(update={"seed": 5}) for each in trained} == {point}
