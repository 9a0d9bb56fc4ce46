"""Sums over the tokens of a long batch are as exact as those of a short one.

A sum of N numbers, one after the other, is off by about √N roundings, one of sums of sums by a few. A twin that adds the
first way is another twin's equal with 512 tokens and no more with 8,192: tolerances know no number of tokens.
"""

from __future__ import annotations

import pytest

from hvbench.parity.norms import relative_error
from hvbench.registry import FRAMEWORKS
from hvbench.spec.model import FAMILIES
from tests.parity.conftest import Recorded


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_8192_tokens_are_exact_to_a_few_roundings(alone: Recorded, family: str, framework: str) -> None:
    recorded = alone[framework, "sums"]
    names = [name.removeprefix(f"{family}/float64/") for name in recorded if name.startswith(f"{family}/float64/")]
    errors = {
        name: relative_error(recorded[f"{family}/float32/{name}"], recorded[f"{family}/float64/{name}"])
        for name in names
    }
    assert len(names) > 8
    assert {name: error for name, error in errors.items() if error > 5e-7} == {}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_mean_loss_of_1024_tokens_is_rounded_once(alone: Recorded, framework: str) -> None:
    """XLA, which compiles TensorFlow's here, adds one number after the other: in float32 these were off by up to 4.4e-7."""
    recorded = alone[framework, "sums"]
    assert abs(recorded["losses/float32"] / recorded["losses/float64"] - 1).max() < 1e-7
