"""What ranks may share, where it makes no sense, how arrays are cut, and what it sends: no framework runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hvbench.plan.skip import reason_to_skip
from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.parts import join_parts, part_size, take_part


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"world_size": 1}, "one rank has nothing to all-reduce: shard changes nothing"),
        ({"strategy": "native"}, "shard: a choice of Horovod's, and the strategy is native"),
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
def test_what_cannot_be_shared_is_one_line(fields: dict[str, Any], reason: str) -> None:
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
    np.testing.assert_array_equal(join_parts(np.concatenate(parts), shape), array)
    assert np.concatenate(parts).sum() == array.sum(), "what is behind the last value is 0"
