"""Settings of the C library's allocator in a worker: memory that one step freed is reused by the next.

By default glibc returns large freed blocks to the kernel, so that every training step takes page faults for all of its
activations again: about a tenth of a step of `small` on a CPU. No result of a training depends on these settings.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_KEPT_BYTES = (1 << 30, 1 << 25)  # glibc before 2.35 refuses more than the second


def keep_freed_memory() -> bool:
    """Let this process keep freed blocks of up to 1 GiB. Returns whether its C library can (glibc can)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    is_mapped = any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST_KEPT_BYTES)
    return is_mapped and bool(mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))
