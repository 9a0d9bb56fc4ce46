"""The twins: one folder per framework, with the same files and public names, behind the interfaces of `contract.py`."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from hvbench.registry import FRAMEWORKS, describe_framework


def load_framework(name: str, module: str) -> ModuleType:
    """Import one module of one twin, and the framework with it: only a worker calls this.

    Args:
        name: A framework, one of `hvbench.registry.FRAMEWORKS`.
        module: A file of its folder: `runtime`, `step`, `collective`, …

    Returns:
        The module, which has the public names that `contract` describes.

    Raises:
        ValueError: There is no such framework.
        ImportError: The framework is not installed.
    """
    if name not in FRAMEWORKS:
        raise ValueError(f"unknown framework {name!r}; known: {', '.join(FRAMEWORKS)}")
    with without(describe_framework(name).unneeded), uncollected():
        return importlib.import_module(f"hvbench.frameworks.{name}.{module}")


@contextmanager
def uncollected() -> Iterator[None]:
    """What is made within the context stays out of all garbage collections, then and afterwards.

    A framework's half a million objects live as long as its worker: looking through them takes a fifth of a second each time.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if is_enabled:
            gc.enable()


@contextmanager
def without(packages: Sequence[str]) -> Iterator[None]:
    """Make `packages` look as if they were not installed, within the context; those imported before stay.

    TensorFlow imports pandas and matplotlib where it finds them; without them a worker starts faster and needs less memory.
    """
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # None: an import raises ModuleNotFoundError
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
