"""The twins: one folder a framework, mirrored file by file, behind the contract of `contract.py`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from hvbench.registry import FRAMEWORKS, describe_framework


def load_framework(name: str, module: str) -> ModuleType:
    """Import one module (`runtime`, `step`, …) of one twin. Only a worker calls this: it imports the framework."""
    if name not in FRAMEWORKS:
        raise ValueError(f"unknown framework {name!r}; known: {', '.join(FRAMEWORKS)}")
    with without(describe_framework(name).unneeded):
        return importlib.import_module(f"hvbench.frameworks.{name}.{module}")


@contextmanager
def without(packages: Sequence[str]) -> Iterator[None]:
    """Those of `packages` that are not imported yet cannot be, as if they were not installed, until the context ends.

    Without pandas and matplotlib TensorFlow 2.21 is there in 0.78 (0.75 to 0.82) of the time, and 88 MiB smaller.
    """
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # None: an import raises ModuleNotFoundError
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
