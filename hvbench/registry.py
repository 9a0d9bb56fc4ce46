"""Which frameworks there are, and what hvbench must know of one without importing it.

A folder of `hvbench/frameworks` with a `step.py` is a framework; its name is the folder's. Its `__init__.py` may state
the rest as `FRAMEWORK = Framework(…)` and imports nothing but this module; what it leaves out has a default.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

# Points that name no framework mean this one, and the others are compared with it.
FIRST = "pytorch"
FRAMEWORKS: tuple[str, ...] = tuple(
    sorted(
        (path.parent.name for path in Path(__file__).with_name("frameworks").glob("*/step.py")),
        key=lambda name: (name != FIRST, name),
    )
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a framework looks in every plot. Sizes and widths differ, so that coinciding curves show both."""

    colour: str  # in plots that are files: on white, of a colour-blind-safe palette
    page_colour: str  # on a page: at least 3 : 1 against white
    dark_page_colour: str
    marker: str
    marker_size: float = 5
    is_hollow: bool = False
    line: str | tuple[float, tuple[float, ...]] = "-"
    line_width: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a framework keeps in memory, in the units of `hvbench.training.memory`; by default the more of what the twins keep."""

    parameter_values: int = 16  # of S W per block, in the parameters' precision
    compute_values: int = 15  # of S W per block, in the precision of matrix products
    attention_values: int = 1  # of S H T per block
    dropout_values: float = 2  # of S W per block, more with dropout
    dropout_attention_values: float = 3  # of S H T per block, more with dropout
    logits: int = 4  # of S V
    copies_clipped: bool = True
    copies_sums: bool = True
    base_bytes: int = 557 * 2**20
    native_bytes: int = 43 * 2**20  # of the framework's own strategy, beside the base
    native_copies: int = 10  # of the gradients, in that strategy's packs and buffers


@dataclass(frozen=True, kw_only=True)
class Framework:
    """What only a framework knows of itself."""

    title: str  # its own spelling of its name
    module: str  # what must be importable for its points to run
    libraries: tuple[str, ...] = ()  # what its folder alone may import
    distributions: tuple[str, ...] = ()  # packages whose versions belong to the fingerprint of a measurement
    unneeded: tuple[str, ...] = ()  # packages that it imports where there are any, for what no twin uses
    native_strategy: str | None = None  # what its own data parallelism is called
    trace_seconds: float = 0.0  # what tracing or compiling a point takes, roughly; for estimates of time
    look: Look | None = None  # None: one that is still free
    kept: Kept = field(default_factory=Kept)


@cache
def describe_framework(name: str) -> Framework:
    """What the folder of framework `name` says of it, without importing the framework."""
    folder = importlib.import_module(f"hvbench.frameworks.{name}")
    return getattr(folder, "FRAMEWORK", Framework(title=name, module=name))
