"""The twins round in the same places: with rounded products and all else in float64 they agree over 20 updates to 1e-9.

In float32 a last bit decides now and then to which side a value is rounded to 16 bits, so the tolerances of mixed
precision are wide. In float64 there is no such bit: whatever is left between the twins is a place where one of them
rounds and the other does not.
"""

from __future__ import annotations

import pytest

from hvbench.parity.compare import compare_traces
from hvbench.parity.tolerances import Tolerances
from hvbench.registry import FRAMEWORKS
from tests.parity.alone import ROUNDED
from tests.parity.points import BROKEN, small_tolerances

CLOSE = Tolerances(logits=1e-9, loss=1e-9, gradients=1e-9, updates=1e-9, update_length=1e-9, key_bias_updates=1e-9)


@pytest.mark.parametrize(("dtype", "case"), ROUNDED)
def test_twins_round_in_the_same_places(alone, dtype, case):
    first, *others = (alone[framework, f"rounded_{dtype}_{case}"] for framework in FRAMEWORKS)
    for other in others:
        deviations = compare_traces(first, other, tolerances=CLOSE)
        assert len(deviations) > 70
        assert [deviation for deviation in deviations if not deviation.is_within] == []


def test_a_twin_that_rounds_elsewhere_is_seen_here_and_not_in_float32(alone):
    dtype, case = ROUNDED[0]
    broken = alone[BROKEN, "unrounded_biases"]
    for sound in (alone[framework, f"rounded_{dtype}_{case}"] for framework in FRAMEWORKS):
        red = [each.name for each in compare_traces(broken, sound, tolerances=CLOSE) if not each.is_within]
        assert "update_length" in red and len(red) > 30
        wide = compare_traces(broken, sound, tolerances=small_tolerances("bf16", "none"))
        assert all(each.is_within for each in wide if each.name.startswith(("gradient/", "logits")))
