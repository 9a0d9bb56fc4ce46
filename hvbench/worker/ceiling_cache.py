"""Ceilings of a machine and version, kept in the user's cache: launches after the first few need not search for them again.

    <cache>/ceilings/KEY-rankN.json     the newest KEPT readings of rank N, each of another launch

KEY is a digest of all that a ceiling depends on: machine, libraries and switches (what a fingerprint compares), hvbench's source, framework,
threads, ranks, and of the point its precision, products, exchange and compression. A rank keeps its own readings, and all ranks use them
or none does. The best product itself is read anew by every launch, which also tells when the machine is no longer as it was. A
cache that is damaged or cannot be written costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from hvbench.errors import HvbenchError
from hvbench.frameworks.contract import Runtime
from hvbench.io.atomic import write_json
from hvbench.io.cache import cache_root
from hvbench.io.untrusted import load_json, read_regular_file
from hvbench.plan.estimates import CEILING_LAUNCHES, ceiling_question
from hvbench.plan.jobs import worker_group
from hvbench.records.environment import describe_environment
from hvbench.records.fingerprint import MACHINE, strip_settings
from hvbench.records.record import Ceiling, Seconds
from hvbench.spec.knob import Count, Spec
from hvbench.spec.point import Point
from hvbench.training.flops import model_facts
from hvbench.training.products import Product
from hvbench.worker.together import Readings

KEPT = CEILING_LAUNCHES  # an interval over launches rests on as many readings
MAX_AGE_SECONDS = 7 * 86400.0
MAX_BYTES = 100_000
# How far a launch's own reading of the best product may be from those kept: in their standard deviations, and at least as a share.
MAX_DEVIATIONS = 4.0
LEAST_DEVIATION = math.log(1.1)


class KeptProduct(Spec):
    """A `hvbench.training.products.Product`."""

    rows: Count
    inner: Count
    columns: Count
    transposed: Literal["none", "left", "right"]

    @classmethod
    def from_product(cls, product: Product) -> Self:
        """What is kept of it: one of them."""
        rows, inner, columns = product.shape
        return cls(rows=rows, inner=inner, columns=columns, transposed=product.transposed)

    def to_product(self) -> Product:
        """The product itself."""
        return Product(**self.model_dump())


class Reading(Spec):
    """What one launch read of one rank's ceilings."""

    moment: Annotated[float, Field(gt=0, lt=1e11)] = Field(description="when, by rank 0's clock: seconds since 1970")
    ceiling: Ceiling
    product: KeptProduct = Field(description="the best, of which `ceiling` has the shape")
    flops: Annotated[int, Field(ge=1)] = Field(description="of the model's products in a micro-batch")
    seconds: Seconds = Field(description="that they take in the point's precision, and in fp32")
    fp32_seconds: Seconds

    @property
    def read_at(self) -> str:
        """The moment as records write it: UTC, ISO 8601, to the millisecond, which tells readings apart."""
        return datetime.fromtimestamp(self.moment, UTC).isoformat(timespec="milliseconds")

    @property
    def log_rate(self) -> float:
        """Mean of the logarithms of this launch's readings of the best product."""
        return log_mean(self.ceiling.together_flops_per_second)


class Kept(Spec):
    """The file of one rank."""

    readings: Annotated[list[Reading], Field(max_length=KEPT)]


@cache
def describe_machine() -> dict[str, Any]:
    """This process's host, libraries and switches, and which hvbench it runs."""
    facts = describe_environment()
    return {name: facts[name] for name in (*MACHINE, "host", "hvbench_source_digest")} | {
        "horovod_settings": strip_settings(facts["horovod_settings"]),
        "controller": os.environ.get("HOROVOD_CONTROLLER"),
    }


def describe_question(point: Point, *, framework: str, runtime: Runtime, threads: int) -> str:
    """Digest, 16 hexadecimal digits, of all that the ceilings of a point depend on in this worker."""
    worker = [framework, runtime.versions(), runtime.device, runtime.world_size, threads]
    exchange = [point.compression, model_facts(point).allreduce_bytes_per_step, *worker_group(point)]
    question = [describe_machine(), worker, ceiling_question(point), exchange]
    return hashlib.sha256(json.dumps(question, sort_keys=True, default=str).encode()).hexdigest()[:16]


class CeilingCache:
    """The kept readings of one question, as this rank's file has them."""

    def __init__(self, question: str, *, rank: int) -> None:
        self.question = question
        self.rank = rank

    def load(self) -> list[Reading]:
        """The readings that are not too old, in the order in which they were made; none where the file says nothing."""
        try:
            content = read_regular_file(self._path, max_bytes=MAX_BYTES)
            kept = Kept.model_validate(load_json(content, where=str(self._path), max_depth=8))
        except (OSError, HvbenchError, ValidationError):
            return []
        now = time.time()
        return [each for each in kept.readings if 0 <= now - each.moment <= MAX_AGE_SECONDS]

    def add(self, reading: Reading) -> None:
        """Keep one more reading, and no more than KEPT of them; files of this folder that are too old go."""
        readings = [*self.load(), reading][-KEPT:]
        with contextlib.suppress(OSError, HvbenchError):  # no home, no space, no permission: it is only a cache
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, Kept(readings=readings).model_dump(), durable=False)
            remove_old(self._path.parent)

    @property
    def _path(self) -> Path:
        return cache_root() / "ceilings" / f"{self.question}-rank{self.rank}.json"


def remove_old(folder: Path) -> None:
    """Remove the files of readings that are too old, such as those of earlier versions."""
    oldest = time.time() - MAX_AGE_SECONDS
    for path in (path for kind in ("*-rank*.json", "*-gemm.json") for path in folder.glob(kind)):
        with contextlib.suppress(OSError):  # another process was faster
            if path.lstat().st_mtime < oldest:
                path.unlink()


def have_all(runtime: Runtime, *facts: Any) -> bool:
    """Whether all ranks say the same; every rank calls it."""
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return len(set(runtime.gather(float(int(digest, 16))))) == 1


def is_within_scatter(rates: Sequence[float], kept: Sequence[Reading]) -> bool:
    """Whether FLOP/s of the best product, read just now, are within the scatter of what earlier launches read."""
    known = [each.log_rate for each in kept]
    return abs(log_mean(rates) - mean(known)) <= max(LEAST_DEVIATION, MAX_DEVIATIONS * stdev(known))


def renew(ceiling: Ceiling, now: Readings, *, read_at: str) -> Ceiling:
    """An earlier launch's ceiling with this one's readings of the best product."""
    own = {"together_flops_per_second": now.together, "alone_flops_per_second": now.alone}
    return ceiling.model_copy(update={**own, "read_at": read_at})


def log_mean(rates: Sequence[float]) -> float:
    """Mean of the logarithms of rates above 0."""
    return mean(map(math.log, rates))
