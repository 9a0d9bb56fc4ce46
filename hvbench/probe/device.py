"""The device that a script trains on, and the libraries it uses, as far as it has imported them: nothing is imported here."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

LIBRARIES = (
    "torch", "tensorflow", "keras", "jax", "horovod", "transformers", "accelerate", "lightning", "pytorch_lightning",
)  # fmt: skip


def synchronize() -> None:
    """Wait until the device is idle; at once on a CPU, where work is done when a call returns."""
    if torch := _torch_on_gpu():
        torch.cuda.synchronize()
    if tensorflow := _tensorflow_on_gpu():
        tensorflow.test.experimental.sync_devices()


def is_on_gpu() -> bool:
    """Whether a framework has begun to use a GPU."""
    return bool(_torch_on_gpu() or _tensorflow_on_gpu())


def device_name() -> str:
    """`cuda` where a framework has begun to use a GPU, else `cpu`."""
    return "cuda" if is_on_gpu() else "cpu"


def peak_device_memory_bytes() -> int | None:
    """The high-water mark of the framework's allocator; None on a CPU."""
    if torch := _torch_on_gpu():
        return int(torch.cuda.max_memory_allocated())
    if tensorflow := _tensorflow_on_gpu():
        return int(tensorflow.config.experimental.get_memory_info("GPU:0")["peak"])
    return None


def library_versions() -> dict[str, str]:
    """Name -> version of those of LIBRARIES that are imported, and of CUDA where PyTorch uses it."""
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in LIBRARIES}
    if torch := _torch_on_gpu():
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {name: str(version) for name, version in found.items() if version is not None}


def _torch_on_gpu() -> ModuleType | None:
    cuda: Any = sys.modules.get("torch.cuda")
    return sys.modules["torch"] if cuda is not None and cuda.is_initialized() else None


_tensorflow_has_gpu: bool | None = None  # not known before TensorFlow has looked for devices


def _tensorflow_on_gpu() -> ModuleType | None:
    """TensorFlow where it has begun to use a GPU. Asking it any earlier would take all memory of a GPU that PyTorch trains on."""
    global _tensorflow_has_gpu
    if _tensorflow_has_gpu is None:
        module: Any = sys.modules.get("tensorflow.python.eager.context")
        context = getattr(module, "_context", None)  # nothing public tells without creating it
        if not getattr(context, "_initialized", False):
            return None
        _tensorflow_has_gpu = bool(sys.modules["tensorflow"].config.get_visible_devices("GPU"))
    return sys.modules["tensorflow"] if _tensorflow_has_gpu else None
