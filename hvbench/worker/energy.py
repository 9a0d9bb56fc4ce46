"""The energy that one rank's timed steps draw: of its GPU, and of its host's processors, as far as anything measures it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvbench.records.nvml import Gpu
from hvbench.records.rapl import find_packages


@dataclass(kw_only=True)
class Counter:
    """A counter that is read where metering begins and ends; once it cannot be read, there is no figure."""

    read: Callable[[], float | None]
    drawn: Callable[[float, float], float] = lambda before, now: now - before
    before: float | None = None
    joules: float | None = 0.0

    def begin(self) -> None:
        """Meter from now on."""
        self.before = self.read()

    def end(self) -> None:
        """Add what was drawn since."""
        now = self.read()
        known = None not in (self.before, now, self.joules)
        self.joules = self.joules + self.drawn(self.before, now) if known else None


@dataclass(kw_only=True)
class EnergyMeter:
    """Joules drawn while it is on. Of the processors' packages, which all ranks of a host share, only local rank 0 says any."""

    gpu: Gpu | None = None
    gpu_counters: list[Counter] = field(default_factory=list)
    cpu_counters: list[Counter] = field(default_factory=list)
    seconds: float = 0.0
    _since: float | None = None

    def begin(self) -> None:
        """Switch it on."""
        self._since = time.perf_counter()
        for counter in self._counters:
            counter.begin()

    def end(self) -> bool:
        """Switch it off; whether it was on."""
        since, self._since = self._since, None
        if since is None:
            return False
        for counter in self._counters:
            counter.end()
        self.seconds += time.perf_counter() - since
        return True

    @property
    def _counters(self) -> list[Counter]:
        return self.gpu_counters + self.cpu_counters

    def describe(self) -> dict[str, Any]:
        """`energy` and `gpu_state` as `hvbench.records.record.RankSamples` names them; None where nothing measures."""
        figures = {"gpu_joules": _sum(self.gpu_counters), "cpu_joules": _sum(self.cpu_counters)}
        is_known = self.seconds > 0 and any(value is not None for value in figures.values())
        state = self.gpu.state() if self.gpu else {}
        return {
            "energy": {"seconds": self.seconds, **figures} if is_known else None,
            "gpu_state": state if any(value is not None for value in state.values()) else None,
        }


def make_meter(*, device: str, local_rank: int, root: Path = Path("/")) -> EnergyMeter:
    """The meter of a rank that trains on `device` ("cuda": the GPU of its local rank)."""
    gpu = Gpu(local_rank) if device == "cuda" else None
    packages = find_packages(root) if local_rank == 0 else []
    return EnergyMeter(
        gpu=gpu,
        gpu_counters=[Counter(read=gpu.energy_joules)] if gpu else [],
        cpu_counters=[Counter(read=each.energy_joules, drawn=each.drawn_joules) for each in packages],
    )


def _sum(counters: list[Counter]) -> float | None:
    joules = [counter.joules for counter in counters]
    return None if None in joules or not joules else sum(joules)
