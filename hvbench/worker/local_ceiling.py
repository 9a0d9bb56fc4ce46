"""Ceilings of one process, without the other ranks: its best matrix product, the model's own products, rounding, memory.

The twins offer bare work to be timed (`frameworks/*/ceiling.py`); which work, how often, and what the times mean is
decided here and in `training.products`. A single disturbance does little harm: most figures are a best of few. The largest
of several such readings is a little too high, so the best product is read again (`reading`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import mean, median
from typing import Annotated, Any

from pydantic import Field

from hvbench.frameworks import load_framework
from hvbench.frameworks.contract import Runtime
from hvbench.frameworks.devices import missing_rows
from hvbench.records.environment import multiplies_natively
from hvbench.records.record import Seconds
from hvbench.spec.knob import Spec
from hvbench.spec.numerics import GEMM_LIBRARIES, PRECISIONS, TF32
from hvbench.spec.point import Point
from hvbench.training.products import (
    Product,
    model_products,
    product_question,
    rounded_elements,
    scaling_bandwidth,
    shrink,
    square,
    total_flops,
    total_seconds,
)
from hvbench.worker.ceiling_cache import KeptProduct
from hvbench.worker.together import Call, ReadWindow, read_window, window_seconds

PROBE_SIZE = 256  # even a product in scalar loops ends in a tenth of a second
SQUARE_SIZES = (512, 1024, 2048, 4096, 8192)
MAX_SQUARE_SECONDS = 0.15  # a square that would take longer is not tried
MAX_PRODUCT_SECONDS = 0.03  # of the model's own; of one that would take longer a part is timed
CALL_SECONDS = 2e-3  # least time of one call; shorter work is repeated in it
MAX_REPEATS = 16
BEST_OF = 3
SCALED_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20}  # well beyond the caches
PASSES = 8  # over such an array in one call
ROUNDED_ELEMENTS = 2**20


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The best rate found and the product that reached it."""

    flops_per_second: float
    product: Product


@dataclass(frozen=True, kw_only=True)
class ModelRates:
    """A model's own products in one dtype: the best of them, and how long all of a micro-batch usually take."""

    best: Peak
    flops: int
    seconds: float


class Found(Spec):
    """What one process found for a point."""

    product: KeptProduct = Field(description="the best")
    gemm_flops_per_second: float = Field(gt=0, description="of the best product, in the point's precision")
    fp32_gemm_flops_per_second: float = Field(gt=0, description="of the best in fp32")
    flops: Annotated[int, Field(ge=1)] = Field(description="of the model's products in a micro-batch")
    product_seconds: Seconds = Field(description="that they take in the precision, or where it is emulated in fp32")
    seconds: Seconds = Field(description="the same with what rounding to an emulated precision costs")
    fp32_seconds: Seconds
    memory_bandwidth_bytes_per_second: float = Field(gt=0)


class Work(Spec):
    """A product to be read, and how long it should take: the same on every rank."""

    product: KeptProduct
    expected_seconds: float = Field(gt=0, description="of the product, not of a call")
    dtype: str
    gemm: str

    @property
    def repeats(self) -> int:
        """How often one call repeats the product."""
        return _repeats(self.expected_seconds)

    @property
    def call_seconds(self) -> float:
        """How long one call should take."""
        return self.repeats * self.expected_seconds

    @property
    def window_seconds(self) -> float:
        """Of one reading."""
        return window_seconds(self.call_seconds)


class Answers:
    """What has been measured, each question once."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], Any] = {}

    def ask(self, measure: Callable[[], Any], *question: Any) -> Any:
        """What `measure` returned when the question was new."""
        if question not in self._kept:
            self._kept[question] = measure()
        return self._kept[question]

    def forget(self, *question: Any) -> None:
        """The question is new again."""
        self._kept.pop(question, None)


class LocalCeilings:
    """Measures what this process reaches; what two points have in common is measured once."""

    def __init__(self, framework: str, runtime: Runtime) -> None:
        self.twin = load_framework(framework, "ceiling")
        self.runtime = runtime
        self._answers = Answers()

    def search(self, point: Point) -> Found:
        """Everything that one process can find out for `point`."""
        compute_dtype, dtype = PRECISIONS[point.precision].compute_dtype, device_dtype(point, self.runtime.device)
        fp32 = self._model_rates(point, "float32")
        own = fp32 if dtype == "float32" else self._model_rates(point, dtype)
        seconds = own.seconds
        if not multiplies_natively(compute_dtype, device=self.runtime.device):
            seconds += rounded_elements(point) * self._rounding_seconds_per_element(compute_dtype)
        fp32_peak = self._peak(point, fp32, dtype="float32")
        peak = self._peak(point, own, dtype=dtype)
        return Found(
            product=KeptProduct.from_product(peak.product),
            gemm_flops_per_second=peak.flops_per_second,
            fp32_gemm_flops_per_second=fp32_peak.flops_per_second,
            flops=own.flops,
            product_seconds=own.seconds,
            seconds=seconds,
            fp32_seconds=fp32.seconds,
            memory_bandwidth_bytes_per_second=self._memory_bandwidth(),
        )

    def library_seconds(self, point: Point) -> dict[str, float]:
        """Library -> seconds of the model's fp32 products of a micro-batch: what `gemm` chooses among.

        The libraries take turns at each product, so that what disturbs one disturbs all.
        """
        expected_rate = self._best_square("float32", "default").flops_per_second
        seconds = dict.fromkeys(GEMM_LIBRARIES, 0.0)
        for product in model_products(point):
            part = shrink(product, max_flops=MAX_PRODUCT_SECONDS * expected_rate)
            choices = {
                "repeats": _repeats(part.flops / expected_rate),
                "dtype": "float32",
                "device": self.runtime.device,
            }
            runs = {name: self.twin.prepare_product(part, gemm=name, **choices) for name in GEMM_LIBRARIES}
            readings: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(1 + BEST_OF):  # the first warms up
                for name, run in runs.items():
                    readings[name].append(time_run(self.runtime, run))
            for name, values in readings.items():
                share = product.count * product.flops / (part.flops * choices["repeats"])
                seconds[name] += share * median(values[1:])
        return seconds

    @contextlib.contextmanager
    def reading(self, work: Work) -> Iterator[ReadWindow]:
        """A function that reads one window of `work`, until the end of the block."""
        overhead_seconds = self._call_seconds()  # asked first: it multiplies in float32
        product = work.product.to_product()
        with self._prepared(product, repeats=work.repeats, dtype=work.dtype, gemm=work.gemm) as run:

            def run_to_its_end() -> None:
                run()
                self.runtime.synchronize()

            call = Call(
                run=run_to_its_end,
                flops=work.repeats * product.flops,
                expected_seconds=work.call_seconds,
                overhead_seconds=overhead_seconds,
            )
            call.run()  # traces and compiles; in its first window a rank would do so while others multiply
            yield lambda: read_window(call)

    def _peak(self, point: Point, rates: ModelRates, *, dtype: str) -> Peak:
        """The best over squares and the model's own shapes: the model's products cannot beat it."""
        return max(self._best_square(dtype, point.gemm), rates.best, key=lambda peak: peak.flops_per_second)

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

        return self._answers.ask(measure, "square", dtype, gemm)

    def _model_rates(self, point: Point, dtype: str) -> ModelRates:
        def measure() -> ModelRates:
            best = self._best_square(dtype, point.gemm)
            padding = missing_rows(point.vocab_size, dtype=dtype, device=self.runtime.device)
            padded = point.model_copy(update={"vocab_size": point.vocab_size + padding})
            products, peaks, rates = model_products(padded), [], []
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

        return self._answers.ask(measure, "model", dtype, point.gemm, *product_question(point))

    def _product_seconds(
        self, product: Product, *, expected_seconds: float, dtype: str, gemm: str
    ) -> tuple[float, float]:
        """Seconds of one such product: the least of a few calls, and the mean of all but the first, which also warms up."""
        repeats = _repeats(expected_seconds)
        with self._prepared(product, repeats=repeats, dtype=dtype, gemm=gemm) as run:
            seconds = [time_run(self.runtime, run) for _ in range(BEST_OF)]
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

        return self._answers.ask(measure, "rounding", dtype)

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

        return self._answers.ask(measure, "bandwidth")

    def _without_call(self, seconds: float) -> float:
        """Seconds of a call without what calling costs, which training pays once a step and not a product."""
        return max(seconds - self._call_seconds(), seconds / 2)

    def _call_seconds(self) -> float:
        """What calling costs: a call that multiplies next to nothing."""

        def measure() -> float:
            choices = {"dtype": "float32", "gemm": "default", "device": self.runtime.device}
            nothing = self.twin.prepare_product(square(8), repeats=1, **choices)
            return min(self._best_seconds(nothing) for _ in range(BEST_OF))

        return self._answers.ask(measure, "call")

    def _best_seconds(self, run: Callable[[], None]) -> float:
        """Least time of a few calls; the first, which also traces and warms up, counts as one of them."""
        return min(time_run(self.runtime, run) for _ in range(BEST_OF))


def device_dtype(point: Point, device: str) -> str:
    """What the device multiplies in; an emulated precision has the very products of fp32, between passes that round."""
    precision = PRECISIONS[point.precision]
    is_native = multiplies_natively(precision.compute_dtype, device=device)
    return precision.product_dtype if is_native else "float32"


def _repeats(expected_seconds: float) -> int:
    """How often one call repeats a product that should take so long."""
    return min(MAX_REPEATS, max(1, math.ceil(CALL_SECONDS / expected_seconds)))


def time_run(runtime: Runtime, run: Callable[[], None]) -> float:
    """Seconds of one call, from an idle device to an idle device."""
    runtime.synchronize()
    begun = time.perf_counter()
    run()
    runtime.synchronize()
    return time.perf_counter() - begun
