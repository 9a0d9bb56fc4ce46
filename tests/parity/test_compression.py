"""Both frameworks send the same part of their gradients, and train by it."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.parity.norms import relative_error
from hvbench.parity.pairs import compare_points
from hvbench.registry import FRAMEWORKS
from hvbench.training.compression import matrix_sides, payload_bytes, topk_count
from hvbench.training.weights import trained_shapes
from tests.parity.points import COMPRESSED, STEPS, compressed_point

each_way = pytest.mark.parametrize("choices", COMPRESSED, ids=lambda choices: " ".join(map(str, choices.values())))


@each_way
@pytest.mark.parametrize("other", FRAMEWORKS[1:])
def test_twins_agree(traced, other, choices):
    parity = compare_points(*(traced[compressed_point(framework, choices)] for framework in (FRAMEWORKS[0], other)))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven and parity.updates == STEPS


@each_way
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_trains_by_what_is_sent(traced, framework, choices):
    point = compressed_point(framework, choices)
    trace = traced[point].ranks[0]
    assert trace["loss"][-1] < trace["loss"][0] - 0.2
    whole = 4 * sum(np.prod(shape) for shape in trained_shapes(point).values())
    assert sum(payload_bytes(shape, point) for shape in trained_shapes(point).values()) < whole / 2
    for name, shape in trained_shapes(point).items():
        gradient = trace[f"gradient/{name}"]
        if point.compression == "topk":
            assert 0 < np.count_nonzero(gradient) <= 2 * topk_count(gradient.size, point), name
        if point.compression == "powersgd" and len(shape) > 1:
            assert np.linalg.matrix_rank(gradient.reshape(matrix_sides(shape)), tol=1e-5 * np.abs(gradient).max()) == 2
        if point.compression == "int8":
            assert len(np.unique(gradient)) <= 256 * 2 * -(-gradient.size // (2 * point.int8_bucket)), name


def test_what_was_not_sent_at_first_is_sent_later(traced):
    """The updates of 20 steps are not those of the largest gradients alone: nearly every element has moved."""
    point = compressed_point("pytorch", COMPRESSED[0])
    trace = traced[point].ranks[0]
    first = np.count_nonzero(trace["gradient/block0.mlp.up.weight"])
    moved = np.count_nonzero(trace["update/block0.mlp.up.weight"])
    assert moved > 5 * first
    assert relative_error(trace["loss"], traced[compressed_point("pytorch", COMPRESSED[1])].ranks[0]["loss"]) > 1e-4
