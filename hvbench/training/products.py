"""The matrix products of a training step: their shapes and FLOPs, and bandwidths and rates from measured times.

These are the two-dimensional products, which do nearly all the work: the linear layers of each block and the logits, each
with one forward and two backward products. Attention's batched products and all other operations are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hvbench.spec.model import FAMILIES
from hvbench.spec.point import Point
from hvbench.training.weights import block_layers

# A precision that takes more than this many times as long as fp32 is skipped, unless forced.
MAX_SLOWDOWN = 20.0


@dataclass(frozen=True, kw_only=True)
class Product:
    """`count` products [rows, inner] x [inner, columns]; `transposed` is the operand that is stored transposed in memory."""

    rows: int
    inner: int
    columns: int
    transposed: Literal["none", "left", "right"] = "none"
    count: int = 1

    @property
    def flops(self) -> int:
        """FLOPs of one of them: a multiplication and an addition for each element of `inner`."""
        return 2 * self.rows * self.inner * self.columns

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, inner, columns)."""
        return (self.rows, self.inner, self.columns)


def square(size: int) -> Product:
    """The product of two [size, size] matrices."""
    return Product(rows=size, inner=size, columns=size)


def linear_layers(point: Point) -> list[tuple[int, int, int]]:
    """(inputs, outputs, count) of the linear layers of all blocks, in the order of one of them, of a head, then of the logits."""
    blocks = [(inputs, outputs, point.num_layers) for inputs, outputs in block_layers(point).values()]
    has_head = FAMILIES[point.family].has_heads and not point.is_classifier
    head = [(point.hidden_size, point.hidden_size, 1)] if has_head else []
    return [*blocks, *head, (point.hidden_size, point.vocab_size, 1)]


def product_question(point: Point) -> tuple[object, ...]:
    """The values of a point on which the shapes of its products depend, and what else is rounded with them."""
    tokens = point.micro_batch_size * point.sequence_length
    return (point.is_classifier, point.family, tokens, *linear_layers(point))


def model_products(point: Point) -> list[Product]:
    """All products of one micro-batch: for each layer the forward product, the input's gradient, the weight's gradient.

    Weights are stored as [inputs, outputs]; the logits' weight is an embedding of tokens, stored as [outputs, inputs].
    """
    products, tokens = [], point.micro_batch_size * point.sequence_length
    *blocks, (width, vocabulary, _) = linear_layers(point)
    for inputs, outputs, count in blocks:
        products += [
            Product(rows=tokens, inner=inputs, columns=outputs, count=count),
            Product(rows=tokens, inner=outputs, columns=inputs, transposed="right", count=count),
            Product(rows=inputs, inner=tokens, columns=outputs, transposed="left", count=count),
        ]
    if point.is_classifier:  # its pooler and its projection have a row per sample
        return products
    return [
        *products,
        Product(rows=tokens, inner=width, columns=vocabulary, transposed="right"),
        Product(rows=tokens, inner=vocabulary, columns=width),
        Product(rows=vocabulary, inner=tokens, columns=width, transposed="left"),
    ]


def shrink(product: Product, *, max_flops: float) -> Product:
    """A product of at most `max_flops` by halving the longest side: a larger one reaches no higher rate, only takes longer."""
    while product.flops > max_flops and max(product.shape) > 1:
        side = max(("rows", "inner", "columns"), key=lambda name: getattr(product, name))
        product = replace(product, **{side: getattr(product, side) // 2})
    return product


def total_flops(products: Sequence[Product]) -> int:
    """Sum of the FLOPs of `products`, counts included."""
    return sum(product.count * product.flops for product in products)


def total_seconds(products: Sequence[Product], flops_per_second: Sequence[float]) -> float:
    """Time of `products`, counts included, where `flops_per_second` has each one's rate."""
    return sum(product.count * product.flops / rate for product, rate in zip(products, flops_per_second, strict=True))


def rounded_elements(point: Point) -> int:
    """Number of values that an emulated precision rounds in the layers of one micro-batch.

    For each layer: input, weight, bias and output in the forward pass, and their gradients in the backward pass; queries and keys once
    more where positions rotate them.
    """
    tokens, family = point.micro_batch_size * point.sequence_length, FAMILIES[point.family]
    *blocks, (width, vocabulary, _) = linear_layers(point)
    elements = sum(count * (tokens * (i + o) + i * o + (o if family.has_biases else 0)) for i, o, count in blocks)
    if not family.learns_positions:
        elements += point.num_layers * tokens * (width + point.kv_heads * width // point.num_heads)
    if point.is_classifier:
        return 2 * elements
    return 2 * (elements + tokens * (width + vocabulary) + width * vocabulary)


def scaling_bandwidth(size_bytes: int, *, seconds: float) -> float:
    """Memory bandwidth in bytes per second of scaling `size_bytes` in place: every byte is read and written once."""
    return 2 * size_bytes / seconds


def busbw_factor(world_size: float) -> float:
    """2 (n - 1) / n: bytes that each rank sends in a ring all-reduce, per byte of payload (nccl-tests, PERFORMANCE.md)."""
    return 2 * (world_size - 1) / world_size


def allreduce_busbw(wire_bytes: int, *, seconds: float, world_size: int) -> float:
    """Bus bandwidth in bytes per second: bytes on the wire / time x 2 (n - 1) / n (nccl-tests, PERFORMANCE.md).

    `wire_bytes` are one rank's values as they are sent, compressed where they are; before the factor it is algbw.
    """
    return wire_bytes / seconds * busbw_factor(world_size)


def describe_slowness(
    *, precision: str, flops: int, seconds: float, fp32_seconds: float, is_emulated: bool, is_forced: bool
) -> str | None:
    """Why a precision is skipped: a sentence where it takes more than MAX_SLOWDOWN times as long as fp32, else None.

    Args:
        precision: Its name.
        flops: Of the model's products.
        seconds: Of those products in that precision, with the rounding of an emulated one.
        fp32_seconds: Of the same products in fp32.
        is_emulated: Whether the processor lacks instructions for it.
        is_forced: Whether the user asked to run it anyway.
    """
    if is_forced or seconds <= MAX_SLOWDOWN * fp32_seconds:
        return None
    kind = f"{precision} (emulated)" if is_emulated else precision
    rates = f"{flops / seconds / 1e9:.3g} against {flops / fp32_seconds / 1e9:.3g} GFLOP/s in the model's products"
    return (
        f"{kind} would take {seconds / fp32_seconds:.0f} times as long as fp32 ({rates}), more than {MAX_SLOWDOWN:g}: "
        "run it all the same with -s force_emulated=true"
    )
