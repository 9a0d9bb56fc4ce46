"""What ranks may share, where it makes no sense, how arrays are cut, and what it sends: no framework runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hvbench.plan.skip import reason_to_skip
from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.flops import model_facts
from hvbench.training.memory import estimate_memory
from hvbench.training.parts import WINDOW_BYTES, group_by_window, part_size, take_part


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"world_size": 1}, "one rank has nothing to all-reduce: shard changes nothing"),
        ({"strategy": "native"}, None),
        ({"strategy": "native", "optimizer": "adafactor"}, None),
        ({"strategy": "native", "compression": "fp16"}, "compression: a choice of Horovod's, and the strategy is native"),
        ({"strategy": "native", "shard": "gradients"}, "shard gradients, strategy native: PyTorch offers shard optimizer (ZeroRedundancyOptimizer)"),
        ({"strategy": "native", "framework": "tensorflow"}, "shard optimizer, strategy native: TensorFlow offers no sharding of its own on processors"),
        ({"strategy": "local"}, "shard: a choice of Horovod's, and the strategy is local"),
        ({"optimizer": "adafactor"}, "shard optimizer: adafactor keeps means of whole rows and columns, which no part has"),
        ({"gradient_predivide": 2.0}, "shard optimizer averages each rank's part: gradient_predivide does not apply"),
        ({"reduction": "adasum", "controller": "mpi"}, "shard optimizer averages each rank's part: reduction adasum needs whole gradients"),
        ({"shard": "parameters"}, "shard parameters forgets a block's parameters when it has been computed: it needs recompute block, not none"),
        (
            {"shard": "parameters", "recompute": "block", "compile": "default"},
            "shard parameters gathers parameters within the passes, which no compiler takes: it needs compile none, not default",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_one_line(fields: dict[str, Any], reason: str | None) -> None:
    point = Point(**{"world_size": 2, "shard": "optimizer", **fields})
    assert reason_to_skip(point, world_size=point.world_size) == reason


@pytest.mark.parametrize(
    "fields",
    [{"optimizer": "lars"}, {"compression": "fp16"}, {"compression": "bf16"}, {"precision": "fp16"}, {"adaptation": "lora"}, {"gradient_accumulation_steps": 3}],
)  # fmt: skip
def test_what_can_be_shared_runs(fields: dict[str, Any]) -> None:
    for shard in SHARDS:
        point = Point(**{"world_size": 3, "shard": shard, "recompute": "block", **fields})
        assert reason_to_skip(point, world_size=3) is None
        assert point.is_sharded == (shard != "none")


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3,), (4, 5), (2, 3, 7)])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_parts_are_cut_and_joined_whatever_the_size(shape: tuple[int, ...], world_size: int) -> None:
    array = np.arange(1.0, 1 + math.prod(shape), dtype=np.float32).reshape(shape)
    parts = [take_part(array, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {len(part) for part in parts} == {part_size(shape, world_size=world_size)}
    np.testing.assert_array_equal(np.concatenate(parts)[: array.size].reshape(shape), array)
    assert np.concatenate(parts).sum() == array.sum(), "what is behind the last value is 0"


# Framework -> sizes beside `small` -> peaks of resident memory in MiB of two ranks: docs/measurements.md, "What sharing saves".
WIDE = {"num_layers": 4, "hidden_size": 768, "num_heads": 12, "sequence_length": 128}
DEEP = {"hidden_size": 512, "num_heads": 8, "sequence_length": 64}  # as in suite `shard`
MEASURED = {
    "pytorch": [
        *((WIDE, shard, peak) for shard, peak in (("none", 870), ("optimizer", 844), ("gradients", 739), ("parameters", 706))),
        (DEEP | {"num_layers": 13}, "none", 1016),
        *((DEEP | {"num_layers": blocks}, "optimizer", peak) for blocks, peak in ((12, 901), (13, 955), (14, 998))),
        *((DEEP | {"num_layers": blocks}, "gradients", peak) for blocks, peak in ((15, 885), (17, 968), (18, 997))),
        *((DEEP | {"num_layers": blocks}, "parameters", peak) for blocks, peak in ((19, 968), (21, 1004))),
    ],
    "tensorflow": [
        *((WIDE, shard, peak) for shard, peak in (("none", 1400), ("optimizer", 1270), ("gradients", 1330), ("parameters", 1126))),
        (DEEP | {"num_layers": 4}, "none", 997),
        (DEEP | {"num_layers": 5}, "optimizer", 1000),
        *((DEEP | {"num_layers": blocks}, "gradients", peak) for blocks, peak in ((3, 914), (4, 942))),
    ],
}  # fmt: skip
N, EMBEDDING, OUTSIDE = (
    34_688,
    256 * 32,
    (256 + 32) * 32 + 2 * 32,
)  # values of `tiny`: all, its tied embedding, and those outside of blocks


@pytest.mark.parametrize(
    ("fields", "sent"),  # of a rank, in multiples of (n - 1) / n: gradients + parameters
    [
        ({"shard": "optimizer"}, 4 * N + 4 * N),
        ({"shard": "optimizer", "compression": "fp16", "gradient_accumulation_steps": 3}, 2 * N + 4 * N),
        ({"shard": "gradients", "gradient_accumulation_steps": 3}, 3 * 4 * N + 4 * N),
        ({"shard": "optimizer", "strategy": "native"}, 2 * 4 * N + 4 * N),
        ({"shard": "parameters"}, 4 * (N + EMBEDDING) + 4 * (N + EMBEDDING + N - OUTSIDE)),
        ({"shard": "parameters", "compression": "bf16", "gradient_accumulation_steps": 2}, 2 * 2 * (N + EMBEDDING) + 2 * 4 * (N + EMBEDDING + N - OUTSIDE)),
    ],
)  # fmt: skip
def test_bytes_of_a_step_are_those_of_an_all_reduce_that_sends_as_much(fields: dict[str, Any], sent: int) -> None:
    facts = model_facts(Point(model="tiny", world_size=4, recompute="block", **fields))
    assert 2 * facts.allreduce_bytes_per_step == sent


@pytest.mark.parametrize(
    ("framework", "sizes", "shard", "measured"), [(name, *case) for name, cases in MEASURED.items() for case in cases]
)
def test_estimates_are_within_10_percent_of_measured_peaks(
    framework: str, sizes: dict[str, int], shard: str, measured: int
) -> None:
    shape = {"model": "small", "vocab_size": 4096, "micro_batch_size": 2, **sizes}
    point = Point(**shape, framework=framework, world_size=2, recompute="block", shard=shard)
    assert abs(estimate_memory(point, is_native=True).peak_bytes / 2**20 / measured - 1) < 0.1


def test_more_ranks_need_less_each() -> None:
    point = Point(**WIDE, model="small", recompute="block")
    more = [
        estimate_memory(point.model_copy(update={"world_size": ranks, "shard": "parameters"}), is_native=True)
        for ranks in (2, 4)
    ]
    assert more[1].optimizer_state_bytes * 2 == more[0].optimizer_state_bytes


def test_arrays_are_gathered_as_many_at_a_time_as_fill_a_window():
    half = WINDOW_BYTES // 2
    sizes = {"a": half, "b": half, "c": 1, "large": 3 * WINDOW_BYTES, "d": 5, "e": 7}
    assert list(group_by_window(sizes)) == [["a", "b"], ["c"], ["large"], ["d", "e"]]
    assert list(group_by_window({})) == []
