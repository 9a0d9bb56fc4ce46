"""The matrix products of a training step: their shapes and FLOPs, and bandwidths and rates from measured times.

These are the two-dimensional products, which do nearly all the work: the linear layers of each block and the logits, each
with one forward and two backward products. Of the backward ones a frozen weight has none for its own gradient, and a layer in front of
which nothing trains none for its input's. Attention's batched products and all other operations are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal

from hvbench.spec.model import FAMILIES
from hvbench.spec.point import Point
from hvbench.training.adaptation import is_trained, trained_blocks
from hvbench.training.optimizers import EMBEDDINGS
from hvbench.training.weights import Shape, parameter_shapes

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


@dataclass(frozen=True, kw_only=True)
class LinearLayer:
    """Layers of one shape, and how many products of them a micro-batch has: forward, and for each of both gradients."""

    inputs: int
    outputs: int
    count: int
    input_gradients: int
    weight_gradients: int
    has_bias: bool

    @property
    def weights(self) -> int:
        """Values of the weight of one of them."""
        return self.inputs * self.outputs


ATTENTION = (
    ("attention.qkv",), ("attention.prefix",), ("attention.out",), ("attention.adapter.down",), ("attention.adapter.up",),
)  # fmt: skip
MLP = (("mlp.gate", "mlp.up"), ("mlp.down",), ("mlp.adapter.down",), ("mlp.adapter.up",))


def stages(point: Point) -> tuple[tuple[str, ...], ...]:
    """The stages of a block, in the order of the forward pass; those in one line do not read each other."""
    if FAMILIES[point.family].norms_sums:
        return (*ATTENTION, ("norm1",), *MLP, ("norm2",))
    return (("norm1",), *ATTENTION, ("norm2",), *MLP)


def linear_layers(point: Point) -> list[LinearLayer]:
    """The linear layers of all blocks, in the order of one of them, of a head, then that of the logits."""
    layers: list[LinearLayer] = []
    shapes = _shapes_of_a_block(point)
    for name, shape in shapes.items():
        if name.endswith(".weight"):
            layers.append(
                LinearLayer(
                    inputs=shape[0],
                    outputs=shape[1],
                    count=point.num_layers,
                    input_gradients=blocks_with_gradients(point, name),
                    weight_gradients=trained_blocks(point) if _trains_in_block(point, name) else 0,
                    has_bias=name.replace(".weight", ".bias") in shapes,
                )
            )
    return [*layers, *_layers_of_head(point)]


def _layers_of_head(point: Point) -> list[LinearLayer]:
    """What reads the last block, each once: the head of a family that has one, and the logits."""
    width, family = point.hidden_size, FAMILIES[point.family]
    has_gradients = bool(trained_blocks(point)) or _trains_in_front(point)
    layers = []
    if family.has_heads and not point.predicts_labels:
        trains = is_trained(point, "head.weight")
        sizes = {"inputs": width, "outputs": width, "count": 1, "has_bias": True}
        layers.append(LinearLayer(**sizes, input_gradients=int(has_gradients), weight_gradients=int(trains)))
        has_gradients = has_gradients or trains
    embedding = "token_embedding" if point.tied_embeddings else "output_embedding"
    return [
        *layers,
        LinearLayer(
            inputs=width,
            outputs=point.vocab_size,
            count=1,
            input_gradients=int(has_gradients),
            weight_gradients=int(is_trained(point, embedding)),
            has_bias=False,
        ),
    ]


def blocks_with_gradients(point: Point, name: str) -> int:
    """The number of blocks in which the input of a layer has a gradient: those in which, or before which, something trains."""
    if _trains_in_front(point):
        return point.num_layers
    blocks = trained_blocks(point)
    if not blocks:
        return 0
    in_order = stages(point)
    (place,) = (number for number, stage in enumerate(in_order) if _is_of(stage, name))
    before = in_order[:place]
    # LoRA's B reads what its A yields.
    own = name.replace("lora_b", "lora_a") if "lora_b" in name else None
    is_in_first = any(
        any(_is_of(stage, each) for stage in before) or each == own
        for each in _shapes_of_a_block(point)
        if _trains_in_block(point, each)
    )
    return blocks if is_in_first else blocks - 1


def _trains_in_front(point: Point) -> bool:
    """Whether anything in front of the first block trains."""
    names = parameter_shapes(point.model_copy(update={"num_layers": 1}))
    return any(name.partition(".")[0] in EMBEDDINGS and is_trained(point, name) for name in names)


def _shapes_of_a_block(point: Point) -> dict[str, Shape]:
    """Name below a block -> shape: all blocks have the same, and an untrusted suite may ask for a million."""
    shapes = parameter_shapes(point.model_copy(update={"num_layers": 1}))
    return {name.removeprefix("block0."): shape for name, shape in shapes.items() if name.startswith("block0.")}


def _trains_in_block(point: Point, name: str) -> bool:
    """Whether a parameter below a block trains in any: then it does in the last."""
    return is_trained(point, f"block{point.num_layers - 1}.{name}")


def _is_of(stage: tuple[str, ...], name: str) -> bool:
    return any(name.startswith(f"{layer}.") for layer in stage)


def product_question(point: Point) -> tuple[object, ...]:
    """The values of a point on which the shapes of its products depend, and what else is rounded with them."""
    tokens = point.micro_batch_size * point.sequence_length
    return (point.predicts_labels, point.family, tokens, *map(astuple, linear_layers(point)))


def model_products(point: Point) -> list[Product]:
    """All products of one micro-batch: for each layer the forward product, the input's gradient, the weight's gradient.

    Weights are stored as [inputs, outputs]; the logits' weight is an embedding of tokens, stored as [outputs, inputs].
    """
    products, tokens = [], point.micro_batch_size * point.sequence_length
    *blocks, logits = linear_layers(point)
    for layer in blocks:
        i, o = layer.inputs, layer.outputs
        products += [
            Product(rows=tokens, inner=i, columns=o, count=layer.count),
            Product(rows=tokens, inner=o, columns=i, transposed="right", count=layer.input_gradients),
            Product(rows=i, inner=tokens, columns=o, transposed="left", count=layer.weight_gradients),
        ]
    if not point.predicts_labels:  # a pooler and a projection have a row per sample, and that of tags has few columns
        width, vocabulary = logits.inputs, logits.outputs
        products += [
            Product(rows=tokens, inner=width, columns=vocabulary, transposed="right"),
            Product(rows=tokens, inner=vocabulary, columns=width, count=logits.input_gradients),
            Product(rows=vocabulary, inner=tokens, columns=width, transposed="left", count=logits.weight_gradients),
        ]
    return [product for product in products if product.count]


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
    *blocks, logits = linear_layers(point)
    width, vocabulary = logits.inputs, logits.outputs
    elements = sum(
        layer.count
        * (tokens * (layer.inputs + layer.outputs) + layer.weights + (layer.outputs if layer.has_bias else 0))
        for layer in blocks
    )
    if not family.learns_positions:
        elements += point.num_layers * tokens * (width + point.kv_heads * width // point.num_heads)
    if point.predicts_labels:
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
