"""The GPU that a benchmark runs on, as NVIDIA's management library sees it: energy drawn, clocks, temperature, power limit.

Needs `nvidia-ml-py`. Where that, a driver or a figure is missing, the figure is None.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any


class Card:
    """The first GPU that this process may use; on a processor (`device` cpu) a card that knows nothing."""

    def __init__(self, device: str) -> None:
        self._library: Any = None
        self._handle: Any = None
        if device != "cuda":
            return
        with contextlib.suppress(Exception):  # each of its errors means: there is no such figure
            import pynvml
            import torch

            pynvml.nvmlInit()
            uuid = str(torch.cuda.get_device_properties(0).uuid)  # CUDA_VISIBLE_DEVICES changes numbers, not this
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
            self._library = pynvml

    def energy_joules(self) -> float | None:
        """What the whole card has drawn since its driver was loaded; the counter moves every few ten milliseconds."""
        millijoules = self._read("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def state(self) -> dict[str, float | None]:
        """How it runs at this moment: clocks in MHz, watts drawn and allowed, degrees Celsius."""
        library = self._library
        watts, limit = (self._read(name) for name in ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetEnforcedPowerLimit"))
        return {
            "sm_clock_mhz": self._read("nvmlDeviceGetClockInfo", library and library.NVML_CLOCK_SM),
            "memory_clock_mhz": self._read("nvmlDeviceGetClockInfo", library and library.NVML_CLOCK_MEM),
            "watts": None if watts is None else watts / 1e3,
            "power_limit_watts": None if limit is None else limit / 1e3,
            "celsius": self._read("nvmlDeviceGetTemperature", library and library.NVML_TEMPERATURE_GPU),
        }

    def _read(self, name: str, *choices: Any) -> float | None:
        if self._library is None:
            return None
        function: Callable[..., float] = getattr(self._library, name)
        with contextlib.suppress(self._library.NVMLError):
            return function(self._handle, *choices)
        return None
