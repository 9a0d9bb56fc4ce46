"""Canonical parameter names, their shapes, and the initial weights that both twins start from.

Linear weights are stored as [in, out], embeddings as [rows, hidden size]. Queries, keys and values of a block are one matrix, in
this order. Initialisation is GPT-2's (Radford et al., 2019, section 2.3), in every family: N(0, 0.02), the two projections into the
residual stream scaled by 1/sqrt(2 L) for L blocks, biases 0, gains 1. Where norms are of sums, as in BERT, the stream does not grow with the
blocks, and nothing is scaled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hvbench.spec.model import FAMILIES
from hvbench.spec.point import Point
from hvbench.training.adaptation import added_shapes, added_std, is_trained

Shape = tuple[int, ...]
SEGMENTS = 2  # of a pair of texts


def block_layers(point: Point) -> dict[str, tuple[int, int]]:
    """Name below a block -> (inputs, outputs) of its linear layers, in the order of the forward pass."""
    width, mlp = point.hidden_size, point.mlp_width
    head = width // point.num_heads
    gate = {"mlp.gate": (width, mlp)} if FAMILIES[point.family].is_gated else {}
    return {
        "attention.qkv": (width, width + 2 * point.kv_heads * head),
        "attention.out": (width, width),
        **gate,
        "mlp.up": (width, mlp),
        "mlp.down": (mlp, width),
    }


def parameter_shapes(point: Point) -> dict[str, Shape]:
    """Canonical name -> shape, in the order of the forward pass. A tied token embedding is also the output projection.

    What reads the last block comes last, so that all others have the same names and initial values whatever the objective; what an
    adaptation adds comes behind it, for the same reason.
    """
    width, family = point.hidden_size, FAMILIES[point.family]
    layers = block_layers(point)

    def norm(name: str) -> dict[str, Shape]:
        return {f"{name}.gain": (width,)} | ({f"{name}.bias": (width,)} if family.has_biases else {})

    def linear(block: str, name: str) -> dict[str, Shape]:
        inputs, outputs = layers[name]
        bias = {f"{block}.{name}.bias": (outputs,)} if family.has_biases else {}
        return {f"{block}.{name}.weight": (inputs, outputs)} | bias

    shapes: dict[str, Shape] = {"token_embedding": (point.vocab_size, width)}
    if family.learns_positions:
        shapes["position_embedding"] = (point.sequence_length, width)
    if family.has_segments:
        shapes["segment_embedding"] = (SEGMENTS, width)
    shapes |= norm("embedding_norm") if family.norms_sums else {}
    for block in (f"block{layer}" for layer in range(point.num_layers)):
        for half, its_norm in (("attention", "norm1"), ("mlp", "norm2")):
            of_half: dict[str, Shape] = {}
            for name in layers:
                of_half |= linear(block, name) if name.startswith(f"{half}.") else {}
            of_norm = norm(f"{block}.{its_norm}")
            shapes |= of_half | of_norm if family.norms_sums else of_norm | of_half
    shapes |= {} if family.norms_sums else norm("final_norm")
    pooler = {"pooler.weight": (width, width), "pooler.bias": (width,)} if family.has_heads else {}
    if point.predicts_labels:
        shapes |= pooler if point.labels_samples else {}
        labels = point.label_outputs
        classifier = {"classifier.weight": (width, labels), "classifier.bias": (labels,)}
        return shapes | classifier | added_shapes(point, layers)
    if family.has_heads:
        shapes |= {"head.weight": (width, width), "head.bias": (width,), **norm("head_norm")}
        shapes["output.bias"] = (point.vocab_size,)
    if point.judges_pairs:
        shapes |= pooler | {"next_sentence.weight": (width, 2), "next_sentence.bias": (2,)}
    if not point.tied_embeddings:
        shapes["output_embedding"] = (point.vocab_size, width)
    return shapes | added_shapes(point, layers)


def trained_shapes(point: Point) -> dict[str, Shape]:
    """Canonical name -> shape of the parameters that train: those that have gradients, and a place on the wire."""
    return {name: shape for name, shape in parameter_shapes(point).items() if is_trained(point, name)}


def constants(point: Point) -> dict[str, np.ndarray]:
    """Name -> float64 value of what a model computes with and does not learn.

    `rotary` [2, T, Q/2], where positions are not learned: cosines and sines of the angles p theta^(-2 i / Q) by which position p turns
    pair i of a head's Q values (Su et al., arXiv:2104.09864, section 3.2.2).
    """
    if FAMILIES[point.family].learns_positions:
        return {}
    size = point.hidden_size // point.num_heads
    angles = np.arange(point.sequence_length)[:, None] * point.rope_theta ** (-np.arange(0, size, 2) / size)
    return {"rotary": np.stack([np.cos(angles), np.sin(angles)])}


def is_decayed(name: str) -> bool:
    """Whether weight decay applies: to weight matrices and embeddings of tokens, not to biases, gains, positions or segments."""
    return name.endswith(".weight") or name in ("token_embedding", "output_embedding")


def initial_weights(point: Point, *, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Canonical name -> initial value in `dtype`; depends only on the point's sizes and seed, not on the framework."""
    random = np.random.default_rng(point.seed)
    residual_std = 0.02 / (1.0 if FAMILIES[point.family].norms_sums else math.sqrt(2 * point.num_layers))
    weights = {}
    for name, shape in parameter_shapes(point).items():
        if name.endswith(".gain"):
            values = np.ones(shape)
        elif name.endswith(".bias"):
            values = np.zeros(shape)
        else:
            is_residual, added = name.endswith(("attention.out.weight", "mlp.down.weight")), added_std(point, name)
            std = added if added is not None else residual_std if is_residual else 0.02
            values = random.standard_normal(shape, dtype=np.float32) * std if std else np.zeros(shape)
        weights[name] = values.astype(dtype)
    return weights


def move_last_bits(weights: dict[str, np.ndarray], *, seed: Sequence[int]) -> dict[str, np.ndarray]:
    """`weights` with every nonzero value moved by one unit in the last place, up or down at random; `seed` of the choice."""
    random = np.random.default_rng(seed)
    moved = {}
    for name, values in weights.items():
        is_up = random.random(values.shape) < 0.5
        towards = np.where(is_up, np.inf, -np.inf).astype(values.dtype)
        moved[name] = np.where(values == 0, values, np.nextafter(values, towards))
    return moved
