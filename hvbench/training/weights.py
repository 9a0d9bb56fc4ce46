"""Canonical parameter names, their shapes, and the initial weights that both twins start from.

Linear weights are stored as [in, out], embeddings as [rows, hidden size]. Initialisation is GPT-2's (Radford et al., 2019,
section 2.3): N(0, 0.02), the two projections into the residual stream scaled by 1/sqrt(2 L) for L blocks, biases 0,
layer-norm gains 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hvbench.spec.point import Point

Shape = tuple[int, ...]


def parameter_shapes(point: Point) -> dict[str, Shape]:
    """Canonical name -> shape, in the order of the forward pass. The token embedding is also the output projection (tied).

    A classifier has another projection, the last entry, so that all others have the same names and initial values.
    """
    width = point.hidden_size
    shapes: dict[str, Shape] = {
        "token_embedding": (point.vocab_size, width),
        "position_embedding": (point.sequence_length, width),
    }
    for layer in range(point.num_layers):
        shapes |= {
            f"block{layer}.norm1.gain": (width,),
            f"block{layer}.norm1.bias": (width,),
            f"block{layer}.attention.qkv.weight": (width, 3 * width),
            f"block{layer}.attention.qkv.bias": (3 * width,),
            f"block{layer}.attention.out.weight": (width, width),
            f"block{layer}.attention.out.bias": (width,),
            f"block{layer}.norm2.gain": (width,),
            f"block{layer}.norm2.bias": (width,),
            f"block{layer}.mlp.up.weight": (width, 4 * width),
            f"block{layer}.mlp.up.bias": (4 * width,),
            f"block{layer}.mlp.down.weight": (4 * width, width),
            f"block{layer}.mlp.down.bias": (width,),
        }
    shapes |= {"final_norm.gain": (width,), "final_norm.bias": (width,)}
    if point.is_classifier:
        shapes |= {"classifier.weight": (width, point.num_classes), "classifier.bias": (point.num_classes,)}
    return shapes


def is_decayed(name: str) -> bool:
    """Whether weight decay applies: to weight matrices and the token embedding, not to biases, gains or positions."""
    return name.endswith(".weight") or name == "token_embedding"


def initial_weights(point: Point, *, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Canonical name -> initial value in `dtype`; depends only on the point's sizes and seed, not on the framework."""
    random = np.random.default_rng(point.seed)
    residual_std = 0.02 / math.sqrt(2 * point.num_layers)
    weights = {}
    for name, shape in parameter_shapes(point).items():
        if name.endswith(".gain"):
            values = np.ones(shape)
        elif name.endswith(".bias"):
            values = np.zeros(shape)
        else:
            is_residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
            values = random.standard_normal(shape, dtype=np.float32) * (residual_std if is_residual else 0.02)
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
