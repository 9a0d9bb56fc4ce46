"""The comparison itself, and `check_parity` from points to verdicts over a real launch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hvbench.launch.session import open_launch, resolve_context
from hvbench.parity import norms
from hvbench.parity.compare import Deviation, compare_traces, worst
from hvbench.parity.norms import l2_norm_of_row_l1_norms, relative_error
from hvbench.parity.pairs import check_parity, compare_points
from hvbench.parity.run import TracedPoint
from hvbench.parity.tolerances import Tolerances
from hvbench.parity.trace import digest
from hvbench.registry import FRAMEWORKS
from tests.parity.points import configured_point, make_point, small_tolerances

EXACT = Tolerances(logits=0.0, loss=0.0, gradients=0.0, updates=0.0, update_length=0.0, key_bias_updates=0.0)


def make_trace(**changes: np.ndarray) -> dict[str, np.ndarray]:
    trace = {
        "logits": np.ones((1, 2, 3)),
        "overflows": np.array(0),
        "loss": np.array([3.0, 2.0]),
        "gradient_norm": np.array([1.0, 1.0]),
        "skipped": np.array([False, False]),
        "gradient/block0.attention.qkv.bias": np.array([3.0, 0.0, 4.0]),
        "update/block0.attention.qkv.bias": np.array([3.0, 0.0, 4.0]),
    }
    return trace | changes


def red(a: dict[str, np.ndarray], b: dict[str, np.ndarray], tolerances: Tolerances = EXACT) -> dict[str, float]:
    deviations = compare_traces(a, b, tolerances=tolerances)
    return {each.name: each.relative_error for each in deviations if not each.is_within}


def test_equal_traces_do_not_deviate():
    assert red(make_trace(), make_trace()) == {}


def test_a_deviation_is_relative_to_the_second_trace():
    assert relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)
    assert red(make_trace(loss=np.array([3.0, 2.1])), make_trace()) == {"loss/step1": pytest.approx(0.05)}


def test_an_update_is_compared_by_the_way_of_its_rows():
    """One element that went the other way counts by its share; what is wrong throughout, or in a row, as it always did."""
    gain = np.ones(32)
    turned = np.where(np.arange(32) == 3, -gain, gain)
    assert relative_error(turned, gain, norm=l2_norm_of_row_l1_norms) == pytest.approx(2 / 32)
    matrix = np.random.default_rng(0).standard_normal((10, 32))
    for wrong in (1.01 * matrix, np.where(np.arange(10)[:, None] == 4, 1.5 * matrix, matrix)):
        assert relative_error(wrong, matrix, norm=l2_norm_of_row_l1_norms) == pytest.approx(
            relative_error(wrong, matrix), rel=0.3
        )
    assert relative_error(1.01 * matrix, matrix, norm=l2_norm_of_row_l1_norms) == pytest.approx(0.01)
    traces = [make_trace(**{name: value for name in ("gradient/gain", "update/gain")}) for value in (turned, gain)]
    found = red(*traces)
    assert found["update/gain"] == pytest.approx(2 / 32) and found["gradient/gain"] == pytest.approx(2 / 32**0.5)


@pytest.mark.parametrize("shape", [(), (7,), (40, 7), (3, 5, 7)])
def test_large_tensors_are_compared_in_pieces(monkeypatch, shape):
    a, b = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    rows = [
        np.abs(np.float64(each)).reshape(-1, shape[-1] if shape else 1).sum(axis=1) for each in (a - np.float64(b), b)
    ]
    expected = np.linalg.norm(np.float64(a) - b) / np.linalg.norm(b), np.linalg.norm(rows[0]) / np.linalg.norm(rows[1])
    for size in (norms.CHUNK, 10, 1):
        monkeypatch.setattr(norms, "CHUNK", size)
        assert (relative_error(a, b), relative_error(a, b, norm=l2_norm_of_row_l1_norms)) == pytest.approx(
            expected, rel=1e-6
        )


def test_the_bias_of_keys_is_measured_apart():
    noisy = make_trace(**{"update/block0.attention.qkv.bias": np.array([3.0, 0.5, 4.0])})
    assert red(noisy, make_trace()) == {"update/block0.attention.qkv.bias:key": pytest.approx(0.1)}


@pytest.mark.parametrize("name", ["logits", "loss", "gradient/block0.attention.qkv.bias"])
def test_nan_is_never_within(name):
    trace = make_trace()
    trace[name] = np.full(trace[name].shape, np.nan)
    assert red(trace, trace, small_tolerances("bf16", "none"))


def test_overflows_of_both_are_equal_and_of_one_are_not():
    infinite = make_trace(gradient_norm=np.array([np.inf, 1.0]), skipped=np.array([True, False]))
    undefined = make_trace(gradient_norm=np.array([np.nan, 1.0]), skipped=np.array([True, False]))
    assert red(infinite, undefined) == {}
    assert set(red(infinite, make_trace())) == {"gradient_norm/step0", "skipped"}
    assert set(red(make_trace(overflows=np.array(1)), make_trace())) == {"overflows"}


def test_different_quantities_cannot_be_compared():
    with pytest.raises(ValueError, match="update/extra"):
        compare_traces(make_trace(**{"update/extra": np.ones(1)}), make_trace(), tolerances=EXACT)


def test_the_worst_uses_most_of_its_tolerance():
    fine = Deviation(name="fine", relative_error=0.5, tolerance=1.0)
    close = Deviation(name="close", relative_error=0.009, tolerance=0.01)
    undefined = Deviation(name="undefined", relative_error=float("nan"), tolerance=1.0)
    assert worst([fine, close]) is close
    assert worst([fine, undefined, close]) is undefined


def test_one_bit_changes_the_digest():
    value = np.ones(3, dtype=np.float32)
    assert digest({"a": value}) == digest({"a": value.copy()})
    assert digest({"a": value}) != digest({"a": np.nextafter(value, 2, dtype=np.float32)})
    assert digest({"a": value}) != digest({"b": value})


def test_ranks_with_other_parameters_disprove_parity():
    points = [configured_point(framework, (2, "fp32", "none")) for framework in ("pytorch", "tensorflow")]
    ranks = {rank: make_trace() for rank in range(2)}
    same = {"gradients": "x", "parameters": "x"}
    a, b = (
        TracedPoint(point=point, ranks=ranks, digests=[same, same], is_native=False, failure=None) for point in points
    )
    assert compare_points(a, b).is_proven
    parity = compare_points(a, replace(b, digests=[same, {**same, "parameters": "y"}]))
    assert [each.name for each in parity.deviations if not each.is_within] == ["tensorflow/ranks_with_other_parameters"]


def test_check_parity_from_points_to_verdicts(tmp_path):
    """Points of either framework stand for their configuration; one that cannot run spoils no other."""
    (tmp_path / "logs").mkdir()
    good = make_point("tensorflow", 1, micro_batch_size=2, num_layers=1)
    missing = make_point("pytorch", 1, data=str(tmp_path / "missing.txt"))
    with open_launch(resolve_context(1), run_path=tmp_path) as coordinator:
        parities = check_parity(coordinator, [good, missing, missing], steps=2)
    proven, failed = (parities[: len(FRAMEWORKS) - 1], parities[len(FRAMEWORKS) - 1 :])
    assert [[point.framework for point in each.points] for each in proven] == [
        [FRAMEWORKS[0], other] for other in FRAMEWORKS[1:]
    ]
    assert all(each.is_proven for each in proven)
    assert failed and all(not each.is_proven and "missing.txt" in each.problem for each in failed)
