"""The twins: one folder a framework, mirrored file by file, behind the contract of `contract.py`."""

from __future__ import annotations

import importlib
from types import ModuleType

from hvbench.registry import FRAMEWORKS


def load_framework(name: str, module: str) -> ModuleType:
    """Import one module (`runtime`, `step`, …) of one twin. Only a worker calls this: it imports the framework."""
    if name not in FRAMEWORKS:
        raise ValueError(f"unknown framework {name!r}; known: {', '.join(FRAMEWORKS)}")
    return importlib.import_module(f"hvbench.frameworks.{name}.{module}")
