"""Sizes of memory as people write them: `1.5 GiB`, `4G`, `512MB`. Pure."""

from __future__ import annotations

import re

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
LEAST_MEMORY_BYTES = 64 * 2**20  # less does not even hold the interpreter
MOST_MEMORY_BYTES = 2**62


def parse_memory(text: str) -> int:
    """Bytes of one worker's memory; raises ValueError with the rest of a line about what was written."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?i?)b?", text.strip().lower())
    if not match or match[2] == "i":
        raise ValueError("is not a size; write for example 2GiB or 512MiB")
    size = int(float(match[1]) * UNITS[match[2]])
    if not LEAST_MEMORY_BYTES <= size < MOST_MEMORY_BYTES:
        raise ValueError("must be at least 64MiB: the memory of one worker, framework included")
    return size


def show_memory(size_bytes: int) -> str:
    """`1.5 GiB`, `512 MiB`: what `parse_memory` reads again, to a thousandth."""
    unit, scale = ("GiB", 2**30) if size_bytes >= 2**30 else ("MiB", 2**20)
    return f"{size_bytes / scale:.4g} {unit}"
