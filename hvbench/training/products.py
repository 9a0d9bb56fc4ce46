"""The matrix products of a training step, and what follows from the times they take: shapes, FLOPs, rates.

Counted are the two-dimensional products, which do nearly all the work: four linear layers a block and the logits, each
as one forward and two backward products. Attention's batched products and everything that is no product are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hvbench.spec.point import Point

# A precision that takes more than this many times as long as fp32 is skipped, unless forced.
MAX_SLOWDOWN = 20.0


@dataclass(frozen=True, kw_only=True)
class Product:
    """`count` products (rows, inner) x (inner, columns); `transposed` says which operand lies in memory transposed."""

    rows: int
    inner: int
    columns: int
    transposed: Literal["none", "left", "right"] = "none"
    count: int = 1

    @property
    def flops(self) -> int:
        """A multiplication and an addition for each element of `inner`, of one product."""
        return 2 * self.rows * self.inner * self.columns

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, inner, columns)."""
        return (self.rows, self.inner, self.columns)


def square(size: int) -> Product:
    """The product of two matrices of `size` rows and columns."""
    return Product(rows=size, inner=size, columns=size)


def linear_layers(point: Point) -> list[tuple[int, int, int]]:
    """(inputs, outputs, count) of qkv, out, up and down of all blocks, and of the logits last."""
    width, layers = point.hidden_size, point.num_layers
    blocks = [
        (width, 3 * width, layers),
        (width, width, layers),
        (width, 4 * width, layers),
        (4 * width, width, layers),
    ]
    return [*blocks, (width, point.vocab_size, 1)]


def model_products(point: Point) -> list[Product]:
    """All products of one micro-batch, forward and backward: of each layer the forward one, then d input, d weight.

    Weights lie as (inputs, outputs); the logits' weight is the token embedding, which lies as (outputs, inputs).
    """
    products, tokens = [], point.micro_batch_size * point.sequence_length
    *blocks, (width, vocabulary, _) = linear_layers(point)
    for inputs, outputs, count in blocks:
        products += [
            Product(rows=tokens, inner=inputs, columns=outputs, count=count),
            Product(rows=tokens, inner=outputs, columns=inputs, transposed="right", count=count),
            Product(rows=inputs, inner=tokens, columns=outputs, transposed="left", count=count),
        ]
    if point.objective == "classification":  # its projection has a row per sample
        return products
    return [
        *products,
        Product(rows=tokens, inner=width, columns=vocabulary, transposed="right"),
        Product(rows=tokens, inner=vocabulary, columns=width),
        Product(rows=vocabulary, inner=tokens, columns=width, transposed="left"),
    ]


def shrink(product: Product, *, max_flops: float) -> Product:
    """The product, its longest side halved until it has at most `max_flops`: a large one runs no faster than a part of it."""
    while product.flops > max_flops and max(product.shape) > 1:
        side = max(("rows", "inner", "columns"), key=lambda name: getattr(product, name))
        product = replace(product, **{side: getattr(product, side) // 2})
    return product


def total_flops(products: Sequence[Product]) -> int:
    """FLOPs of all products, each as often as it occurs."""
    return sum(product.count * product.flops for product in products)


def total_seconds(products: Sequence[Product], flops_per_second: Sequence[float]) -> float:
    """Time of all products, each as often as it occurs and at its own rate."""
    return sum(each.count * each.flops / rate for each, rate in zip(products, flops_per_second, strict=True))


def rounded_elements(point: Point) -> int:
    """Elements that an emulated precision rounds in the layers of one micro-batch.

    Of each layer the input, the weight, the bias and the output on the way forward, and their gradients on the way back.
    """
    tokens = point.micro_batch_size * point.sequence_length
    *blocks, (width, vocabulary, _) = linear_layers(point)
    elements = sum(count * (tokens * (i + o) + i * o + o) for i, o, count in blocks)
    if point.objective == "classification":
        return 2 * elements
    return 2 * (elements + tokens * (width + vocabulary) + width * vocabulary)


def scaling_bandwidth(size_bytes: int, *, seconds: float) -> float:
    """Bytes per second of scaling `size_bytes` in place: each is read once and written once."""
    return 2 * size_bytes / seconds


def allreduce_busbw(payload_bytes: int, *, seconds: float, world_size: int) -> float:
    """Bus bandwidth: payload / time x 2 (n - 1) / n, what each rank's link carries at best (nccl-tests)."""
    return payload_bytes / seconds * 2 * (world_size - 1) / world_size


def describe_slowness(
    *, precision: str, flops: int, seconds: float, fp32_seconds: float, is_emulated: bool, is_forced: bool
) -> str | None:
    """Why a precision is skipped whose products take `seconds` where those of fp32 take `fp32_seconds`; None: it is not.

    `flops` are those of the products, `seconds` include the rounding of an emulated precision.
    """
    if is_forced or seconds <= MAX_SLOWDOWN * fp32_seconds:
        return None
    kind = f"{precision} (emulated)" if is_emulated else precision
    rates = f"{flops / seconds / 1e9:.3g} against {flops / fp32_seconds / 1e9:.3g} GFLOP/s in the model's products"
    return (
        f"{kind} would take {seconds / fp32_seconds:.0f} times as long as fp32 ({rates}), more than {MAX_SLOWDOWN:g}: "
        "run it all the same with -s force_emulated=true"
    )
