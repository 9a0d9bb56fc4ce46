"""Horovod's own timeline of a set of workers: chrome's trace format, written by rank 0's worker while it runs."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

MAX_DEPTH = 8  # braces that a torn event may have closed; Horovod's have two


def timeline_settings(path: Path | None) -> dict[str, str]:
    """The environment by which workers record their timeline in `path`; nothing for None. Raises OSError."""
    if path is None:
        return {}
    path.parent.mkdir(parents=True, exist_ok=True)
    return {"HOROVOD_TIMELINE": str(path.resolve())}


def mend_timeline(path: Path | None) -> None:
    """Make the timeline in `path` whole JSON: a worker that was killed leaves it open, perhaps in the middle of an event.

    A file that nothing can be made of is left as it is; one that is not there (one rank has none) stays away.
    """
    with contextlib.suppress(OSError):
        if path is None or not path.exists():
            return
        text = path.read_text(encoding="utf-8", errors="replace")
        whole = close_array(text)
        if whole not in (None, text):
            path.write_text(whole, encoding="utf-8", errors="replace")


def close_array(text: str) -> str | None:
    """`text`, the beginning of a JSON array of objects, cut after its last whole object and closed; None if it is none."""
    if not text.strip():
        return "[]\n"
    if not text.startswith("["):
        return None
    for _ in range(MAX_DEPTH):
        for candidate in (text, f"{text}]"):
            with contextlib.suppress(ValueError):
                if isinstance(json.loads(candidate), list):
                    return candidate
        text = text.rstrip()
        end = text.rfind("}", 0, len(text) - 1) + 1
        text = text[:end] if end else "["
    return None
