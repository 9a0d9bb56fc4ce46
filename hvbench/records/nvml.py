"""One GPU as its driver sees it: energy drawn, clocks, power, temperature; None for each figure that is missing.

NVIDIA's management library (NVML) and CUDA's driver library come with the driver and are called through ctypes, so nothing has to be
installed. Names and numbers below are those of nvml.h and cuda.h.
"""

from __future__ import annotations

import ctypes
from typing import Any

SUCCESS = 0
CLOCK_SM, CLOCK_MEMORY = 1, 2  # nvmlClockType_t
TEMPERATURE_GPU = 0  # nvmlTemperatureSensors_t
UUID_BYTES = 16


class Gpu:
    """The `ordinal`-th GPU that CUDA shows this process."""

    def __init__(self, ordinal: int = 0) -> None:
        """Find it; where there is no driver, or it does not say, every figure is None."""
        self._library: Any = None
        self._handle = ctypes.c_void_p()
        uuid = cuda_uuid(ordinal)
        library = _load("libnvidia-ml.so.1")
        if library is None or uuid is None or library.nvmlInit_v2() != SUCCESS:
            return
        for kind in ("GPU", "MIG"):  # CUDA gives both without their kind
            name = f"{kind}-{uuid}".encode()
            if library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(self._handle)) == SUCCESS:
                self._library = library
                return

    def energy_joules(self) -> float | None:
        """What the whole GPU has drawn since its driver was loaded; the counter moves every few ten milliseconds."""
        millijoules = self._read("nvmlDeviceGetTotalEnergyConsumption", kind=ctypes.c_ulonglong)
        return None if millijoules is None else millijoules / 1e3

    def state(self) -> dict[str, float | None]:
        """How it runs at this moment: the fields of `hvbench.records.record.GpuState`."""
        milliwatts, limit = (
            self._read(name) for name in ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetEnforcedPowerLimit")
        )
        return {
            "sm_clock_mhz": self._read("nvmlDeviceGetClockInfo", CLOCK_SM),
            "memory_clock_mhz": self._read("nvmlDeviceGetClockInfo", CLOCK_MEMORY),
            "power_watts": None if milliwatts is None else milliwatts / 1e3,
            "power_limit_watts": None if limit is None else limit / 1e3,
            "temperature_celsius": self._read("nvmlDeviceGetTemperature", TEMPERATURE_GPU),
        }

    def _read(self, function: str, *choices: int, kind: type[Any] = ctypes.c_uint) -> float | None:
        value = kind()
        if self._library is None or getattr(self._library, function)(self._handle, *choices, ctypes.byref(value)):
            return None
        return float(value.value)


def cuda_uuid(ordinal: int) -> str | None:
    """The UUID of a GPU, whatever CUDA_VISIBLE_DEVICES and the order of numbers: `8-4-4-4-12` hexadecimal digits."""
    library, device, found = _load("libcuda.so.1"), ctypes.c_int(), (ctypes.c_ubyte * UUID_BYTES)()
    if library is None or library.cuInit(0) or library.cuDeviceGet(ctypes.byref(device), ordinal):
        return None
    ask = getattr(library, "cuDeviceGetUuid_v2", library.cuDeviceGetUuid)  # the former also tells slices of a GPU apart
    if ask(ctypes.byref(found), device):
        return None
    digits = bytes(found).hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _load(name: str) -> Any:
    """A shared library, or None where it is not there."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
