"""PyTorch in one worker process: its threads, its device, and the connection to the other ranks."""

from __future__ import annotations

import gc

import torch

from hvbench.frameworks.allocator import keep_freed_memory
from hvbench.frameworks.devices import choose_device
from hvbench.frameworks.pytorch.execution import forget_compiled
from hvbench.frameworks.pytorch.ranks import join
from hvbench.frameworks.tf32 import require_tf32

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Runtime:
    """See `hvbench.frameworks.contract.Runtime`."""

    def __init__(
        self, *, rank: int, world_size: int, local_rank: int, threads: int, device: str, strategy: str = "horovod"
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        keep_freed_memory()
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        self.device = choose_device(device, gpus=gpus, local_rank=local_rank)
        if self.device == "cuda":
            torch.cuda.set_device(local_rank)
        self.use_tf32(False)  # on in convolutions, as PyTorch starts
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False  # sums of 16-bit products are float32
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        self.ranks = join(strategy, rank=rank, world_size=world_size)

    def versions(self) -> dict[str, str]:
        facts = {"pytorch": torch.__version__, "pytorch_cpu_capability": torch.backends.cpu.get_cpu_capability()}
        uses_tf32 = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
        facts["tf32"] = "on" if uses_tf32 else "off"
        if self.device == "cuda":
            facts |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
            facts["gpu"] = torch.cuda.get_device_name()
        return facts

    def use_tf32(self, is_on: bool) -> None:
        if is_on:
            has_gpu = self.device == "cuda"
            require_tf32(self.device, capability=torch.cuda.get_device_capability() if has_gpu else None)
        torch.backends.cuda.matmul.allow_tf32 = is_on
        torch.backends.cudnn.allow_tf32 = is_on

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def barrier(self) -> None:
        self.ranks.barrier()

    def gather(self, value: float) -> list[float]:
        return self.ranks.gather(value)

    def peak_device_memory_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None

    def release(self) -> None:
        forget_compiled()
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def shutdown(self) -> None:
        self.ranks.leave()
