"""Memory of this process: resident set size now, and its high-water mark, which can be reset."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from hvbench.launch.own_process import limit_memory

if TYPE_CHECKING:
    from hvbench.frameworks.contract import Runtime


UNTOUCHED_BYTES = 2**30  # that a process may have mapped and not touched


def reset_peak_rss() -> None:
    """Return freed memory to the system and restart the RSS high-water mark, where the kernel allows it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except (OSError, AttributeError):
        pass


def cap_memory(limit_bytes: int | None) -> None:
    """Let allocations fail that would take this process far beyond a limit of its resident memory (None: no limit).

    Some way beyond it: frameworks map private memory that they never touch, TensorFlow 660 MiB beside 930 that it did. What is
    resident, `require_within` looks at.
    """
    limit_memory(None if limit_bytes is None else limit_bytes + UNTOUCHED_BYTES)


def require_within(limit_bytes: int | None) -> None:
    """Raise MemoryError where this process has had more resident memory than `limit_bytes` since `reset_peak_rss` (None: no limit)."""
    if limit_bytes is not None and (peak := peak_rss_bytes()) > limit_bytes:
        raise MemoryError(f"resident memory of {peak / 2**20:,.0f} MiB, the limit is {limit_bytes / 2**20:,.0f} MiB")


def read_peaks(runtime: Runtime) -> dict[str, int | None]:
    """The high-water marks of host and device memory, as `hvbench.records.record.RankSamples` names them."""
    return {"peak_rss_bytes": peak_rss_bytes(), "peak_device_memory_bytes": runtime.peak_device_memory_bytes()}


def peak_rss_bytes() -> int:
    """RSS high-water mark of this process since `reset_peak_rss`."""
    return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rss_bytes() -> int:
    """Resident memory of this process now."""
    return _status_bytes("VmRSS") or peak_rss_bytes()


def _status_bytes(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)
