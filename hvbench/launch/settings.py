"""Horovod's variables in this process's environment, held against this machine before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hvbench.errors import UsageError
from hvbench.spec.variables import Surroundings, find_mistake


def require_horovod_settings(*, is_launched: bool, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UsageError, one line, for a HOROVOD_* variable that Horovod would misread, ignore or die of.

    `is_launched`: a launcher has started this process, and has set some of them.
    """
    if not any(name.startswith("HOROVOD_") for name in environment):
        return
    import psutil

    surroundings = Surroundings(
        interfaces=sorted(psutil.net_if_addrs()), why_not_writable=why_not_writable, is_launched=is_launched
    )
    if mistake := find_mistake(environment, surroundings):
        raise UsageError(mistake)


def why_not_writable(path: str) -> str | None:
    """Why no file can be written at `path`; None: one can."""
    target = Path(path)
    if target.is_dir():
        return "it is a folder"
    if target.exists():
        return None if os.access(target, os.W_OK) else "permission denied"
    if not target.parent.is_dir():
        return f"there is no folder {target.parent}"
    return None if os.access(target.parent, os.W_OK | os.X_OK) else "permission denied"


def without_empty_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without empty HOROVOD_* variables, which Horovod reads as 0 and people mean as not set."""
    return {name: value for name, value in environment.items() if value or not name.startswith("HOROVOD_")}
