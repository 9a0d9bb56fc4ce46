"""Shape this host's link while a point runs: a token bucket on the interface that $HVBENCH_LINK_INTERFACE names (tc, root).

Only what leaves is shaped; every host shapes its own, so a ring is as slow in either direction.
"""

from __future__ import annotations

import os
import subprocess

VARIABLE = "HVBENCH_LINK_INTERFACE"
BURST_SECONDS = 4e-3  # the kernel refills the bucket once a tick
LEAST_BURST_BYTES = 128 * 1024  # a segment of 64 KiB has to fit
QUEUE = "100ms"


def shape_link(bits_per_second: int | None) -> None:
    """Let no more than that leave this host; None lifts the limit. Raises OSError, in words of `tc`, when it cannot."""
    interface = os.environ.get(VARIABLE)
    if not interface:
        if bits_per_second is None:
            return
        raise OSError(f"no link may be shaped here: {VARIABLE} names none")
    if bits_per_second is None:
        _run_tc("qdisc", "del", "dev", interface, "root", may_fail=True)  # there is none to delete at first
        return
    limit = ("rate", f"{bits_per_second}bit", "burst", str(burst_bytes(bits_per_second)), "latency", QUEUE)
    _run_tc("qdisc", "replace", "dev", interface, "root", "tbf", *limit)


def burst_bytes(bits_per_second: float) -> int:
    """What leaves at once after a rest, before the link is as slow as it says."""
    return max(LEAST_BURST_BYTES, int(bits_per_second / 8 * BURST_SECONDS))


def _run_tc(*words: str, may_fail: bool = False) -> None:
    done = subprocess.run(["tc", *words], capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode and not may_fail:
        raise OSError(f"tc {' '.join(words)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
