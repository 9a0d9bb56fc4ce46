"""How many tokens have logits at the same time, in every implementation and in the estimate of memory."""

from __future__ import annotations

from hvbench.spec.point import Point

CHUNK_TOKENS = 1024  # where no step is slower with it (docs/measurements.md)


def loss_chunk(point: Point, *, device: str) -> int:
    """Tokens whose logits and loss are computed together; 0: all of a micro-batch, with the framework's own cross-entropy.

    Left out, it is 0 where it was not measured, on a GPU and where the loss is compiled.
    """
    if point.predicts_labels:
        return 0
    if point.loss_chunk_tokens is not None:
        return point.loss_chunk_tokens
    return CHUNK_TOKENS if device == "cpu" and point.compile == "none" else 0
