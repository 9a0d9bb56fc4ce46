"""However text becomes samples, the twins train on the same ones."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.parity.compare import Deviation, compare_traces
from hvbench.parity.norms import relative_error
from hvbench.parity.pairs import compare_points
from hvbench.parity.tolerances import find_tolerances
from hvbench.registry import FRAMEWORKS
from tests.parity.alone import DOCUMENT_LENGTHS, PADDED
from tests.parity.points import INPUTS, LABELLED, SEQUENCES, cut_point, labelled_point, split_point


@pytest.mark.parametrize(("world_size", "knobs"), SEQUENCES, ids=str)
def test_twins_agree(traced, world_size, knobs):
    parity = compare_points(*(traced[cut_point(framework, world_size, knobs)] for framework in FRAMEWORKS))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven


@pytest.mark.parametrize(("world_size", "knobs"), LABELLED, ids=str)
def test_twins_agree_on_labelled_texts_of_different_lengths(traced, world_size, knobs):
    parity = compare_points(*(traced[labelled_point(framework, world_size, **knobs)] for framework in FRAMEWORKS))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven


def test_what_classes_cancel_is_judged_by_the_terms_that_cancel(traced):
    """A bias whose gradient is nearly 0 may differ by a rounding of what it is the sum of; a mistake in that is found all the same."""
    world_size, knobs = next(each for each in LABELLED if each[1].get("seed") == 0)
    sound, other = (dict(traced[labelled_point(framework, world_size, **knobs)].ranks[0]) for framework in FRAMEWORKS)
    tolerances = find_tolerances(model="small", precision="fp32", compression="none", is_native=True)
    name = "gradient/classifier.bias"
    ratio = float(other["terms/classifier.bias"]) / np.linalg.norm(other[name])
    assert ratio > 50, "or nothing cancels"

    def judge(wrong: np.ndarray) -> dict[str, Deviation]:
        changed = {**sound, name: other[name] + wrong}
        return {each.name: each for each in compare_traces(changed, other, tolerances=tolerances)}

    for share, is_within in ((1e-7, True), (1e-6, False), (1e-4, False)):
        error = share * float(other["terms/classifier.bias"]) * np.array([1.0, -1.0]) / np.sqrt(2)
        assert judge(error)[name].is_within == is_within, share
    others = [each for each in judge(np.zeros(2)).values() if each.name.startswith("gradient/") and each.name != name]
    assert max(each.tolerance for each in others) < 2 * tolerances.gradients, "of nothing else so much cancels"


@pytest.mark.parametrize("case", ["/".join(each[:3]) for each in PADDED])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_padded_batch_has_the_loss_and_the_gradient_of_its_samples_alone(alone, framework, case):
    """In float64: padding is masked in attention and in the mean over positions, whatever tokens it holds; every target counts once."""
    numbers = alone[framework, "labelled"]
    targets, logits = numbers[f"{case}/targets"], numbers[f"{case}/logits"]
    weights = (targets >= 0).sum(axis=1) if targets.ndim > 1 else np.ones(3)
    losses = np.concatenate([numbers[f"{case}/alone/{row}"] for row in range(3)])
    assert numbers[f"{case}/losses"] == pytest.approx(losses, rel=1e-12)
    assert numbers[f"{case}/losses_of_other_padding"] == pytest.approx(losses, rel=1e-12)
    assert float(numbers[f"{case}/loss"]) == pytest.approx(np.average(losses, weights=weights), rel=1e-12)
    if case.endswith("regression"):
        assert losses == pytest.approx((logits[:, 0] - targets) ** 2, rel=1e-12)
    else:
        chosen = np.take_along_axis(logits, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
        each = (np.log(np.exp(logits).sum(axis=-1)) - chosen) * (targets >= 0)
        assert losses == pytest.approx(each.reshape(3, -1).sum(axis=1) / weights, rel=1e-12)
    prefix = f"{case}/gradient/"
    names = [name.removeprefix(prefix) for name in numbers if name.startswith(prefix)]
    assert len(names) > 8
    for name in names:
        of_samples = [numbers[f"{case}/alone/{row}/gradient/{name}"] for row in range(3)]
        mean, found = np.average(of_samples, axis=0, weights=weights), numbers[prefix + name]
        assert relative_error(mean, found) < 1e-11 or np.abs(found).max() < 1e-12, name


@pytest.mark.parametrize("case", ["/".join(each[:3]) for each in PADDED])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_packed_samples_have_the_loss_and_the_gradient_of_a_padded_batch(alone, framework, case):
    """In float64: whatever else is in its row, a sample sees itself alone, and its label is predicted from its own tokens."""
    numbers = alone[framework, "labelled"]
    assert float(numbers[f"{case}/packed/loss"]) == pytest.approx(float(numbers[f"{case}/loss"]), rel=1e-12)
    if not case.endswith("token_classification"):
        assert relative_error(numbers[f"{case}/packed/logits"], numbers[f"{case}/logits"]) < 1e-12
    prefix = f"{case}/gradient/"
    for name in [name.removeprefix(prefix) for name in numbers if name.startswith(prefix)]:
        packed, padded = numbers[f"{case}/packed/gradient/{name}"], numbers[prefix + name]
        assert relative_error(packed, padded) < 1e-11 or np.abs(padded).max() < 1e-12, name


@pytest.mark.parametrize(("split", "knobs"), INPUTS, ids=str)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_frameworks_own_input_hands_over_the_same_batches_in_the_same_order(traced, framework, split, knobs):
    """Bit for bit the same trace."""
    usual, own = (traced[split_point(framework, split, **each)].ranks for each in ({}, knobs))
    for rank in usual:
        assert usual[rank].keys() == own[rank].keys()
        assert [name for name in usual[rank] if not np.array_equal(usual[rank][name], own[rank][name])] == []


each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
each_attention = pytest.mark.parametrize("attention", ["fused", "plain"])
each_length = pytest.mark.parametrize("length", DOCUMENT_LENGTHS)


@each_length
@each_attention
@each_framework
def test_a_token_of_one_document_changes_no_logit_of_another(alone, framework, attention, length):
    """In float64, and to the last bit: also of the padding behind both."""
    numbers, end = alone[framework, "documents"], length // 3
    before, after = (numbers[f"{attention}/{length}/{name}"][0] for name in ("packed", "changed"))
    assert np.array_equal(before[end:], after[end:])
    assert np.array_equal(before[:1], after[:1]), "nor of what comes before it in its own"
    assert (np.abs(before[1:end] - after[1:end]).max(axis=-1) > 1e-6).all()


@each_length
@each_attention
@each_framework
def test_a_document_is_the_same_alone_in_a_row_and_packed_with_another(alone, framework, attention, length):
    """Its logits, the loss over both, and the gradients, with padded tokens out of every mean."""
    numbers, sizes = alone[framework, "documents"], (length // 3, length // 2)
    of = {
        key.removeprefix(f"{attention}/{length}/"): value
        for key, value in numbers.items()
        if key.startswith(f"{attention}/{length}/")
    }
    begin = sizes[0]
    assert relative_error(of["first"][0, :begin], of["packed"][0, :begin]) < 1e-13
    assert relative_error(of["second"][0, : sizes[1]], of["packed"][0, begin : begin + sizes[1]]) < 1e-13
    both, *each = of["losses"]
    assert both == pytest.approx(np.average(each, weights=sizes), rel=1e-12)
    gradients = [name.removeprefix("packed/") for name in of if name.startswith("packed/gradient/")]
    assert len(gradients) > 10
    for name in gradients:
        assert (
            relative_error(of[f"alone/{name}"], of[f"packed/{name}"]) < 1e-11
            or np.abs(of[f"packed/{name}"]).max() < 1e-12
        ), name
