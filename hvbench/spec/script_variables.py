"""Environment variables that a suite sets for people's own training, its table [script.environment]: which ones it may set. Pure."""

from __future__ import annotations

import re

from hvbench.spec.place import PLACE
from hvbench.spec.secret_names import SECRETS
from hvbench.spec.variables import VARIABLES

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)
MOST = 40
# What tells a rank its place, and how the ranks find each other: `hvbench.launch.joining` and `hvbench.launch.placement`.
OF_A_RANK = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "TF_CONFIG",
    "HOROVOD_CONTROLLER", "HOROVOD_CPU_OPERATIONS",
)  # fmt: skip
# By which `hvbench ab` runs each arm's own interpreter, and leads imports to each arm's own revision.
OF_IMPORTS = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")
OWN_PREFIX = "HVBENCH_"
THREADS = "OMP_NUM_THREADS"  # records state how many a rank has


def why_not_set(name: str) -> str | None:
    """Why a suite may set no variable of that name, as the end of a line; None: it may."""
    if not NAME.fullmatch(name):
        return "the name of a variable has letters, digits and _, at most 100"
    if name == THREADS:
        return f"a rank has its share of the host's cores; for another number call hvbench with {THREADS}=N"
    if name.startswith(OWN_PREFIX) or name in OF_A_RANK or PLACE.fullmatch(name):
        return "hvbench itself sets it for each rank"
    if name in OF_IMPORTS:
        return "it decides which code runs; set it where you call hvbench, whose variables scripts get, too"
    if SECRETS.search(name):
        return "suites and records are read by others; set it where you call hvbench, whose variables scripts get, too"
    return None


def why_not_value(name: str, value: str) -> str | None:
    """Why a variable cannot have that value, of those whose values Horovod would misread; None: it can."""
    known = VARIABLES.get(name)
    return None if known is None or known.accepts(value) else f"must be {known.allowed}"
