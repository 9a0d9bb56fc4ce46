"""Model FLOPs and sizes, computed from a point alone."""

from __future__ import annotations

import math

from hvbench.records.record import ModelFacts
from hvbench.spec.point import Point
from hvbench.training.weights import parameter_shapes

WIRE_BYTES = {"none": 4, "fp16": 2, "bf16": 2}


def model_facts(point: Point) -> ModelFacts:
    """Parameters, FLOPs per token and all-reduce payload of a point with a resolved `world_size`.

    FLOPs per token = 6 N + 12 L H Q T for forward and backward, without recomputation (PaLM, arXiv:2204.02311,
    app. B); causal masking is not discounted. N counts every parameter but the learned positions: the token embedding
    is tied to the output projection, so its product with the hidden state is real work, counted once. A classifier only
    looks the embedding up, and its own projection is a product per sample: neither is counted.
    """
    # All blocks are alike, and a suite from anybody may ask for a million of them.
    sizes = {
        name: math.prod(shape) for name, shape in parameter_shapes(point.model_copy(update={"num_layers": 1})).items()
    }
    block = sum(size for name, size in sizes.items() if name.startswith("block0."))
    parameters = sum(sizes.values()) + (point.num_layers - 1) * block
    parameters_in_flops = parameters - sizes["position_embedding"]
    if point.objective == "classification":
        parameters_in_flops -= sizes["token_embedding"] + sizes["classifier.weight"] + sizes["classifier.bias"]
    attention = 12 * point.num_layers * point.hidden_size * point.sequence_length  # H * Q = hidden_size
    communicates = (point.world_size or 1) > 1 and point.strategy != "local"
    return ModelFacts(
        parameters=parameters,
        parameters_in_flops=parameters_in_flops,
        model_flops_per_token=6 * parameters_in_flops + attention,
        tokens_per_step=point.tokens_per_step,
        allreduce_bytes_per_step=parameters * WIRE_BYTES[point.compression] if communicates else 0,
    )
