"""Ceilings: what this framework and device reach at best, all ranks at it at once.

One process's own (products, memory) are measured by `hvbench.worker.local_ceiling`, on a processor in a process beside the
worker (`hvbench.worker.ceiling_process`); what ranks do together, and who uses what, is decided here. The best product is read again, by one
rank alone and by all together (`hvbench.worker.together`). All of it takes a second or more for each combination of precision, `gemm`, model and
micro-batch, and is kept for the rest of the worker's life; and all but the last reading for later launches
(`hvbench.worker.ceiling_cache`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from hvbench.frameworks import load_framework
from hvbench.frameworks.contract import Runtime
from hvbench.records.environment import multiplies_natively
from hvbench.records.record import Ceiling
from hvbench.spec.compression import WIRE_FORMATS
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.flops import model_facts
from hvbench.training.products import Product, allreduce_busbw, describe_slowness, shrink
from hvbench.worker.ceiling_cache import (
    KEPT,
    CeilingCache,
    KeptProduct,
    Reading,
    describe_question,
    have_all,
    is_within_scatter,
    renew,
)
from hvbench.worker.local_ceiling import BEST_OF, Answers, Found, Peak, Work, device_dtype, time_run
from hvbench.worker.together import Readings, ReadWindow, read_together

MAX_READ_SECONDS = 0.03  # of the best product; of one that would take longer a part is read
ALLREDUCE_SECONDS = 0.4
MAX_CALLS = 100
ALLREDUCE_MAX_BYTES = 64 * 2**20
TRANSPOSED = ("none", "left", "right")


class Local(Protocol):
    """Measures what one process reaches, in this one or in another."""

    def search(self, point: Point) -> Found:
        """Everything that one process can find out for `point`."""

    def library_seconds(self, point: Point) -> dict[str, float]:
        """Library that `gemm` may name -> seconds of the model's products of a micro-batch."""

    def reading(self, work: Work) -> AbstractContextManager[ReadWindow]:
        """A function that reads one window of `work`, until the end of the block."""


@dataclass(frozen=True, kw_only=True)
class CeilingRequest:
    """What is asked of a launch's ceilings, beside its point."""

    repeat: int = 0  # of the launch: which of the kept readings it takes
    force_emulated: bool = False  # a precision that is very slow is run, too
    fresh: bool = False  # nothing that is kept is used


class Ceilings:
    """Measures the ceilings of a worker's points; what two points have in common is measured once."""

    def __init__(self, framework: str, runtime: Runtime, *, threads: int, local: Local) -> None:
        self.twin = load_framework(framework, "ceiling")
        self.local = local
        self.framework = framework
        self.runtime = runtime
        self.threads = threads
        self._answers = Answers()  # all ranks run the same points: what one has kept all have kept

    def measure(self, point: Point, request: CeilingRequest) -> tuple[dict[str, Any], str | None]:
        """The fields of `record.Ceiling`, and why the point is skipped or None; every rank calls it and comes to the same decision."""
        self.runtime.barrier()
        facts = {"framework": self.framework, "runtime": self.runtime, "threads": self.threads}
        question = describe_question(point, **facts)
        reading = self._answers.ask(lambda: self._look_up(point, question, request), "point", question)
        slowness = describe_slowness(
            precision=point.precision,
            flops=reading.flops,
            seconds=self._share_largest(reading.seconds),
            fp32_seconds=self._share_largest(reading.fp32_seconds),
            is_emulated=reading.ceiling.is_emulated,
            is_forced=request.force_emulated,
        )
        return reading.ceiling.model_dump(), slowness

    def _look_up(self, point: Point, question: str, request: CeilingRequest) -> Reading:
        """What enough earlier launches have read, if the best product is still as fast; else read by this one, and kept."""
        cache = CeilingCache(question, rank=self.runtime.rank)
        if not have_all(self.runtime, question):
            return self._read(point)  # ranks that differ, or on several hosts: none of them knows what the others kept
        kept = [] if request.fresh else cache.load()
        if have_all(self.runtime, [each.moment for each in kept]) and len(kept) == KEPT:
            chosen = kept[request.repeat % KEPT]
            ceiling = chosen.ceiling
            peak = Peak(flops_per_second=ceiling.gemm_flops_per_second, product=chosen.product.to_product())
            for is_again in (False, True):  # a disturbed window is cheaper to read again than everything
                now = self._read_together(peak, point, is_again=is_again)
                is_as_before = is_within_scatter(now.together, kept)
                if self._share_largest(float(not is_as_before)) == 0.0:
                    return chosen.model_copy(update={"ceiling": renew(ceiling, now, read_at=chosen.read_at)})
        reading = self._read(point)
        cache.add(reading)
        return reading

    def _read(self, point: Point) -> Reading:
        """Everything, now."""
        found = self.local.search(point)
        peak = Peak(flops_per_second=found.gemm_flops_per_second, product=found.product.to_product())
        readings = self._read_together(peak, point)
        busbw, wire_bytes = self._allreduce(point)
        ceiling = Ceiling(
            gemm_flops_per_second=peak.flops_per_second,
            gemm_shape=list(peak.product.shape),
            together_flops_per_second=readings.together,
            alone_flops_per_second=readings.alone,
            model_gemm_flops_per_second=found.flops / found.product_seconds,
            fp32_gemm_flops_per_second=found.fp32_gemm_flops_per_second,
            memory_bandwidth_bytes_per_second=found.memory_bandwidth_bytes_per_second,
            allreduce_busbw_bytes_per_second=busbw,
            allreduce_bytes=wire_bytes,
            is_emulated=not multiplies_natively(PRECISIONS[point.precision].compute_dtype, device=self.runtime.device),
        )
        return Reading(
            moment=self.runtime.gather(time.time())[0],
            ceiling=ceiling,
            product=found.product,
            flops=found.flops,
            seconds=found.seconds,
            fp32_seconds=found.fp32_seconds,
        )

    def _read_together(self, peak: Peak, point: Point, *, is_again: bool = False) -> Readings:
        """Readings of the product that rank 0 found best, or of a part of it if it takes long; `is_again`: new ones."""
        part = shrink(peak.product, max_flops=MAX_READ_SECONDS * peak.flops_per_second)
        product, expected_seconds = self._share_product(part, expected_seconds=part.flops / peak.flops_per_second)
        dtype = device_dtype(point, self.runtime.device)
        choices = {"expected_seconds": expected_seconds, "dtype": dtype, "gemm": point.gemm}
        work = Work(product=KeptProduct.from_product(product), **choices)

        def measure() -> Readings:
            with self.local.reading(work) as read:
                return read_together(self.runtime, read, seconds=work.window_seconds)

        question = ("together", dtype, point.gemm, product)
        if is_again:
            self._answers.forget(*question)
        return self._answers.ask(measure, *question)

    def _share_product(self, product: Product, *, expected_seconds: float) -> tuple[Product, float]:
        """Rank 0's product and what it should take: all ranks ask the same question."""
        values = (*product.shape, TRANSPOSED.index(product.transposed), expected_seconds)
        *sides, seconds = (self.runtime.gather(float(value))[0] for value in values)
        rows, inner, columns, transposed = map(int, sides)
        return Product(rows=rows, inner=inner, columns=columns, transposed=TRANSPOSED[transposed]), seconds

    def _allreduce(self, point: Point) -> tuple[float | None, int]:
        """Bus bandwidth, and the bytes that go on the wire for it; None and 0 where one rank is alone."""
        world_size = self.runtime.world_size
        # Of what sends a part of the gradients the ceiling is that of as many bytes: the wire's own.
        compression = point.compression if point.compression in WIRE_FORMATS else "none"
        if point.is_served:
            return None, 0  # its ranks know no all-reduce
        value_bytes = WIRE_FORMATS[compression].value_bytes
        exchanged_bytes = model_facts(point).allreduce_bytes_per_step * point.sync_every
        elements = min(exchanged_bytes, ALLREDUCE_MAX_BYTES) // value_bytes

        def measure() -> float:
            run = self.twin.prepare_allreduce(elements, compression=compression, runtime=self.runtime)
            first = self._train_seconds(run, calls=1)  # also makes the connections
            calls = max(1, min(MAX_CALLS, int(ALLREDUCE_SECONDS / BEST_OF / first)))
            seconds = min(self._train_seconds(run, calls=calls) for _ in range(BEST_OF))
            return allreduce_busbw(elements * value_bytes, seconds=seconds, world_size=world_size)

        if not elements:
            return None, 0
        return self._answers.ask(measure, "allreduce", elements, compression), elements * value_bytes

    def _train_seconds(self, run: Callable[[], None], *, calls: int) -> float:
        """Seconds of an all-reduce among `calls` that follow each other at once, by the rank for which all took longest.

        One before them, which is not counted, lines the ranks up; the same on all ranks, so that they agree on what follows.
        """

        def repeat() -> None:
            for _ in range(calls):
                run()

        run()
        return self._share_largest(time_run(self.runtime, repeat) / calls)

    def _share_largest(self, value: float) -> float:
        return max(self.runtime.gather(value))
