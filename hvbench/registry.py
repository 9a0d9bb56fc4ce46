"""The frameworks, and the facts about each that hvbench needs without importing it.

A framework is a folder of `hvbench/frameworks` with a `trainer.py`; the folder's name is the framework's. Its `__init__.py`
may set `FRAMEWORK = Framework(…)` and imports nothing but this module; every fact has a default.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

# The `framework` of a point that is a script of people's own.
SCRIPT = "script"
# The default of a point's `framework`, and the reference with which the others are compared.
FIRST = "pytorch"
FRAMEWORKS: tuple[str, ...] = tuple(
    sorted(
        (path.parent.name for path in Path(__file__).with_name("frameworks").glob("*/trainer.py")),
        key=lambda name: (name != FIRST, name),
    )
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """A framework's style in every plot. Sizes and widths differ, so that both of two coinciding curves are visible."""

    colour: str  # in plots that are files: on white, of a colour-blind-safe palette
    page_colour: str  # on a page: at least 3 : 1 against white
    dark_page_colour: str
    marker: str
    marker_size: float = 5
    is_hollow: bool = False
    line: str | tuple[float, tuple[float, ...]] = "-"
    line_width: float = 1.0


@dataclass(frozen=True, kw_only=True)
class KeptBlock:
    """What a block of a family of models keeps for its backward pass: in the parameters' precision, in that of products."""

    attention: tuple[int, int]  # of S W, in the attention half
    mlp_input: tuple[int, int]  # of S W, in the other half
    mlp: tuple[int, int]  # of S M, inside the MLP


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Memory that a framework needs, in the units of `hvbench.training.memory`; defaults are the larger of the twins' values."""

    blocks: Mapping[str, KeptBlock] = field(  # by family
        default_factory=lambda: {
            "gpt2": KeptBlock(attention=(2, 5), mlp_input=(2, 1), mlp=(2, 2)),
            "llama": KeptBlock(attention=(2, 8), mlp_input=(2, 1), mlp=(4, 1)),
            "bert": KeptBlock(attention=(2, 5), mlp_input=(2, 1), mlp=(2, 2)),
        }
    )
    attention_values: int = 1  # of S H T per block, of plain attention
    plain_values: int = 15  # of S H T, once, while plain attention is computed
    mlp_values: int = 3  # of S M, once, while an MLP is differentiated
    # Of what is kept more, free places of the heap between it: little is freed between, or as much as is kept.
    holes: tuple[float, float] = (0.35, 0.6)
    strip_rows: int = 256  # R of fused attention, which keeps them of one strip alone; 0: a kernel that keeps none
    strip_values: int = 5  # of H R T per sample, once, while a strip is computed
    dropout_values: float = 2  # of S W per block, more with dropout, one half of it in each half of a block
    dropout_attention_values: float = 3  # of S H T per block, more with dropout
    logits: int = 4  # of S V
    chunk_logits: int = 2  # of C V, in chunks of C tokens
    copies_clipped: bool = True
    copies_sums: bool = True
    average_copies: int = 2  # of what trains, where parameters are averaged: Horovod's buffer, and the graph's
    copies_parts: bool = (
        True  # of parameters, where ranks share moments alone, and of all gradients while they are sent
    )
    base_bytes: int = 597 * 2**20
    native_bytes: int = 68 * 2**20  # of the framework's own strategy, beside the base
    compiler_bytes: int = 157 * 2**20  # of its compiler, likewise
    native_copies: int = 10  # of the gradients, in that strategy's packs and buffers
    # Of the gradients that less is sent of, by compression: the residual, and what one of them needs while it becomes a message.
    feedback_copies: Mapping[str, float] = field(
        default_factory=lambda: {"topk": 1.6, "int8": 2.7, "powersgd": 1.5, "onebit": 2.0}
    )


@dataclass(frozen=True, kw_only=True)
class Framework:
    """The facts about one framework."""

    title: str  # its own spelling of its name
    module: str  # what must be importable for its points to run
    libraries: tuple[str, ...] = ()  # what its folder alone may import
    distributions: tuple[str, ...] = ()  # packages whose versions belong to a record's environment
    unneeded: tuple[str, ...] = ()  # packages that it imports where they are installed, for features that no twin uses
    native_strategy: str | None = None  # the name of its own data parallelism
    native_shards: Mapping[str, str] = field(default_factory=dict)  # by `shard`, the name of its own way to share that
    draws_masks_in_order: bool = False  # a mask of dropout depends on what was drawn before it, not on its place alone
    trace_seconds: float = 0.0  # time of tracing or compiling a point, roughly; for estimates
    compile_seconds: float = 0.0  # of compiling a point, roughly, beside that
    compiler_caches: tuple[
        str, ...
    ] = ()  # variables that name the folders in which its compiler keeps what it has compiled
    look: Look | None = None  # None: a style that no other framework has
    kept: Kept = field(default_factory=Kept)


@cache
def describe_framework(name: str) -> Framework:
    """The facts about framework `name`, from its folder's `__init__.py`, without importing the framework."""
    if name == SCRIPT:
        return Framework(title="the script", module=name)
    folder = importlib.import_module(f"hvbench.frameworks.{name}")
    return getattr(folder, "FRAMEWORK", Framework(title=name, module=name))
