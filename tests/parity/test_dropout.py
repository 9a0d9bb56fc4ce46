"""Dropout draws other numbers in each twin, so it is the same work in distribution: masks, losses, gradient norms.

All seeds are fixed: with the same versions of the frameworks the outcome is the same each time.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, ks_2samp

from hvbench.registry import FRAMEWORKS
from tests.parity.alone import DROPOUT, LOOKED_AT, MASKED_PASSES, MASKS

CHANCE = 0.001  # of twins that agree to be called different, by any one of these tests, once
CERTAIN = 1e-6
PLACES = ("embedding", "attention", "attention_branch", "mlp_branch")

each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


@each_framework
@pytest.mark.parametrize("place", PLACES)
def test_each_place_drops_at_the_rate(alone, framework, place):
    """Where half as much again were dropped, or half as much, the same number of draws would have shown it."""
    kept = alone[framework, "dropout"][f"kept/{place}"]
    dropped = int(kept.size - kept.sum())
    assert binomtest(dropped, kept.size, DROPOUT).pvalue > CHANCE
    for wrong in (0.5 * DROPOUT, 1.5 * DROPOUT):
        assert binomtest(dropped, kept.size, wrong).pvalue < CERTAIN


@each_framework
def test_places_and_passes_have_masks_of_their_own(alone, framework):
    masks = {place: alone[framework, "dropout"][f"kept/{place}"] for place in PLACES}
    for place, kept in masks.items():
        assert len(np.unique(kept, axis=0)) > MASKED_PASSES / 3, place  # of 8 heads many agree by chance
    wide = [kept for place, kept in masks.items() if place != "attention"]
    agreements = [(left == right).sum() for number, left in enumerate(wide) for right in wide[:number]]
    by_chance = DROPOUT**2 + (1 - DROPOUT) ** 2  # both dropped, or both kept
    assert all(binomtest(int(count), wide[0].size, by_chance).pvalue > CHANCE for count in agreements)


@pytest.mark.parametrize("quantity", ["loss", "gradient_norm"])
def test_the_twins_draw_from_one_distribution(alone, quantity):
    """Kolmogorov-Smirnov over the masks: of what is kept and how that is scaled, forward and backward."""
    pytorch, tensorflow = (alone[framework, "dropout"][f"right/{quantity}"] for framework in FRAMEWORKS)
    assert len(pytorch) == len(tensorflow) == MASKS
    assert ks_2samp(pytorch, tensorflow).pvalue > CHANCE


@each_framework
def test_another_rate_is_another_distribution(alone, framework):
    other = next(name for name in FRAMEWORKS if name != framework)
    wrong, right = alone[framework, "dropout"]["wrong/loss"], alone[other, "dropout"]["right/loss"]
    assert ks_2samp(wrong, right).pvalue < CERTAIN


@each_framework
def test_every_pass_has_a_mask_of_its_own_and_the_same_again_in_a_second_run(alone, framework):
    numbers = alone[framework, "dropout"]
    assert len(np.unique(numbers["right/loss"])) == MASKS
    assert numbers["right/loss_again"] == numbers["right/loss"][0]


@each_framework
def test_a_look_at_the_gradients_has_the_masks_of_the_step_that_it_looks_at(alone, framework):
    """Each micro-batch its own: the norm of their average is the step's, before the step as after it."""
    numbers = alone[framework, "dropout"]
    for when in ("before", "again"):
        assert numbers[f"look/{when}"] == pytest.approx(numbers["look/step"], rel=1e-12)
        assert len(np.unique(numbers[f"look/{when}/passes"])) == LOOKED_AT, "equal samples differ by their masks alone"
    assert not np.intersect1d(numbers["look/next/passes"], numbers["look/before/passes"]).size


@each_framework
def test_evaluation_and_logits_know_no_dropout(alone, framework):
    numbers = alone[framework, "dropout"]
    for name in ("evaluation", "logits"):
        assert np.array_equal(numbers[f"right/{name}"], numbers[f"none/{name}"])
    assert numbers["right/loss"].mean() > numbers["none/evaluation"]
