"""numpy in one worker: a single rank on a CPU."""

from __future__ import annotations

import gc

import numpy as np
from hvbench.frameworks.numpy.ranks import join

from hvbench.frameworks.allocator import keep_freed_memory
from hvbench.frameworks.tf32 import require_tf32

# numpy has no bfloat16: what is rounded to it is carried in float32.
DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "bfloat16": np.float32,
    "float16": np.float16,
}


class Runtime:
    """See `hvbench.frameworks.contract.Runtime`. The launcher has set the threads before numpy was loaded."""

    def __init__(
        self, *, rank: int, world_size: int, local_rank: int, threads: int, device: str, strategy: str = "horovod"
    ) -> None:
        self.ranks = join(strategy, rank=rank, world_size=world_size)
        if device == "cuda":
            raise ValueError("numpy trains on a CPU: give device=cpu or device=auto")
        self.rank = rank
        self.world_size = world_size
        self.device = "cpu"
        keep_freed_memory()

    def versions(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def use_tf32(self, is_on: bool) -> None:
        if is_on:
            require_tf32(self.device, capability=None)

    def synchronize(self) -> None:
        """Nothing runs behind numpy's back."""

    def barrier(self) -> None:
        self.ranks.barrier()

    def gather(self, value: float) -> list[float]:
        return self.ranks.gather(value)

    def peak_device_memory_bytes(self) -> int | None:
        return None

    def release(self) -> None:
        gc.collect()

    def shutdown(self) -> None:
        self.ranks.leave()


def _round_to(x: np.ndarray, dtype: str) -> np.ndarray:
    """float32 rounded to `dtype` (bfloat16 or float16) and carried in float32."""
    if dtype == "bfloat16":  # the upper half of a float32, to nearest, ties to even
        bits = np.ascontiguousarray(x).view(np.uint32)
        return ((bits + (0x7FFF + ((bits >> 16) & 1))) & np.uint32(0xFFFF0000)).view(np.float32)
    with np.errstate(over="ignore"):  # the loss scale is then lowered
        return x.astype(np.float16).astype(np.float32)
