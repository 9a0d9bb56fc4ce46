"""Variables of this process's environment that launches obey, held against this machine before anything starts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from hvbench.errors import UsageError
from hvbench.spec.variables import VARIABLES, Surroundings, find_mistake

THREADS = "OMP_NUM_THREADS"


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


def find_missing_interface(environment: Mapping[str, str] = os.environ) -> str | None:
    """One line about a variable that names a network interface which this host lacks; None: it has what is named.

    Launchers carry a variable to all hosts, and interfaces have other names on each.
    """
    named = {name: environment.get(name, "") for name, variable in VARIABLES.items() if variable.kind == "interface"}
    if not any(named.values()):
        return None
    import psutil

    interfaces = sorted(psutil.net_if_addrs())
    return find_mistake(named, Surroundings(interfaces=interfaces, why_not_writable=why_not_writable, is_launched=True))


def chosen_threads(environment: Mapping[str, str] = os.environ) -> int | None:
    """Threads a worker by OMP_NUM_THREADS (of a list for nested regions, the outermost); None where it is not set.

    Raises UsageError, one line, for what no OpenMP library would take.
    """
    text = environment.get(THREADS, "").strip()
    if not text:
        return None
    if not re.fullmatch(r"[1-9]\d{0,3}(\s*,\s*[1-9]\d{0,3})*", text, re.ASCII):
        raise UsageError(
            f"{THREADS}={text}: must be a whole number from 1 to 9999, the threads of a worker; unset, the ranks share the cores"
        )
    return int(text.split(",")[0])


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
