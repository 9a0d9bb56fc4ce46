"""The benchmark on a GPU: its arithmetic by hand, what it refuses, and a small run of it on a processor."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import CONTENDERS, describe_left_out, main, parse_arguments, plan_cases
from benchmarks.gpu_race import knobs_of, parse_name
from benchmarks.gpu_stream import shorten, summarize_stream
from benchmarks.gpu_tables import rate_rows, to_markdown, wait_rows
from hvbench.errors import UsageError
from tests import patience

ROOT = Path(__file__).parents[2]


def test_the_device_is_busy_where_kernels_overlap_and_waits_where_none_runs() -> None:
    # Two steps: 0-10 and 5-12 overlap, a pause of 8 before `gemm`, one of 2 before `norm`, another of 1 before `gemm`.
    spans = [(20, 30, "gemm"), (0, 10, "copy"), (5, 12, "add"), (32, 40, "norm"), (41, 45, "gemm")]
    stream = summarize_stream(spans, steps=2)
    assert stream.busy_seconds == pytest.approx((12 + 10 + 8 + 4) / 2 * 1e-6)
    assert stream.kernels == 2.5
    assert stream.kernel_seconds == pytest.approx(
        {"gemm": 14e-6 / 2, "copy": 10e-6 / 2, "norm": 8e-6 / 2, "add": 7e-6 / 2}
    )
    waits = {"between add and gemm": 8e-6 / 2, "between gemm and norm": 2e-6 / 2, "between norm and gemm": 1e-6 / 2}
    assert stream.gap_seconds == pytest.approx(waits)
    assert summarize_stream([], steps=2).busy_seconds == 0.0


def test_kernels_are_named_without_namespaces() -> None:
    long = "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<at::native::(anonymous namespace)::Meta<1>, x>(y)"
    assert shorten(long) == "multi_tensor_apply_kernel<Meta<1>, x>"
    assert shorten("Memset (Device)") == "Memset" and shorten("(x)") == "(x)"


def make_race(**changes: Any) -> dict[str, Any]:
    """Two rounds of one contender: 1000 tokens in steps of 10 ms, 50 J a round of 10 steps."""
    case = {"model": "tiny", "precision": "bf16", "sequence_length": 100, "micro_batch_size": 10}
    turn = {"contender": "pytorch", "parameters": 7, "tokens_per_step": 1000, "warmup_steps": 0, "loss": [1.0] * 10}
    turn |= {"step_seconds": [0.01] * 10, "cpu_seconds": [0.01] * 10, "joules": 50.0}
    facts = {"first_step_seconds": 2.0, "first_loss": 5.5, "peak_device_memory_bytes": 3 * 2**30, "build_seconds": 0.1}
    stream = {"busy_seconds": 0.008, "kernels": 90.0, "gap_seconds": {"between add and copy": 0.001}}
    return {
        "case": case,
        "model_flops_per_token": 4_000_000,
        "ceilings": {"gemm_flops_per_second": 1e12},
        "contenders": {"pytorch": {**facts, "stream": stream}},
        "failed": {},
        "compiling_seconds": {},
        "launches": [{**case, **turn, "round": number} for number in range(2)],
        **changes,
    }


def test_utilization_memory_energy_and_waiting_by_hand() -> None:
    race = make_race(failed={"huggingface": "OutOfMemoryError: too large"})
    (row,) = rate_rows(race)
    assert (row["tokens/s"], row["MFU (%)"], row["peak memory (GiB)"]) == ("100,000", "40.0", "3.0")  # 1e5 * 4e6 / 1e12
    assert row["mJ a token"] == "5.00"  # 100 J for 20 steps of 1000 tokens
    (wait,) = wait_rows(race)
    assert (wait["step (ms)"], wait["device waits (%)"], wait["kernels"]) == ("10.00", "20.0", "90")
    assert wait["longest wait"] == "1.00 ms between add and copy"
    assert "OutOfMemoryError: too large" in to_markdown([race], [])
    assert rate_rows(make_race(launches=[])) == []


def test_names_are_settings_and_peers_have_one_of_them() -> None:
    assert [parse_name(name)[0] for name in CONTENDERS] == [name.partition("+")[0] for name in CONTENDERS]
    assert knobs_of("pytorch+max+recompute") == {"compile": "max", "recompute": "block"}
    for name in ("tensorflow", "huggingface+recompute", "pytorch+", "jax"):
        with pytest.raises(UsageError, match="allowed: pytorch, huggingface"):
            parse_name(name)


def test_every_model_is_run_in_every_precision_and_peers_have_no_loss_scaling() -> None:
    cases = plan_cases(parse_arguments(["--contenders", ",".join(CONTENDERS)]))
    assert [case.name for case in cases][:2] == ["gpt2-bf16", "gpt2-medium-bf16"] and len(cases) == 8
    assert {name for case in cases if case.precision == "fp16" for name in case.contenders} == {
        name for name in CONTENDERS if name.startswith("pytorch")
    }
    usual = plan_cases(parse_arguments([]))
    assert [len(case.contenders) for case in usual] == [8, 8] + [2] * 6  # bf16, then the others


def test_a_case_without_time_is_named_in_the_last_table() -> None:
    (case,) = plan_cases(parse_arguments(["--model", "gpt2", "--precision", "fp32"]))
    table = to_markdown([make_race(), {**describe_left_out(case), "compiling_seconds": {}}], [])
    assert re.search(r"gpt2 \| +fp32 \| pytorch .*recompute \| left out: no time was left", table)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--precision", "fp8"], "--precision fp8: must be one of fp32, tf32"),
        (["--model", "huge"], "--model huge: must be one of tiny, small"),
        (["--contenders", "jax"], "unknown contender jax; allowed"),
        (["--data", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line(words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*words, "--device", "cpu", "--out", str(tmp_path)]) in (2, 5)
    error = capsys.readouterr().err
    assert line in error and "Traceback" not in error


def test_the_published_table_is_what_its_records_say() -> None:
    folder = ROOT / "results/reference/gpu"
    races = [json.loads((folder / f"{case.name}.json").read_text()) for case in plan_cases(parse_arguments([]))]
    checks = json.loads((folder / "checks.json").read_text())
    assert (folder / "table.md").read_text() == to_markdown(races, checks)


def test_figures_in_words_are_those_of_the_published_table() -> None:
    table = (ROOT / "results/reference/gpu/table.md").read_text()
    words = (ROOT / "benchmarks/README.md").read_text().partition("## One GPU")[2]
    ratios = re.findall(r"\d\.\d{3} \(\d\.\d{3}\s+to\s+\d\.\d{3}\)", words)
    rates = re.findall(r"[\d,]{6,} tokens/s", words)
    assert len(ratios) == 8 and len(rates) == 2
    assert all(re.sub(r"\s+to\s+", " … ", ratio) in table for ratio in ratios)
    assert all(rate.removesuffix(" tokens/s") in table for rate in rates)
    assert all(
        f" {figure} |" in table
        for figure in ("49.0", "51.6", "15.1", "5.8", "19.9", "7.2", "1.43", "2.16", "4.55", "11.69")
    )


@pytest.mark.slow
def test_it_runs_on_a_processor(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--model", "tiny", "--precision", "fp32", "--contenders", "pytorch,plain-torch"]
    words += ["--rounds", "2", "--turn-seconds", "0.01", "--no-parity", "--out", str(tmp_path)]
    command = [sys.executable, ROOT / "benchmarks/gpu.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience.SECONDS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "tiny-fp32.json").read_text())
    assert not found["failed"] and set(found["contenders"]) == {"pytorch", "plain-torch"}
    assert len(found["launches"]) == 4 and {each["round"] for each in found["launches"]} == {0, 1}
    first = [facts["first_loss"] for facts in found["contenders"].values()]
    assert first[0] == pytest.approx(first[1], rel=1e-5)
    assert (tmp_path / "table.md").read_text() in done.stdout
