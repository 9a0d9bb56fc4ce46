"""The device of one rank: what the point asks for, and the GPUs that the framework sees. The same rule in every twin."""

from __future__ import annotations


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
