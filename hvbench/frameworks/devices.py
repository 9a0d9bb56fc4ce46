"""The device of one rank: what the point asks for, and the GPUs that the framework sees. The same rule in every twin."""

from __future__ import annotations

from hvbench.spec.numerics import Precision

TENSOR_CORE_MULTIPLE = 64  # of rows and columns, as the kernels for them cut a matrix into tiles


def choose_device(asked: str, *, gpus: int, local_rank: int) -> str:
    """`cpu` or `cuda` for a point's `device` (auto, cpu or cuda); rank `local_rank` of a host uses its GPU of that number.

    Raises:
        RuntimeError: the framework sees fewer than `local_rank` + 1 `gpus`.
    """
    if asked == "cpu" or (asked == "auto" and not gpus):
        return "cpu"
    if local_rank >= gpus:
        raise RuntimeError(
            f"device {asked}: rank {local_rank} of this host needs a GPU of its own; the framework sees {gpus}"
        )
    return "cuda"


def missing_rows(rows: int, *, precision: Precision, device: str) -> int:
    """How many rows of zeros a matrix of so many lacks until a GPU's tensor cores multiply by it at their full speed.

    They read rows of a product that begin at multiples of 16 bytes. With the 50,257 tokens of GPT-2 none does, and the logits, a
    third of its FLOPs, take two thirds of the time of all products.
    """
    uses_tensor_cores = precision.is_lower or precision.uses_tf32
    return -rows % TENSOR_CORE_MULTIPLE if device == "cuda" and uses_tensor_cores else 0
