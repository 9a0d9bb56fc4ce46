"""Ceilings: what this framework and device reach at best, measured in the worker that trains, all ranks at it at once.

The twins offer bare work to be timed (`frameworks/*/ceiling.py`); which work, how often, and what the times mean is
decided here and in `training.products`. A single disturbance does little harm: most figures are a best of few. The largest
of several such readings is a little too high, so the best product is read again, by one rank alone and by all together
(`hvbench.worker.together`). All of it takes a second or more for each combination of precision, `gemm`, model and
micro-batch, and is kept for the rest of the worker's life; and all but the last reading for later launches
(`hvbench.worker.ceiling_cache`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import mean
from typing import Any

from hvbench.frameworks import load_framework
from hvbench.frameworks.contract import Runtime
from hvbench.records.environment import multiplies_natively
from hvbench.records.record import Ceiling
from hvbench.spec.numerics import PRECISIONS, WIRE_FORMATS
from hvbench.spec.point import Point
from hvbench.training.flops import model_facts
from hvbench.training.products import (
    Product,
    allreduce_busbw,
    describe_slowness,
    model_products,
    rounded_elements,
    scaling_bandwidth,
    shrink,
    square,
    total_flops,
    total_seconds,
)
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
from hvbench.worker.together import Readings, Work, read_together

TF32 = "tf32"  # beside the dtypes: float32 operands, rounded by the device
PROBE_SIZE = 256  # even a product in scalar loops ends in a tenth of a second
SQUARE_SIZES = (512, 1024, 2048, 4096, 8192)
MAX_SQUARE_SECONDS = 0.15  # a square that would take longer is not tried
MAX_PRODUCT_SECONDS = 0.03  # of the model's own; of one that would take longer a part is timed
MAX_READ_SECONDS = 0.06  # of the best product; of one that would take longer a part is read
CALL_SECONDS = 2e-3  # least time of one call; shorter work is repeated in it
MAX_REPEATS = 16
BEST_OF = 3
ALLREDUCE_SECONDS = 0.4
MAX_CALLS = 100
ALLREDUCE_MAX_BYTES = 64 * 2**20
SCALED_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20}  # well beyond the caches
PASSES = 8  # over such an array in one call
ROUNDED_ELEMENTS = 2**20
TRANSPOSED = ("none", "left", "right")


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The best rate found and the product that reached it."""

    flops_per_second: float
    product: Product


@dataclass(frozen=True, kw_only=True)
class CeilingRequest:
    """What is asked of a launch's ceilings, beside its point."""

    repeat: int = 0  # of the launch: which of the kept readings it takes
    force_emulated: bool = False  # a precision that is very slow is run, too
    fresh: bool = False  # nothing that is kept is used


@dataclass(frozen=True, kw_only=True)
class ModelRates:
    """A model's own products in one dtype: the best of them, and how long all of a micro-batch usually take."""

    best: Peak
    flops: int
    seconds: float


class Ceilings:
    """Measures the ceilings of a worker's points; what two points have in common is measured once."""

    def __init__(self, framework: str, runtime: Runtime, *, threads: int) -> None:
        self.twin = load_framework(framework, "ceiling")
        self.framework = framework
        self.runtime = runtime
        self.threads = threads
        self._answers: dict[tuple[Any, ...], Any] = {}

    def measure(self, point: Point, request: CeilingRequest) -> tuple[dict[str, Any], str | None]:
        """The fields of `record.Ceiling`, and why the point is skipped or None; every rank calls it and comes to the same decision."""
        self.runtime.barrier()
        facts = {"framework": self.framework, "runtime": self.runtime, "threads": self.threads}
        question = describe_question(point, **facts)
        reading = self._ask_once(lambda: self._look_up(point, question, request), "point", question)
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
            now = self._read_together(peak, dtype=self._dtype(point), gemm=point.gemm)
            is_as_before = is_within_scatter(now.together, kept)
            if self._share_largest(float(not is_as_before)) == 0.0:
                return chosen.model_copy(update={"ceiling": renew(ceiling, now, read_at=chosen.read_at)})
        reading = self._read(point)
        cache.add(reading)
        return reading

    def _dtype(self, point: Point) -> str:
        """What the device multiplies in; an emulated precision has the very products of fp32, between passes that round."""
        precision = PRECISIONS[point.precision]
        is_native = multiplies_natively(precision.compute_dtype, device=self.runtime.device)
        return TF32 if precision.uses_tf32 else precision.compute_dtype if is_native else "float32"

    def _read(self, point: Point) -> Reading:
        """Everything, now."""
        compute_dtype, dtype = PRECISIONS[point.precision].compute_dtype, self._dtype(point)
        is_native = multiplies_natively(compute_dtype, device=self.runtime.device)
        fp32 = self._model_rates(point, "float32")
        own = fp32 if dtype == "float32" else self._model_rates(point, dtype)
        seconds = own.seconds
        if not is_native:
            seconds += rounded_elements(point) * self._rounding_seconds_per_element(compute_dtype)
        fp32_peak = self._peak(point, fp32, dtype="float32")
        peak = self._peak(point, own, dtype=dtype)
        readings = self._read_together(peak, dtype=dtype, gemm=point.gemm)
        busbw, wire_bytes = self._allreduce(point)
        ceiling = Ceiling(
            gemm_flops_per_second=peak.flops_per_second,
            gemm_shape=list(peak.product.shape),
            together_flops_per_second=readings.together,
            alone_flops_per_second=readings.alone,
            model_gemm_flops_per_second=own.flops / own.seconds,
            fp32_gemm_flops_per_second=fp32_peak.flops_per_second,
            memory_bandwidth_bytes_per_second=self._memory_bandwidth(),
            allreduce_busbw_bytes_per_second=busbw,
            allreduce_bytes=wire_bytes,
            is_emulated=not is_native,
        )
        return Reading(
            moment=self.runtime.gather(time.time())[0],
            ceiling=ceiling,
            product=KeptProduct.from_product(peak.product),
            flops=fp32.flops,
            seconds=seconds,
            fp32_seconds=fp32.seconds,
        )

    def _peak(self, point: Point, rates: ModelRates, *, dtype: str) -> Peak:
        """The best over squares and the model's own shapes: the model's products cannot beat it."""
        return max(self._best_square(dtype, point.gemm), rates.best, key=lambda peak: peak.flops_per_second)

    def _read_together(self, peak: Peak, *, dtype: str, gemm: str) -> Readings:
        """Readings of the product that rank 0 found best, or of a part of it if it takes long."""
        part = shrink(peak.product, max_flops=MAX_READ_SECONDS * peak.flops_per_second)
        product, expected_seconds = self._share_product(part, expected_seconds=part.flops / peak.flops_per_second)
        repeats = _repeats(expected_seconds)

        def measure() -> Readings:
            overhead_seconds = self._call_seconds()  # asked first: it multiplies in float32
            with self._prepared(product, repeats=repeats, dtype=dtype, gemm=gemm) as run:
                work = Work(
                    run=run,
                    flops=repeats * product.flops,
                    expected_seconds=repeats * expected_seconds,
                    overhead_seconds=overhead_seconds,
                )
                return read_together(self.runtime, work)

        return self._ask_once(measure, "together", dtype, gemm, product)

    def _share_product(self, product: Product, *, expected_seconds: float) -> tuple[Product, float]:
        """Rank 0's product and what it should take: all ranks ask the same question."""
        values = (*product.shape, TRANSPOSED.index(product.transposed), expected_seconds)
        *sides, seconds = (self.runtime.gather(float(value))[0] for value in values)
        rows, inner, columns, transposed = map(int, sides)
        return Product(rows=rows, inner=inner, columns=columns, transposed=TRANSPOSED[transposed]), seconds

    def _best_square(self, dtype: str, gemm: str) -> Peak:
        def measure() -> Peak:
            probe = square(PROBE_SIZE)
            seconds, _ = self._product_seconds(probe, expected_seconds=CALL_SECONDS, dtype=dtype, gemm=gemm)
            best = Peak(flops_per_second=probe.flops / seconds, product=probe)
            for candidate in map(square, SQUARE_SIZES):
                expected = candidate.flops / best.flops_per_second
                if expected > MAX_SQUARE_SECONDS:
                    break
                seconds, _ = self._product_seconds(candidate, expected_seconds=expected, dtype=dtype, gemm=gemm)
                if candidate.flops / seconds > best.flops_per_second:
                    best = Peak(flops_per_second=candidate.flops / seconds, product=candidate)
            return best

        return self._ask_once(measure, "square", dtype, gemm)

    def _model_rates(self, point: Point, dtype: str) -> ModelRates:
        def measure() -> ModelRates:
            best = self._best_square(dtype, point.gemm)
            products, peaks, rates = model_products(point), [], []
            for product in products:
                part = shrink(product, max_flops=MAX_PRODUCT_SECONDS * best.flops_per_second)
                expected = part.flops / best.flops_per_second
                least, usual = self._product_seconds(part, expected_seconds=expected, dtype=dtype, gemm=point.gemm)
                peaks.append(Peak(flops_per_second=part.flops / least, product=part))
                rates.append(part.flops / usual)
            return ModelRates(
                best=max(peaks, key=lambda peak: peak.flops_per_second),
                flops=total_flops(products),
                seconds=total_seconds(products, rates),
            )

        tokens = point.micro_batch_size * point.sequence_length
        sizes = (point.num_layers, point.hidden_size, point.vocab_size, tokens, point.is_classifier)
        return self._ask_once(measure, "model", dtype, point.gemm, *sizes)

    def _product_seconds(
        self, product: Product, *, expected_seconds: float, dtype: str, gemm: str
    ) -> tuple[float, float]:
        """Seconds of one such product: the least of a few calls, and the mean of all but the first, which also warms up."""
        repeats = _repeats(expected_seconds)
        with self._prepared(product, repeats=repeats, dtype=dtype, gemm=gemm) as run:
            seconds = [self._seconds(run) for _ in range(BEST_OF)]
        least, usual = (self._without_call(value) / repeats for value in (min(seconds), mean(seconds[1:])))
        return least, usual

    @contextlib.contextmanager
    def _prepared(self, product: Product, *, repeats: int, dtype: str, gemm: str) -> Iterator[Callable[[], None]]:
        """A call that multiplies in `dtype` so often; where that is TF32, float32 is rounded to it until the end of the block."""
        operands, device = "float32" if dtype == TF32 else dtype, self.runtime.device
        run = self.twin.prepare_product(product, repeats=repeats, dtype=operands, gemm=gemm, device=device)
        self.runtime.use_tf32(dtype == TF32)
        try:
            yield run
        finally:
            self.runtime.use_tf32(False)

    def _rounding_seconds_per_element(self, dtype: str) -> float:
        def measure() -> float:
            choices = {"repeats": PASSES, "dtype": dtype, "device": self.runtime.device}
            run = self.twin.prepare_rounding(ROUNDED_ELEMENTS, **choices)
            return self._without_call(self._best_seconds(run)) / (PASSES * ROUNDED_ELEMENTS)

        return self._ask_once(measure, "rounding", dtype)

    def _memory_bandwidth(self) -> float:
        def measure() -> float:
            size_bytes = SCALED_BYTES[self.runtime.device]
            runs = [
                self.twin.prepare_scaling(size_bytes // 4, repeats=repeats, device=self.runtime.device)
                for repeats in (1, 1 + PASSES)
            ]
            # The first pass may write to new memory, which costs far more: what counts is each pass after it.
            first, all_passes = (self._best_seconds(run) for run in runs)
            seconds = max(all_passes - first, all_passes / 2)
            return scaling_bandwidth(size_bytes, seconds=seconds / PASSES)

        return self._ask_once(measure, "bandwidth")

    def _allreduce(self, point: Point) -> tuple[float | None, int]:
        """Bus bandwidth, and the bytes that go on the wire for it; None and 0 where one rank is alone."""
        world_size, compression = self.runtime.world_size, point.compression
        if point.is_served:
            return None, 0  # its ranks know no all-reduce
        value_bytes = WIRE_FORMATS[compression].value_bytes
        elements = min(model_facts(point).allreduce_bytes_per_step, ALLREDUCE_MAX_BYTES) // value_bytes

        def measure() -> float:
            run = self.twin.prepare_allreduce(elements, compression=compression, runtime=self.runtime)
            first = self._train_seconds(run, calls=1)  # also makes the connections
            calls = max(1, min(MAX_CALLS, int(ALLREDUCE_SECONDS / BEST_OF / first)))
            seconds = min(self._train_seconds(run, calls=calls) for _ in range(BEST_OF))
            return allreduce_busbw(elements * value_bytes, seconds=seconds, world_size=world_size)

        if not elements:
            return None, 0
        return self._ask_once(measure, "allreduce", elements, compression), elements * value_bytes

    def _train_seconds(self, run: Callable[[], None], *, calls: int) -> float:
        """Seconds of an all-reduce among `calls` that follow each other at once, by the rank for which all took longest.

        One before them, which is not counted, lines the ranks up; the same on all ranks, so that they agree on what follows.
        """

        def repeat() -> None:
            for _ in range(calls):
                run()

        run()
        return self._share_largest(self._seconds(repeat) / calls)

    def _ask_once(self, measure: Callable[[], Any], *question: Any) -> Any:
        """All ranks run the same points, so what one has kept all have kept."""
        if question not in self._answers:
            self._answers[question] = measure()
        return self._answers[question]

    def _share_largest(self, value: float) -> float:
        return max(self.runtime.gather(value))

    def _without_call(self, seconds: float) -> float:
        """Seconds of a call without what calling costs, which training pays once a step and not a product."""
        return max(seconds - self._call_seconds(), seconds / 2)

    def _call_seconds(self) -> float:
        """What calling costs: a call that multiplies next to nothing."""

        def measure() -> float:
            choices = {"dtype": "float32", "gemm": "default", "device": self.runtime.device}
            nothing = self.twin.prepare_product(square(8), repeats=1, **choices)
            return min(self._best_seconds(nothing) for _ in range(BEST_OF))

        return self._ask_once(measure, "call")

    def _best_seconds(self, run: Callable[[], None]) -> float:
        """Least time of a few calls; the first, which also traces and warms up, counts as one of them."""
        return min(self._seconds(run) for _ in range(BEST_OF))

    def _seconds(self, run: Callable[[], None]) -> float:
        self.runtime.synchronize()
        begun = time.perf_counter()
        run()
        self.runtime.synchronize()
        return time.perf_counter() - begun


def _repeats(expected_seconds: float) -> int:
    """How often one call repeats a product that should take so long."""
    return min(MAX_REPEATS, max(1, math.ceil(CALL_SECONDS / expected_seconds)))
