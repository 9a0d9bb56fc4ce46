"""Shapes of a model's products and the rates that follow from their times, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from hvbench.spec.point import Point
from hvbench.training.flops import model_facts
from hvbench.training.products import (
    Product,
    allreduce_busbw,
    describe_slowness,
    model_products,
    rounded_elements,
    scaling_bandwidth,
    shrink,
    square,
    total_flops,
    total_seconds,
)

TINY = Point(model="tiny", micro_batch_size=4)  # L = 2, W = 32, V = 256; 4 x 32 = 128 tokens


def test_flops_of_a_product() -> None:
    assert Product(rows=2, inner=3, columns=5).flops == 60  # 2 x 5 elements, each 3 multiplications and 3 additions
    assert square(100).flops == 2_000_000


def test_products_of_the_tiny_model() -> None:
    shapes = [(product.shape, product.transposed, product.count) for product in model_products(TINY)]
    assert shapes[:3] == [  # qkv: x W, d y W', x' d y
        ((128, 32, 96), "none", 2),
        ((128, 96, 32), "right", 2),
        ((32, 128, 96), "left", 2),
    ]
    assert [shape for shape, _, _ in shapes[3::3]] == [(128, 32, 32), (128, 32, 128), (128, 128, 32), (128, 32, 256)]
    assert shapes[-3:] == [  # logits: x E', d y E, d y' x
        ((128, 32, 256), "right", 1),
        ((128, 256, 32), "none", 1),
        ((256, 128, 32), "left", 1),
    ]


@pytest.mark.parametrize("model", ["tiny", "small", "gpt2"])
def test_products_are_six_flops_for_each_weight_and_token(model: str) -> None:
    """6 N T with N the matrices that multiply: no biases, no gains, no positions."""
    point = Point(model=model, micro_batch_size=2, world_size=1)
    width, layers = point.hidden_size, point.num_layers
    weights = layers * 12 * width**2 + point.vocab_size * width
    tokens = 2 * point.sequence_length
    assert total_flops(model_products(point)) == 6 * weights * tokens
    assert total_flops(model_products(point)) < model_facts(point).model_flops_per_token * tokens


def test_a_large_product_is_shrunk_to_the_limit() -> None:
    large = Product(rows=1000, inner=64, columns=4000, transposed="right", count=3)
    assert shrink(large, max_flops=large.flops) == large
    part = shrink(large, max_flops=large.flops / 5)  # columns to 2000 and 1000, then a side of 1000 to 500
    assert (part.shape, part.transposed) == ((500, 64, 1000), "right")
    assert shrink(large, max_flops=0.0).shape == (1, 1, 1)


def test_a_models_rate_is_total_flops_over_total_seconds() -> None:
    """Two of 60 FLOPs at 30 a second and one of 2,000 at 1,000: 2,120 FLOPs in 6 s, not the mean of the rates."""
    products = [Product(rows=2, inner=3, columns=5, count=2), Product(rows=10, inner=10, columns=10)]
    seconds = total_seconds(products, [30.0, 1000.0])
    assert seconds == pytest.approx(2 * 2.0 + 2.0)
    assert total_flops(products) / seconds == pytest.approx(2120 / 6)


def test_bandwidth_counts_bytes_read_and_written() -> None:
    assert scaling_bandwidth(64, seconds=0.5) == 256.0


@pytest.mark.parametrize(("world_size", "factor"), [(2, 1.0), (4, 1.5), (8, 1.75)])
def test_busbw(world_size: int, factor: float) -> None:
    """nccl-tests: algbw x 2 (n - 1) / n."""
    assert allreduce_busbw(1000, seconds=0.5, world_size=world_size) == pytest.approx(2000 * factor)


def test_what_an_emulated_precision_rounds() -> None:
    """One block of width 1 and 256 tokens of vocabulary, one token: each matrix forward, and its gradient backward."""
    point = Point(
        model="tiny", num_layers=1, num_heads=1, hidden_size=1, vocab_size=256, sequence_length=1, micro_batch_size=1
    )
    qkv, out, up, down = 1 + 3 + 3 + 3, 1 + 1 + 1 + 1, 1 + 4 + 4 + 4, 4 + 1 + 4 + 1  # x, bias, y, weight
    logits = 1 + 256 + 256
    assert rounded_elements(point) == 2 * (qkv + out + up + down + logits)


def slowness(**changes) -> str | None:
    facts = {"precision": "fp16", "flops": 60_000_000_000, "seconds": 21.0, "fp32_seconds": 1.0, "is_emulated": True}
    return describe_slowness(**(facts | {"is_forced": False} | changes))


def test_a_precision_is_skipped_beyond_twenty_times_the_fp32_time() -> None:
    assert slowness(seconds=20.0) is None
    assert slowness() == (
        "fp16 (emulated) would take 21 times as long as fp32 (2.86 against 60 GFLOP/s in the model's products), more "
        "than 20: run it all the same with -s force_emulated=true"
    )
    assert slowness(is_emulated=False).startswith("fp16 would take 21 times")
    assert slowness(is_forced=True) is None
