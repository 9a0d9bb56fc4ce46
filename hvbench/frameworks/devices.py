"""The device of one rank: what the point asks for, and the GPUs that the framework sees. The same rule in every twin."""

from __future__ import annotations

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


def missing_rows(rows: int, *, dtype: str, device: str) -> int:
    """How many rows of zeros a matrix of so many lacks until a GPU's tensor cores multiply by it at their full speed.

    `dtype`: what they multiply in (`hvbench.spec.numerics.Precision.product_dtype`). They want rows of the result to begin at
    multiples of 16 bytes. With GPT-2's 50,257 tokens none does, and all its products together run at a third of the best one's rate.
    """
    uses_tensor_cores = device == "cuda" and dtype not in ("float32", "float64")
    return -rows % TENSOR_CORE_MULTIPLE if uses_tensor_cores else 0
