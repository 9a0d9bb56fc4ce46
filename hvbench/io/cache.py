"""The user's cache folder, for built wheels and tokenised text, which can be made again."""

from __future__ import annotations

import os
from pathlib import Path

from hvbench.errors import StorageError


def cache_root() -> Path:
    """Path of $HVBENCH_CACHE, else $XDG_CACHE_HOME/hvbench, else ~/.cache/hvbench. Raises StorageError without a home."""
    named = os.environ.get("HVBENCH_CACHE")
    xdg = os.environ.get("XDG_CACHE_HOME", "")  # the XDG standard says to ignore a relative path
    chosen = Path(named) if named else Path(xdg, "hvbench") if os.path.isabs(xdg) else Path("~/.cache/hvbench")
    try:
        return chosen.expanduser().absolute()
    except RuntimeError as error:
        message = f"no cache folder: {error}; set HVBENCH_CACHE to a folder that can be written"
        raise StorageError(message) from None
