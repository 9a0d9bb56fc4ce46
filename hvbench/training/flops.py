"""FLOPs, parameters and all-reduce payload of a point."""

from __future__ import annotations

import math

from hvbench.records.record import ModelFacts
from hvbench.registry import describe_framework
from hvbench.spec.exchange import STRATEGIES
from hvbench.spec.model import FAMILIES
from hvbench.spec.point import Point
from hvbench.training.adaptation import is_trained, trained_blocks
from hvbench.training.compression import payload_bytes
from hvbench.training.local_sgd import count_exchanged_bytes
from hvbench.training.parts import count_shared_bytes
from hvbench.training.products import blocks_with_gradients, linear_layers
from hvbench.training.weights import block_layers, parameter_shapes


def model_facts(point: Point) -> ModelFacts:
    """Parameters, FLOPs per token and all-reduce payload in bytes of a point whose `world_size` is known.

    FLOPs per token = 6 N + 12 L H Q T, forward and backward, without recomputation and without a discount for causal
    masking (`hidden_flops_per_token`; PaLM, arXiv:2204.02311, appendix B), for L layers, H heads of queries of size Q and T tokens. N is the
    number of parameters without learned positions and segments; the token embedding counts once where it is also the output projection, and
    not at all, as a lookup, where that is a matrix of its own. Where labels are predicted neither the embedding counts nor what predicts them: a
    pooler and a projection that run once a sample or, of tags, a projection of few values. Where an adaptation trains only a part, the products
    of gradients that nothing needs are left out: of 6 for each value of a weight 2 for its own gradient, where it is frozen, and 2 for that of
    its input, where nothing before it trains.
    """
    # One block is enough, since all have the same shapes: an untrusted suite may ask for a million.
    shapes = parameter_shapes(point.model_copy(update={"num_layers": 1}))
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    of_block = {name: size for name, size in sizes.items() if name.startswith("block0.")}
    parameters = sum(sizes.values()) + (point.num_layers - 1) * sum(of_block.values())
    last = f"block{point.num_layers - 1}."
    counts = {  # name -> how many such tensors train
        name: trained_blocks(point) if name in of_block else 1
        for name in sizes
        if is_trained(point, name.replace("block0.", last, 1))
    }
    trained = sum(count * sizes[name] for name, count in counts.items())
    of_blocks = sum(count * sizes[name] for name, count in counts.items() if name in of_block)
    parameters_in_flops = parameters - sizes.get("position_embedding", 0) - sizes.get("segment_embedding", 0)
    # What runs once a sample.
    parameters_in_flops -= sum(
        size for name, size in sizes.items() if name.startswith(("pooler.", "classifier.", "next_sentence."))
    )
    if point.predicts_labels:
        parameters_in_flops -= sizes["token_embedding"]
    elif not point.tied_embeddings:
        parameters_in_flops -= sizes["token_embedding"]
    attention = attention_flops_per_token(point, point.sequence_length)
    layers = linear_layers(point)[: -1 if point.predicts_labels else None]
    left_out = sum(
        2 * layer.weights * (2 * layer.count - layer.input_gradients - layer.weight_gradients) for layer in layers
    )
    communicates = (point.world_size or 1) > 1 and STRATEGIES[point.strategy].exchanges
    if point.is_sharded:
        exchanged = count_shared_bytes(point, trained=trained, of_blocks=of_blocks)
    elif point.has_local_updates:  # the share of a step: an exchange ends each round
        exchanged = count_exchanged_bytes(point, trained=trained) // point.sync_every
    else:
        exchanged = sum(count * payload_bytes(shapes[name], point) for name, count in counts.items())
    return ModelFacts(
        parameters=parameters,
        trained_parameters=trained,
        parameters_in_flops=parameters_in_flops,
        model_flops_per_token=6 * parameters_in_flops - left_out + attention,
        tokens_per_step=point.tokens_per_step,
        allreduce_bytes_per_step=exchanged if communicates else 0,
    )


def attention_flops_per_token(point: Point, length: float) -> float:
    """Of those FLOPs per token the 12 L H Q T of samples of T = `length` tokens: 4 forward, and 8 in the blocks that need gradients.

    Prefixes of an adaptation are that many keys more.
    """
    return 4 * _attention_passes(point) * point.hidden_size * (length + point.num_prefixes)  # H * Q = hidden_size


def _attention_passes(point: Point) -> int:
    """3 L where all blocks need the gradients of attention, which are two forward passes' work."""
    return point.num_layers + 2 * blocks_with_gradients(point, "attention.out.weight")


def hidden_flops_per_token(point: Point, length: float | None = None) -> float:
    """Of those FLOPs per token, what attention can skip because a causal mask hides it: 6 L H Q (T - 1); 0 without one.

    T is `length`, which is shorter than the point's own while samples grow. None: the point's own.
    A position attends to itself and to those before it, on average to (T + 1) / 2 of T, so that of 12 L H Q T there remain
    6 L H Q (T + 1): about the half that FlashAttention counts (arXiv:2307.08691, section 4.1).
    """
    length = point.sequence_length if length is None else length
    return 2 * _attention_passes(point) * point.hidden_size * (length - 1) if point.is_causal else 0


def recomputed_flops_per_token(point: Point, length: float | None = None) -> float:
    """FLOPs per token of the products that the backward pass computes a second time, as `recompute` asks; 0 for none.

    T is `length`, as above.
    Of a block forward, per token: 2 for each value of its linear layers' weights (of GPT-2 24 W^2, W = hidden_size, where 8 W^2 are of
    attention's own layers) and 4 W T of attention. The last product of what is recomputed is not: nothing reads its result (8 W^2 of a
    block of GPT-2, 2 W^2 of attention), unless a norm of it and what it is added to comes behind. Where nothing is compiled it runs all the same,
    if a mask of dropout is drawn behind it, or if oneDNN's products are chosen, which keep their operands when they are done.
    Added to the model's FLOPs they are the hardware's of HFU (Korthikanti et al., arXiv:2205.05198, section 6.3).
    Not counted are the scores that fused attention computes again in its backward pass, up to 2 W T a block: no choice of a point's,
    they are FLOPs of the kernel and not of the training, as FlashAttention-2 has it (arXiv:2307.08691, sections 4.1 and 4.2).
    """
    width, length = point.hidden_size, point.sequence_length if length is None else length
    of_layer = {name: 2 * inputs * outputs for name, (inputs, outputs) in block_layers(point).items()}
    again = {
        "none": [],
        "attention": [flops for name, flops in of_layer.items() if name.startswith("attention.")],
        "block": list(of_layer.values()),
    }[point.recompute]
    if not again:
        return 0
    is_in_order = point.dropout and describe_framework(point.framework).draws_masks_in_order
    repeats_last = point.compile == "none" and (is_in_order or point.gemm == "onednn")
    repeats_last = repeats_last or FAMILIES[point.family].norms_sums
    blocks = trained_blocks(point)  # no other has a backward pass
    return blocks * (sum(again) + 4 * width * (length + point.num_prefixes) - (0 if repeats_last else again[-1]))
