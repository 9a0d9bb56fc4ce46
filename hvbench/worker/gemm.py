"""`gemm = "auto"`: which library multiplies a point's shapes fastest on this machine, decided once and kept.

    <cache>/ceilings/KEY-gemm.json      what rank 0 found for one machine, version, number of threads and set of shapes

KEY leaves out hvbench's own revision and the number of ranks, so that all points of a sweep with these shapes, the arms of `hvbench ab`
and later runs multiply by the same library. All ranks take what rank 0 says. A cache that is damaged or cannot be written costs a
second and, where both libraries are as fast, may cost that agreement; records say which library it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, ValidationError

from hvbench.errors import HvbenchError
from hvbench.frameworks.contract import Runtime
from hvbench.io.atomic import write_json
from hvbench.io.cache import cache_root
from hvbench.io.untrusted import load_json, read_regular_file
from hvbench.plan.estimates import ceiling_question
from hvbench.records.record import Seconds
from hvbench.spec.knob import Spec
from hvbench.spec.numerics import GEMM_LIBRARIES, has_gemm_choice
from hvbench.spec.point import Point
from hvbench.training.products import model_products, total_flops
from hvbench.worker.ceiling_cache import MAX_BYTES, describe_machine, remove_old

LEAST_FLOPS = 1e9  # of a micro-batch's products: of fewer, calling takes more than what libraries differ by
LEAST_GAIN = 1.03  # by which another library has to be faster than the framework's own: less is chance
DEFAULT, *OTHERS = GEMM_LIBRARIES


class GemmChoice(Spec):
    """The library that a point's products are computed by."""

    library: Literal[*GEMM_LIBRARIES]
    seconds: Annotated[dict[str, Seconds], Field(max_length=8)] = Field(
        {}, description="library -> what the products of a micro-batch take; empty where nothing was measured"
    )


class MeasuresLibraries(Protocol):
    """A `LocalCeilings`, in this process or in another."""

    def library_seconds(self, point: Point) -> dict[str, float]:
        """Library -> seconds of the model's products of a micro-batch."""


def is_open(point: Point) -> bool:
    """Whether the library is still to be chosen, as far as the point alone says."""
    return point.gemm == "auto" and has_gemm_choice(point) and total_flops(model_products(point)) >= LEAST_FLOPS


def choose_gemm(point: Point, runtime: Runtime, local: MeasuresLibraries, *, threads: int) -> GemmChoice:
    """What `gemm = "auto"` stands for at `point`, the same on all ranks, which all call it."""
    if not is_open(point) or runtime.device != "cpu":
        return GemmChoice(library=DEFAULT if point.gemm == "auto" else point.gemm)
    seconds = dict.fromkeys(GEMM_LIBRARIES, 0.0)
    if runtime.rank == 0:
        path = cache_root() / "ceilings" / f"{_describe_question(point, runtime, threads=threads)}-gemm.json"
        seconds = _load(path) or local.library_seconds(point)
        _keep(path, seconds)
    seconds = {name: runtime.gather(value)[0] for name, value in seconds.items()}
    return GemmChoice(library=choose_library(seconds), seconds=seconds)


def choose_library(seconds: dict[str, float]) -> str:
    """The fastest library, where it is surely faster than the framework's own."""
    best = min(OTHERS, key=seconds.__getitem__)
    return best if seconds[best] * LEAST_GAIN <= seconds[DEFAULT] else DEFAULT


def _describe_question(point: Point, runtime: Runtime, *, threads: int) -> str:
    no_matter = ("hvbench_source_digest", "horovod_settings", "controller")
    machine = {name: value for name, value in describe_machine().items() if name not in no_matter}
    facts: list[Any] = [machine, runtime.versions(), threads, ceiling_question(point)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _load(path: Path) -> dict[str, float] | None:
    """What was found earlier; None where the file says nothing."""
    try:
        content = read_regular_file(path, max_bytes=MAX_BYTES)
        seconds = GemmChoice.model_validate(load_json(content, where=str(path), max_depth=4)).seconds
    except (OSError, HvbenchError, ValidationError):
        return None
    return seconds if seconds.keys() == GEMM_LIBRARIES.keys() and all(seconds.values()) else None


def _keep(path: Path, seconds: dict[str, float]) -> None:
    """Keep it, as new as its last use: a choice that is in use does not grow old."""
    with contextlib.suppress(OSError, HvbenchError):  # no home, no space, no permission: it is only a cache
        path.parent.mkdir(parents=True, exist_ok=True)
        content = GemmChoice(library=choose_library(seconds), seconds=seconds).model_dump()
        write_json(path, content, durable=False)
        remove_old(path.parent)
