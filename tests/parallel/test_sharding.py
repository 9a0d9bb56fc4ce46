"""Three real ranks that share their state do what three do that hold all of it, and a training goes from one kind to the other and back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvbench.parity.norms import relative_error
from hvbench.registry import FRAMEWORKS, describe_framework
from hvbench.spec.point import Point
from hvbench.training.flops import model_facts
from hvbench.training.parts import own_whole, part_size
from hvbench.training.weights import trained_shapes
from tests.parallel.ranks import run_ranks
from tests.parallel.sent import FEW_CYCLES
from tests.parallel.sharded import KNOBS, MODE, NATIVE, RANKS, STEPS
from tests.parity.points import small_tolerances

Ranks = list[dict[str, np.ndarray]]
TOLERANCES = small_tolerances("fp32", "none")


@pytest.fixture(scope="module", params=FRAMEWORKS)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What the ranks of one twin recorded."""
    folder = tmp_path_factory.mktemp(request.param)
    run_ranks(
        ["-m", "tests.parallel.sharded", request.param, str(folder)], folder=folder, size=RANKS, variables=FEW_CYCLES
    )
    files = [np.load(folder / f"rank{rank}.npz", allow_pickle=False) for rank in range(RANKS)]
    return [{name: file[name] for name in file.files} for file in files]


def part(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}


@pytest.mark.slow
def test_a_training_goes_on_with_shards_as_without_them(ranks: Ranks) -> None:
    for rank in ranks:
        whole = part(rank, "none")
        for shared in filter(None, (part(rank, MODE), part(rank, NATIVE))):
            assert whole.keys() == shared.keys() and len(whole["results"]) == 2 * STEPS
            assert relative_error(shared["results"], whole["results"]) <= TOLERANCES.loss
            for key in whole:
                assert shared[key].shape == whole[key].shape and shared[key].dtype == whole[key].dtype, key
                if not key.endswith("qkv.bias"):  # that of keys has no gradient but rounding errors
                    assert relative_error(shared[key], whole[key]) < 2e-5, key


@pytest.mark.slow
def test_all_ranks_hold_the_same_parameters_and_write_the_same_state(ranks: Ranks) -> None:
    for kind in (MODE, NATIVE):
        states = [{key: value for key, value in part(rank, kind).items() if key != "results"} for rank in ranks]
        if states[0]:
            assert len(states[0]) == 3 * len(trained_shapes(Point(**KNOBS))) + 2
        for state in states[1:]:
            for key, value in states[0].items():
                np.testing.assert_array_equal(state[key], value, err_msg=key)


@pytest.mark.slow
def test_gradients_that_are_looked_at_are_the_ranks_own_and_their_averages(ranks: Ranks) -> None:
    own, averages = ([part(rank, name) for rank in ranks] for name in ("own", "averages"))
    for name, average in averages[0].items():
        mean = sum(each[name].astype(np.float64) for each in own) / RANKS
        np.testing.assert_allclose(average, mean, rtol=1e-5, atol=1e-8, err_msg=name)
        assert all((each[name] == average).all() for each in averages), name
    for rank, mine in zip(ranks, own, strict=True):
        norms = [
            math.sqrt(sum(np.square(value, dtype=np.float64).sum() for value in each.values()))
            for each in (mine, averages[0])
        ]
        np.testing.assert_allclose(rank["norms"], norms, rtol=1e-5)


@pytest.mark.slow
def test_parts_of_a_step_leave_no_trace_and_whole_ranks_take_the_state_back(ranks: Ranks) -> None:
    for rank in ranks:
        for name in ("parts of steps", "again"):
            for key, value in part(rank, name).items():
                np.testing.assert_array_equal(rank[f"{MODE}/{key}"], value, err_msg=f"{name} {key}")
        assert relative_error(rank[f"evaluation/{MODE}"], rank["evaluation/none"]) <= TOLERANCES.loss


@pytest.mark.slow
def test_each_rank_keeps_its_part_of_the_moments_alone(ranks: Ranks) -> None:
    shapes = trained_shapes(Point(**KNOBS)).values()
    own = sum(part_size(shape, world_size=RANKS) for shape in shapes)
    assert own < sum(map(math.prod, shapes)) / RANKS + len(shapes)
    for rank in ranks:
        assert rank["kept"].tolist() == [own, own]


@pytest.mark.slow
@pytest.mark.parametrize(
    "ranks", [name for name in FRAMEWORKS if describe_framework(name).native_shards], indirect=True
)
def test_a_framework_that_shares_by_itself_keeps_and_sends_what_is_computed(ranks: Ranks) -> None:
    sizes = {name: math.prod(shape) for name, shape in trained_shapes(Point(**KNOBS)).items()}
    owned = [sum(sizes[name] for name in names) for names in own_whole(sizes, world_size=RANKS)]
    assert [rank[f"kept {NATIVE}"].tolist() for rank in ranks] == [[own, own] for own in owned]
    payload = model_facts(Point(**KNOBS, strategy="native", shard="optimizer")).allreduce_bytes_per_step
    sent = sum(float(rank[f"sent {NATIVE}"]) for rank in ranks) / RANKS
    assert 1.0 < sent / (2 * (RANKS - 1) / RANKS * payload) < 1.05


@pytest.mark.slow
def test_ranks_send_as_many_bytes_as_are_computed(ranks: Ranks) -> None:
    payload = model_facts(Point(**KNOBS, shard=MODE)).allreduce_bytes_per_step
    computed = 2 * (RANKS - 1) / RANKS * payload
    sent = [float(rank["sent"]) for rank in ranks]
    assert all(1.0 < each / computed < 1.05 for each in sent), "what Horovod's ranks agree on comes on top"
