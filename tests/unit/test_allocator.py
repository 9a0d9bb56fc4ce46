"""Freed memory stays with the process: allocating it again causes few page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests import patience

ALLOCATE_AGAIN = """
import resource, sys
from hvbench.frameworks.allocator import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
bytearray(64 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    bytearray(64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(*arguments: str) -> int:
    command = [sys.executable, "-c", ALLOCATE_AGAIN, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=patience.SECONDS).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_reused_memory_causes_no_new_page_faults() -> None:
    assert count_faults() > 3 * 10  # 64 MiB are 16384 small pages, or 32 huge ones
    assert count_faults("keep") < 10
