"""Compilation and recomputation: when a point cannot have them, which workers train it, what they add to estimates."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from hvbench.analysis.show.panels import describe_value
from hvbench.parity.run import launched_as
from hvbench.plan import skip
from hvbench.plan.estimates import estimate_seconds
from hvbench.plan.jobs import Job, worker_group
from hvbench.plan.skip import reason_to_skip, why_no_compiler
from hvbench.registry import FRAMEWORKS, describe_framework
from hvbench.spec.point import Point, in_framework
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import parse_suite
from hvbench.training.loss_chunks import CHUNK_TOKENS, loss_chunk


def reason(**fields: Any) -> str | None:
    """Why such a point of one rank is skipped."""
    return reason_to_skip(Point(model="tiny", world_size=1, **fields), world_size=1)


@pytest.fixture(autouse=True)
def complete_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place where everything is installed, without a GPU, whose processor multiplies in every dtype."""
    monkeypatch.setenv("CXX", sys.executable)  # any program that is there
    monkeypatch.setattr(skip, "is_installed", lambda framework: True)
    monkeypatch.setattr(skip, "has_gpu", lambda: False)
    monkeypatch.setattr(skip, "multiplies_natively", lambda dtype, device: True)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("framework", "choice"), [("pytorch", "default"), ("pytorch", "max"), ("tensorflow", "default")]
)
def test_a_complete_place_compiles(framework: str, choice: str, precision: str) -> None:
    assert reason(framework=framework, compile=choice, precision=precision) is None


def test_a_mode_that_one_compiler_has_is_skipped_for_the_other() -> None:
    """What is equal to `default` is not measured twice under two names."""
    line = "compile max is torch.compile's search for the fastest kernels: XLA has one mode, compile default"
    assert reason(framework="tensorflow", compile="max") == line
    choices = {"none": "none", "default": "default", "max": "default"}  # beside which parity is checked
    assert {choice: in_framework(Point(compile=choice), "tensorflow").compile for choice in choices} == choices


@pytest.mark.parametrize(
    ("variable", "device", "missing"),
    [
        ("CXX", "cpu", "needs a C++ compiler, and there is no nowhere"),
        ("CC", "cuda", "needs a C compiler, and there is no nowhere"),
    ],
)
def test_a_missing_compiler_skips_the_point_with_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, device: str, missing: str
) -> None:
    monkeypatch.setenv(variable, "nowhere")
    monkeypatch.setattr(skip, "find_spec", lambda name: name)
    monkeypatch.setattr(skip, "why_no_cuda", lambda framework: None)
    monkeypatch.setenv("PATH", "/nowhere")  # no clang either
    assert why_no_compiler("pytorch", device) == missing
    assert reason(compile="max", device=device) == f"compile max {missing}"
    assert reason(device=device) is None
    assert why_no_compiler("tensorflow", device) is None, "XLA is part of it"


def test_a_gpu_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skip, "find_spec", lambda name: None)
    monkeypatch.setattr(skip, "why_no_cuda", lambda framework: None)
    line = "compile default needs Triton, which comes with PyTorch's builds for GPUs, and it is not installed"
    assert reason(compile="default", device="cuda") == line
    assert reason(compile="default", device="auto") == line, "which trains on the GPU, too"
    assert reason(compile="default", device="cpu") is None
    assert reason(compile="default", framework="tensorflow", device="cuda") is None


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_emulated_precision_is_not_compiled(monkeypatch: pytest.MonkeyPatch, framework: str) -> None:
    monkeypatch.setattr(skip, "multiplies_natively", lambda dtype, device: device == "cuda" or dtype == "float32")
    line = "compile default: compilers take out the roundings by which this processor emulates bf16"
    assert reason(framework=framework, compile="default", precision="bf16") == line
    assert reason(framework=framework, compile="default") is None
    assert reason(framework=framework, precision="bf16") is None


def test_workers_that_compile_train_nothing_else_but_traces_share_them() -> None:
    """A compiler's memory would be counted in the points that follow; a trace holds none."""
    plain, compiled = Point(world_size=1), Point(world_size=1, compile="default")
    assert worker_group(plain) != worker_group(compiled)
    assert worker_group(launched_as(plain)) == worker_group(launched_as(compiled))
    assert worker_group(plain) == worker_group(Point(world_size=1, recompute="block"))


def test_a_chunk_larger_than_a_micro_batch_is_skipped_with_one_line() -> None:
    line = "loss_chunk_tokens 257 is more than the 256 tokens of a micro-batch"  # 8 x 32
    assert reason(loss_chunk_tokens=257) == line
    assert reason(loss_chunk_tokens=256) is reason(loss_chunk_tokens=0) is reason() is None, "one that is left out fits"


def test_logits_are_chunked_where_that_was_measured_or_asked_for() -> None:
    chunks = {"cpu": loss_chunk(Point(), device="cpu"), "cuda": loss_chunk(Point(), device="cuda")}
    assert chunks == {"cpu": CHUNK_TOKENS, "cuda": 0}
    assert (
        loss_chunk(Point(compile="default"), device="cpu") == loss_chunk(Point(loss_chunk_tokens=0), device="cpu") == 0
    )
    assert loss_chunk(Point(objective="classification"), device="cpu") == 0
    assert loss_chunk(Point(loss_chunk_tokens=64, compile="default"), device="cuda") == 64


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_estimates_of_time_know_both(framework: str) -> None:
    def seconds(**fields: Any) -> float:
        return estimate_seconds(
            Job(point=Point(framework=framework, world_size=1, **fields), repeat=0), MeasureSettings()
        )

    facts = describe_framework(framework)
    assert seconds(compile="default") - seconds() == pytest.approx(facts.compile_seconds) and facts.compile_seconds > 0
    usual, attention, block = (seconds(recompute=part) for part in ("none", "attention", "block"))
    assert usual < attention < block < 4 / 3 * usual, "a forward pass is a third of a step"


def test_values_in_words_and_in_a_suite() -> None:
    words = {
        ("compile", "none"): "not compiled", ("compile", "default"): "compiled", ("compile", "max"): "compiled, max",
        ("recompute", "none"): "all activations kept", ("recompute", "attention"): "attention recomputed",
        ("attention", "plain"): "plain attention",
        ("loss_chunk_tokens", 0): "logits whole", ("loss_chunk_tokens", 96): "logits of 96 tokens at a time",
    }  # fmt: skip
    assert {key: describe_value(*key, emulated=frozenset()) for key in words} == words
    suite = parse_suite(
        'question = "?"\n[axes]\nrecompute = ["none", "block"]\ncompile = ["none", "max"]', name="a", where="a"
    )
    assert [(point.recompute, point.compile) for point in suite.points()] == [
        ("none", "none"), ("none", "max"), ("block", "none"), ("block", "max"),
    ]  # fmt: skip
