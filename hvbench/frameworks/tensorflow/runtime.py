"""TensorFlow in one worker process: its threads, its device, and the connection to the other ranks."""

from __future__ import annotations

import gc
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

from hvbench.frameworks.allocator import keep_freed_memory
from hvbench.frameworks.devices import choose_device
from hvbench.frameworks.tensorflow.ranks import join
from hvbench.frameworks.tf32 import require_tf32

DTYPES = {
    "float64": tf.float64,
    "float32": tf.float32,
    "bfloat16": tf.bfloat16,
    "float16": tf.float16,
}


class Runtime:
    """See `hvbench.frameworks.contract.Runtime`."""

    def __init__(
        self, *, rank: int, world_size: int, local_rank: int, threads: int, device: str, strategy: str = "horovod"
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        keep_freed_memory()
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        gpus = tf.config.list_physical_devices("GPU")
        self.device = choose_device(device, gpus=len(gpus), local_rank=local_rank)
        if self.device == "cuda":
            tf.config.set_visible_devices(gpus[local_rank], "GPU")
            tf.config.experimental.set_memory_growth(gpus[local_rank], True)
        else:
            tf.config.set_visible_devices([], "GPU")
        self.use_tf32(False)  # on, as TensorFlow starts
        self.ranks = join(strategy, rank=rank, world_size=world_size)

    def versions(self) -> dict[str, str]:
        facts = {"tensorflow": tf.__version__, "tensorflow_git": tf.version.GIT_VERSION}
        facts["tf32"] = "on" if tf.config.experimental.tensor_float_32_execution_enabled() else "off"
        if self.device == "cuda":
            build = tf.sysconfig.get_build_info()
            facts |= {"cuda": str(build.get("cuda_version")), "cudnn": str(build.get("cudnn_version"))}
            facts["gpu"] = _gpu_details().get("device_name", "unknown")
        return facts

    def use_tf32(self, is_on: bool) -> None:
        if is_on:
            has_gpu = self.device == "cuda"
            require_tf32(self.device, capability=_gpu_details().get("compute_capability") if has_gpu else None)
        tf.config.experimental.enable_tensor_float_32_execution(is_on)

    def synchronize(self) -> None:
        if self.device == "cuda":
            tf.test.experimental.sync_devices()

    def barrier(self) -> None:
        self.ranks.barrier()

    def gather(self, value: float) -> list[float]:
        return self.ranks.gather(value)

    def peak_device_memory_bytes(self) -> int | None:
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if self.device == "cuda" else None

    def release(self) -> None:
        tf.keras.backend.clear_session(free_memory=False)  # the collection below does
        _forget_custom_gradients()
        gc.collect()
        if self.device == "cuda":
            tf.config.experimental.reset_memory_stats("GPU:0")

    def shutdown(self) -> None:
        self.ranks.leave()


def _forget_custom_gradients() -> None:
    """Drop the closures that tf.recompute_grad registers for every trace and never frees; they keep the weights alive.

    Nothing differentiates those graphs again. The registry is private to TensorFlow; a test checks that nothing is left.
    """
    registered = ops.gradient_registry._registry
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]


def _gpu_details() -> dict[str, Any]:
    """Name and compute capability of this rank's GPU, the only one that its process may see."""
    return tf.config.experimental.get_device_details(tf.config.get_visible_devices("GPU")[0])
