"""A training that amplifies rounding errors is proven over the updates before it does so, and a wrong one is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hvbench.launch.session import open_launch, resolve_context
from hvbench.launch.task import Failure, FailureStatus
from hvbench.parity.compare import Deviation
from hvbench.parity.horizon import HORIZONS, drifted_apart, find_horizon, prove_pairs
from hvbench.parity.pairs import Parity, PointPair
from hvbench.parity.run import TracedPoint
from hvbench.spec.point import Point
from hvbench.training.weights import initial_weights, move_last_bits
from tests.parity.points import make_point

STEPS = 20
# Twenty times the rate that `tiny` bears: one unit in the last place of the weights uses up five times the tolerance of every kind,
# whatever the processor. One layer is traced in half the time.
AMPLIFYING = {"optimizer": "sgd", "learning_rate": 2.0, "num_layers": 1}
POINT = make_point("pytorch", 1)


def amplifying_pair(**wrong: float) -> PointPair:
    return make_point("pytorch", 1, **{**AMPLIFYING, **wrong}), make_point("tensorflow", 1, **AMPLIFYING)


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> dict[PointPair, Parity]:
    """A configuration that amplifies rounding, the same with a rate wrong by a thousandth, and one that does not amplify."""
    pairs = [amplifying_pair(), amplifying_pair(learning_rate=2.002), amplifying_pair(learning_rate=0.001)]
    run_path = tmp_path_factory.mktemp("run")
    (run_path / "logs").mkdir()
    with open_launch(resolve_context(1), run_path=run_path) as coordinator:
        return {parity.points: parity for parity in prove_pairs(coordinator, pairs, steps=STEPS)}


def test_one_that_amplifies_is_proven_over_fewer_updates(proofs: dict[PointPair, Parity]) -> None:
    amplifying = proofs[amplifying_pair()]
    assert amplifying.horizon in HORIZONS and amplifying.updates == amplifying.horizon
    assert amplifying.is_proven, [each for each in amplifying.deviations if not each.is_within]


def test_one_that_amplifies_and_is_wrong_is_not_proven(proofs: dict[PointPair, Parity]) -> None:
    wrong = proofs[amplifying_pair(learning_rate=2.002)]
    assert wrong.horizon in HORIZONS and not wrong.is_proven


def test_an_error_where_the_other_does_not_amplify_is_not_excused(proofs: dict[PointPair, Parity]) -> None:
    alone = proofs[amplifying_pair(learning_rate=0.001)]
    assert drifted_apart(alone) and alone.horizon is None and not alone.is_proven


def traced(point: Point = POINT, **changes: np.ndarray) -> TracedPoint:
    """A trace of STEPS updates in which nothing happens."""
    trace = {
        "logits": np.ones((1, 2, 3)),
        "overflows": np.array(0),
        "loss": np.ones(STEPS),
        "gradient_norm": np.ones(STEPS),
        "skipped": np.zeros(STEPS, bool),
        "gradient/position_embedding": np.ones((2, 3)),
        "update/position_embedding": np.ones((2, 3)),
    }
    return TracedPoint(point=point, ranks={0: trace | changes}, digests=[{}], is_native=False, failure=None)


def off_from(step: int, error: float) -> np.ndarray:
    return 1 + error * (np.arange(STEPS) >= step)


def find(plain: TracedPoint, moved: TracedPoint, *, exceeded: str = "gradient_norm") -> int | None:
    digests = [{"gradients": "", "parameters": ""}]
    perturbed = [replace(each, digests=digests) for each in (plain, moved)]
    return find_horizon(replace(plain, digests=digests), perturbed, {exceeded})


@pytest.mark.parametrize(("step", "horizon"), [(2, None), (3, 3), (6, 5), (12, 10), (19, 15)])
def test_the_horizon_lies_before_rounding_has_used_up_half_of_a_tolerance(step: int, horizon: int | None) -> None:
    moved = traced(gradient_norm=off_from(step, 6e-7) + 1e-3 * (np.arange(STEPS) == 19))  # fp32: 1e-6 are allowed
    assert find(traced(), moved) == horizon


def test_rounding_that_uses_up_less_than_a_quarter_of_a_tolerance_explains_nothing() -> None:
    assert find(traced(), traced(gradient_norm=off_from(3, 2e-7))) is None
    assert find(traced(), traced(gradient_norm=off_from(3, 9e-7))) == 3
    assert find(traced(), traced(gradient_norm=off_from(3, 9e-7)), exceeded="update_length") is None
    assert find(traced(), replace(traced(), failure=Failure(status=FailureStatus.FAILED, message=""))) is None


@pytest.mark.parametrize(
    ("name", "is_later"),
    [
        ("rank0/gradient_norm/step12", True), ("rank1/loss/step1", True), ("rank0/update/final_norm.gain", True),
        ("rank0/gradient_norm/step0", False), ("rank0/logits", False), ("rank0/gradient/final_norm.gain", False),
        ("rank0/overflows", False), ("pytorch/ranks_with_other_parameters", False),
    ],
)  # fmt: skip
def test_only_what_began_alike_is_asked_about(name: str, is_later: bool) -> None:
    outside = Deviation(name=name, relative_error=1.0, tolerance=1e-6)
    parity = Parity(points=(POINT, POINT), deviations=[outside], problem=None)
    assert drifted_apart(parity) == is_later
    assert not drifted_apart(replace(parity, problem="pytorch failed"))


def test_a_moved_weight_is_the_next_one_of_its_dtype() -> None:
    weights = initial_weights(POINT)
    moved = move_last_bits(weights, seed=(0, 0))
    for name, values in weights.items():
        assert moved[name].dtype == values.dtype
        distance = np.abs(moved[name].view(np.int32) - values.view(np.int32))
        assert (distance == (values != 0)).all()
    gains = moved["final_norm.gain"]
    assert 0 < np.count_nonzero(gains > 1) < gains.size, "up or down"
