"""Compressed all-reduces on two real ranks: what they average, what they keep for the next step, and how many bytes they send."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from hvbench.frameworks.numpy_norms import global_norm
from hvbench.frameworks.numpy_optimizer import make_optimizer
from hvbench.registry import FRAMEWORKS
from hvbench.spec.compression import COMPRESSIONS
from hvbench.training.compression import feedback_shapes, initial_factors, topk_count
from hvbench.training.flops import model_facts
from hvbench.training.weights import trained_shapes
from tests.parallel.compressed import FIRST_PHASE, METHODS, RATE, STEPS, gradients_of, wide
from tests.parallel.ranks import run_ranks
from tests.parallel.sent import FEW_CYCLES
from tests.parity.reference_compression import Int8, OneBit, PowerSGD, TopK

CYCLES = 25_000  # bytes a step; 1 to 6 kB were measured, 10 to 35 kB with as many cycles as Horovod makes by itself
SUMS = 2e-5  # of the largest value
Ranks = list[dict[str, np.ndarray]]

each_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module", params=FRAMEWORKS)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What both ranks of one twin recorded."""
    folder = tmp_path_factory.mktemp(request.param)
    run_ranks(["-m", "tests.parallel.compressed", request.param, str(folder)], folder=folder, variables=FEW_CYCLES)
    files = [np.load(folder / f"rank{rank}.npz", allow_pickle=False) for rank in range(2)]
    return [{name: file[name] for name in file.files} for file in files]


def part(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}


def references(method: str) -> dict[str, TopK | Int8 | PowerSGD | OneBit]:
    """Name of a gradient -> its all-reduce in numpy."""
    point = wide("pytorch", **METHODS[method])
    factors = initial_factors(point) if method == "powersgd" else {}
    make = {
        "topk": lambda name, shape: TopK(shape, ranks=2, count=topk_count(int(np.prod(shape)), point)),
        "int8": lambda name, shape: Int8(shape, ranks=2, bucket=point.int8_bucket),
        "powersgd": lambda name, shape: PowerSGD(shape, ranks=2, factors=factors.get(name)),
        "onebit": lambda name, shape: OneBit(shape, ranks=2, bucket=point.onebit_bucket),
    }[method]
    return {name: make(name, shape) for name, shape in trained_shapes(point).items()}


@pytest.mark.slow
@each_method
def test_every_step_averages_and_keeps_what_the_reference_does(ranks: Ranks, method: str) -> None:
    point, expected = wide("pytorch", **METHODS[method]), references(method)
    for step in range(STEPS):
        gradients = [gradients_of(point, rank=rank, step=step) for rank in range(2)]
        for name, reference in expected.items():
            average = reference.average(np.stack([own[name] for own in gradients]))
            check = np.testing.assert_array_equal
            if method == "powersgd":  # sums of products: float32, of which float64 is within some roundings
                check = partial(
                    np.testing.assert_allclose, rtol=0, atol=SUMS * max(np.abs(own[name]).max() for own in gradients)
                )
            for rank, arrays in enumerate(ranks):
                check(arrays[f"{method}/{step}/average/{name}"], average, err_msg=f"{name}, step {step}")
                if f"{method}/{step}/state/residuals/{name}" in arrays:
                    left = arrays[f"{method}/{step}/state/residuals/{name}"]
                    check(left, reference.residuals[rank], err_msg=f"{name}, step {step}, rank {rank}")
                else:
                    assert name not in feedback_shapes(point)


@pytest.mark.slow
@each_method
def test_nothing_is_lost(ranks: Ranks, method: str) -> None:
    """All that was sent and all that is left add up to all gradients."""
    point = wide("pytorch", **METHODS[method])
    gradients = [gradients_of(point, rank=rank, step=step) for rank in range(2) for step in range(STEPS)]
    for name in trained_shapes(point):
        given = sum(each[name] for each in gradients)
        sent = sum(2 * ranks[0][f"{method}/{step}/average/{name}"] for step in range(STEPS))
        last = f"{method}/{STEPS - 1}/state"
        left = sum(arrays.get(f"{last}/residuals/{name}", np.zeros(1)) for arrays in ranks)
        if method == "onebit":  # what averages of parts have yet to send is a mean over the ranks
            length = -(-left.size // 2)
            parts = np.concatenate([arrays[f"{last}/part_residuals/{name}"][:length] for arrays in ranks])
            left += 2 * parts[: left.size].reshape(left.shape)
        np.testing.assert_allclose(sent + left, given, atol=1e-6 * np.abs(given).max(), err_msg=name)
        assert (np.abs(left).max() > 0) == (name in feedback_shapes(point))


@pytest.mark.slow
@each_method
def test_a_loaded_state_continues_bit_for_bit(ranks: Ranks, method: str) -> None:
    for arrays in ranks:
        again, last = part(arrays, f"{method}/again"), part(arrays, f"{method}/{STEPS - 1}/average")
        assert again.keys() == last.keys()
        for name, value in again.items():
            np.testing.assert_array_equal(value, last[name], err_msg=name)


@pytest.mark.slow
def test_parts_of_a_step_keep_what_a_rank_has_yet_to_send(ranks: Ranks) -> None:
    owns = [part(arrays, "own") for arrays in ranks]
    for arrays, own in zip(ranks, owns, strict=True):
        after, changed = part(arrays, "own_after_parts"), part(arrays, "own_after_allreduce")
        assert own and own.keys() == after.keys() == changed.keys()
        for name, value in own.items():
            np.testing.assert_array_equal(after[name], value, err_msg=name)
        assert any((changed[name] != value).any() for name, value in own.items())
    assert any((owns[0][name] != value).any() for name, value in owns[1].items()), "each rank has its own"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["none", *METHODS])
def test_as_many_bytes_are_sent_as_were_computed(ranks: Ranks, method: str) -> None:
    """By the kernel's count of each connection; the rest is what Horovod's ranks tell each other at every cycle, so there is more of it on busy cores."""
    point = wide("pytorch", **METHODS.get(method, {}))
    computed = model_facts(point).allreduce_bytes_per_step * COMPRESSIONS[point.compression].crossing_share(2)
    for arrays in ranks:
        assert computed <= arrays[f"sent/{method}"] <= 1.02 * computed + CYCLES


@pytest.mark.slow
def test_momenta_are_exchanged_behind_the_first_updates(ranks: Ranks) -> None:
    """Each rank clips by its own norm; what all then have in common is the numpy optimizer's update by the reference's averages."""
    point = wide("pytorch", **METHODS["onebit"], onebit_warmup_steps=FIRST_PHASE)
    before, after = part(ranks[0], "onebit/before"), part(ranks[0], "onebit/after")
    parameters = {name: before[f"parameters/{name}"] for name in trained_shapes(point)}
    optimizer = make_optimizer(parameters, point=point)
    optimizer.load_state({name.removeprefix("optimizer/"): value for name, value in before.items()})
    momenta = []
    for arrays in ranks:
        own = part(arrays, "onebit/own")
        norm = global_norm(list(own.values()))
        assert arrays["onebit/norm"] == pytest.approx(norm, rel=1e-6) and norm > point.max_gradient_norm
        momenta.append(optimizer.mix({name: value / np.float32(norm) for name, value in own.items()}))
    references_ = references("onebit")
    averages = {name: each.average(np.stack([own[name] for own in momenta])) for name, each in references_.items()}
    optimizer.update_by(averages, learning_rate=RATE)
    for name, value in optimizer.state().items():
        np.testing.assert_allclose(after[f"optimizer/{name}"], value, rtol=1e-4, atol=1e-9, err_msg=name)
    for arrays in ranks:
        for name, value in part(arrays, "onebit/after").items():
            np.testing.assert_array_equal(value, after[name], err_msg=f"{name} is not the same on all ranks")
    for name, value in parameters.items():
        np.testing.assert_allclose(after[f"parameters/{name}"], value, rtol=1e-5, atol=1e-6, err_msg=name)
    for name in parameters:
        np.testing.assert_array_equal(
            after[f"optimizer/second_moments/{name}"], before[f"optimizer/second_moments/{name}"]
        )


@pytest.mark.slow
def test_training_with_both_states_loaded_continues_bit_for_bit(ranks: Ranks) -> None:
    for arrays in ranks:
        again, last = part(arrays, "onebit/last_again"), part(arrays, "onebit/last")
        assert again.keys() == last.keys() and last["optimizer/frozen_updates"] == FIRST_PHASE
        for name, value in again.items():
            np.testing.assert_array_equal(value, last[name], err_msg=name)


@pytest.mark.slow
def test_all_ranks_see_in_the_same_step_what_is_not_finite_on_one(ranks: Ranks) -> None:
    assert [math.isnan(arrays["onebit/norm_with_a_gap"]) for arrays in ranks] == [True, True]
