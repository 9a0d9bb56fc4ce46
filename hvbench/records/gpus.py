"""The NVIDIA GPUs of this host as NVIDIA's management library (NVML) tells of them: no framework is imported, no GPU set up."""

from __future__ import annotations

import ctypes
from functools import cache

NVML = "libnvidia-ml.so.1"  # comes with the driver


@cache
def least_compute_capability() -> tuple[int, int] | None:
    """CUDA's compute capability (major, minor), the least of this host's GPUs; None where NVML knows of none."""
    try:
        nvml = ctypes.CDLL(NVML)
    except OSError:
        return None
    if nvml.nvmlInit_v2():
        return None
    try:
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        found = [_compute_capability(nvml, number) for number in range(count.value)]
    finally:
        nvml.nvmlShutdown()
    return min((capability for capability in found if capability), default=None)


def _compute_capability(nvml: ctypes.CDLL, number: int) -> tuple[int, int] | None:
    device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
    if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)):
        return None
    if nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor)):
        return None
    return major.value, minor.value
