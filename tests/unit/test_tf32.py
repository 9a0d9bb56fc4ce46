"""fp32 is IEEE float32 everywhere, and tf32 a precision of its own: switches, environment variables, plans, ceilings."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hvbench.analysis.topics.parity.agreement import LOSS_TOLERANCES
from hvbench.errors import UsageError
from hvbench.frameworks.tf32 import require_tf32
from hvbench.launch.session import join_launch
from hvbench.plan.skip import reason_to_skip, why_no_tf32
from hvbench.records.float32 import SETTINGS, require_ieee_float32
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.memory import estimate_memory
from hvbench.training.products import Product
from hvbench.worker import ceiling, local_ceiling, together


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in SETTINGS
        for value in ("1", "TF32", "bf16", "ANY", "true")
        if value not in SETTINGS[name][0]
    ],
)
def test_a_variable_that_changes_what_fp32_is_is_refused_in_one_line(name: str, value: str) -> None:
    with pytest.raises(UsageError) as raised:
        require_ieee_float32({name: value})
    message = str(raised.value)
    assert message.startswith(f"{name}={value}: with it ") and "unset it" in message and "\n" not in message
    assert all(f"set it to {word}" in message for word in SETTINGS[name][0])


@pytest.mark.parametrize("name", SETTINGS)
def test_a_variable_that_leaves_float32_as_it_is_is_obeyed(name: str) -> None:
    for value in ("", " ", *SETTINGS[name][0], *(word.lower() for word in SETTINGS[name][0])):
        require_ieee_float32({name: value, "PATH": "/bin"})


def test_no_launch_begins_with_such_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with (
        pytest.raises(UsageError, match=r'^NVIDIA_TF32_OVERRIDE=1: .*precision = "tf32" asks for TF32$'),
        join_launch(1),
    ):
        pytest.fail("the launch began")


@pytest.mark.parametrize(
    ("capability", "override", "words"),
    [
        (None, None, "compute capability 8.0 and later; there is none here"),
        ((7, 5), None, "here it is 7.5"),
        ((8, 0), None, None),
        ((12, 1), None, None),
        ((9, 0), "0", "NVIDIA_TF32_OVERRIDE=0 switches TF32 off"),
    ],
)
def test_a_host_has_tf32_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, override: str | None, words: str | None
) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if override:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    reason = why_no_tf32(capability)
    assert (reason is None) if words is None else words in reason


@pytest.mark.parametrize(
    ("device", "capability", "words"),
    [
        ("cpu", None, "the device of this rank is cpu"),
        ("cuda", (7, 0), "compute capability 7.0"),
        ("cuda", (8, 6), None),
        ("cuda", None, None),
    ],
)
def test_a_rank_that_cannot_multiply_in_tf32_says_so(
    device: str, capability: tuple[int, int] | None, words: str | None
) -> None:
    if words is None:
        require_tf32(device, capability=capability)
        return
    with pytest.raises(RuntimeError, match=words):
        require_tf32(device, capability=capability)


def test_tf32_is_skipped_with_its_reason_and_never_trained_as_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(**fields: Any) -> str | None:
        return reason_to_skip(Point(model="tiny", precision="tf32", world_size=1, **fields), world_size=1)

    assert reason(device="cpu") == "precision tf32 is a mode of NVIDIA's GPUs, and device is cpu"
    assert reason(gemm="onednn") == "gemm onednn is a choice of PyTorch's fp32 products on a CPU"
    monkeypatch.setattr("hvbench.plan.skip.least_compute_capability", lambda: (7, 5))
    assert reason().endswith("; here it is 7.5")
    monkeypatch.setattr("hvbench.plan.skip.least_compute_capability", lambda: (9, 0))
    monkeypatch.setattr("hvbench.plan.skip.why_no_cuda", lambda framework: f"{framework} is a build for CPUs")
    assert reason() == "precision tf32: pytorch is a build for CPUs"
    monkeypatch.setattr("hvbench.plan.skip.why_no_cuda", lambda framework: None)
    assert reason() is None


def test_every_precision_is_known_wherever_precisions_are_told_apart() -> None:
    assert LOSS_TOLERANCES.keys() == PRECISIONS.keys()
    assert [name for name, precision in PRECISIONS.items() if precision.uses_tf32] == ["tf32"]


def test_tf32_takes_the_memory_of_fp32() -> None:
    fp32, tf32 = (
        estimate_memory(Point(model="small", precision=name, world_size=1), is_native=True) for name in ("fp32", "tf32")
    )
    assert fp32 == tf32


class Gpu:
    """A runtime and a twin's `ceiling` in one: notes of each product its operands' dtype, and whether TF32 was on."""

    device, rank, world_size = "cuda", 0, 1

    def __init__(self) -> None:
        self.is_on = False
        self.products: set[tuple[str, bool]] = set()

    def use_tf32(self, is_on: bool) -> None:
        self.is_on = is_on

    def prepare_product(self, product: Product, *, dtype: str, **_: Any) -> Callable[[], None]:
        def run() -> None:
            self.products.add((dtype, self.is_on))

        return run

    def versions(self) -> dict[str, str]:
        return {}

    def synchronize(self) -> None:
        pass

    def barrier(self) -> None:
        pass

    def gather(self, value: float) -> list[float]:
        return [value]


@pytest.mark.parametrize(
    ("precision", "products"),
    [
        ("fp32", {("float32", False)}),
        ("tf32", {("float32", False), ("float32", True)}),
        ("bf16", {("float32", False), ("bfloat16", False)}),
    ],
)
def test_ceilings_multiply_in_the_points_precision_and_fp32_without_tf32(
    monkeypatch: pytest.MonkeyPatch, precision: str, products: set[tuple[str, bool]], tmp_path: Path
) -> None:
    gpu = Gpu()
    monkeypatch.setenv("HVBENCH_CACHE", str(tmp_path))
    for module in (ceiling, local_ceiling):
        monkeypatch.setattr(module, "load_framework", lambda framework, module: gpu)
    monkeypatch.setattr(local_ceiling.LocalCeilings, "_memory_bandwidth", lambda self: 1.0)
    monkeypatch.setattr(local_ceiling, "SQUARE_SIZES", (512,))
    clock = SimpleNamespace(perf_counter=iter(range(10**9)).__next__, time=time.time)
    for module in (ceiling, local_ceiling, together):
        monkeypatch.setattr(module, "time", clock)
    point = Point(framework="pytorch", model="tiny", precision=precision, world_size=1)
    local = local_ceiling.LocalCeilings("pytorch", gpu)
    ceiling.Ceilings("pytorch", gpu, threads=1, local=local).measure(point, ceiling.CeilingRequest())
    assert gpu.products == products and not gpu.is_on
