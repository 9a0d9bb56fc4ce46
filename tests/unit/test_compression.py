"""What is sent of a gradient, in bytes worked out by hand, and who sums which part of it."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.point import Point
from hvbench.training.compression import (
    PACKING,
    SIGNS,
    feedback_shapes,
    initial_factors,
    is_low_rank,
    momentum_layout,
    own_part,
    payload_bytes,
)
from hvbench.training.flops import model_facts
from hvbench.training.weights import trained_shapes


def tiny(**fields: object) -> Point:
    return Point(**{"model": "tiny", "world_size": 2, **fields})


@pytest.mark.parametrize(
    ("shape", "fields", "expected"),
    [
        ((32, 96), {"compression": "none"}, 4 * 3072),
        ((32, 96), {"compression": "bf16"}, 2 * 3072),
        ((32, 96), {"compression": "topk"}, 31 * (4 + 4)),  # 1 % of 3,072, indices and values
        ((32,), {"compression": "topk"}, 1 * 8),  # at least one
        ((32,), {"compression": "topk", "topk_share": 1.0}, 32 * 8),
        ((32, 96), {"compression": "int8"}, 3072 + 2 * 2 * 4),  # two parts of 1,536 values, two scales each
        ((32, 96), {"compression": "int8", "int8_bucket": 100}, 3072 + 2 * 16 * 4),
        ((33,), {"compression": "int8", "world_size": 4}, 4 * (9 + 4)),  # filled up to four parts
        ((32, 96), {"compression": "powersgd"}, 4 * 4 * (32 + 96)),
        ((32, 96), {"compression": "powersgd", "powersgd_rank": 24}, 4 * 3072),  # 24 x 128 values are no fewer
        ((96,), {"compression": "powersgd"}, 4 * 96),
        ((32, 96), {"compression": "onebit"}, 2 * (1536 // 8 + 2 * 4)),  # two parts of 1,536 signs, two scales each
        ((32, 96), {"compression": "onebit", "onebit_bucket": 96}, 2 * (1536 // 8 + 16 * 4)),
        ((33,), {"compression": "onebit", "world_size": 4}, 4 * (2 + 4)),  # nine signs of a part take two bytes
    ],
)
def test_bytes_of_a_gradient(shape: tuple[int, ...], fields: dict, expected: int) -> None:
    assert payload_bytes(shape, tiny(**fields)) == expected


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_step_hands_over_all_gradients(compression: str) -> None:
    """However many blocks there are: facts count one and multiply."""
    for fields in ({}, {"adaptation": "last_layers", "trained_layers": 1}, {"adaptation": "lora"}):
        point = tiny(compression=compression, num_layers=3, **fields)
        expected = sum(payload_bytes(shape, point) for shape in trained_shapes(point).values())
        assert model_facts(point).allreduce_bytes_per_step == expected
    assert model_facts(tiny(compression=compression, strategy="local")).allreduce_bytes_per_step == 0


def test_what_is_gathered_crosses_each_link_once_for_every_other_rank() -> None:
    assert [COMPRESSIONS["topk"].crossing_share(ranks) for ranks in (2, 4)] == [1, 3]
    for name in ("none", "int8", "powersgd", "onebit"):
        assert [COMPRESSIONS[name].crossing_share(ranks) for ranks in (2, 4)] == [1, 1.5]


@pytest.mark.parametrize(("values", "ranks"), [(1, 2), (10, 4), (9, 8), (3072, 2)])
def test_parts_are_all_values_once(values: int, ranks: int) -> None:
    parts = [own_part(values, rank=rank, world_size=ranks) for rank in range(ranks)]
    assert [index for part in parts for index in range(values)[part]] == list(range(values))


def test_signs_are_packed_as_numpy_packs_them() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (40, 8), dtype=np.uint8)
    packed = (bits.view(np.int64) * PACKING).view(np.uint8)[:, -1]
    assert np.array_equal(packed, np.packbits(bits)) and np.array_equal(SIGNS[packed], 2.0 * bits - 1)


@pytest.mark.parametrize(("values", "ranks", "bucket"), [(10, 4, 8), (3072, 2, 1024), (3000, 2, 1024), (1, 2, 8)])
def test_the_mean_size_of_a_bucket_is_that_of_its_own_values(values: int, ranks: int, bucket: int) -> None:
    layout = momentum_layout(values, tiny(compression="onebit", world_size=ranks, onebit_bucket=bucket))
    sizes = layout.bucket_sizes
    assert sizes.shape == (ranks, layout.buckets) and sizes.min() >= 1 and sizes.max() <= layout.bucket
    assert layout.length <= layout.filled_length < layout.length + layout.bucket
    assert sizes.sum() - (sizes == 1).sum() <= values <= sizes.sum()


def test_powersgd_begins_from_the_seed_and_keeps_what_it_sends_as_it_is() -> None:
    point = tiny(compression="powersgd")
    first, again, other = (initial_factors(point.model_copy(update={"seed": seed})) for seed in (0, 0, 1))
    low = {name for name, shape in trained_shapes(point).items() if is_low_rank(shape, point)}
    assert first.keys() == feedback_shapes(point).keys() == low < trained_shapes(point).keys()
    assert {name: value.shape for name, value in first.items()} == {
        name: (trained_shapes(point)[name][1], 4) for name in low
    }
    for name, value in first.items():
        assert np.array_equal(value, again[name]) and not np.array_equal(value, other[name])
    assert feedback_shapes(tiny(compression="fp16")) == feedback_shapes(tiny(compression="topk", world_size=1)) == {}
