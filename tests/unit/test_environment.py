"""The environment of a measurement: JSON values, complete, read without a framework."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import hvbench
from hvbench.records import environment
from hvbench.records.environment import (
    cgroup_cpu_quota,
    cgroup_memory_limit_bytes,
    describe_environment,
    describe_load,
    multiplies_natively,
    package_version,
    usable_cores,
    usable_memory_bytes,
)
from tests import patience


def test_the_environment_is_json() -> None:
    facts = describe_environment()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_the_environment_has_version_processor_memory_and_packages() -> None:
    facts = describe_environment()
    assert facts["hvbench_version"] == hvbench.__version__
    assert facts["cpu_model"]
    assert 1 <= facts["usable_cores"] <= facts["cpu_cores"]
    assert facts["memory_bytes"] > 2**28
    assert "numpy" in facts["packages"]


def test_horovods_settings_are_part_of_it_and_secrets_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOROVOD_FUSION_THRESHOLD", "1024")
    monkeypatch.setenv("MY_TOKEN", "hidden-value")
    facts = describe_environment()
    assert facts["horovod_settings"]["HOROVOD_FUSION_THRESHOLD"] == "1024"
    assert "hidden-value" not in json.dumps(facts)


def test_the_load_of_the_host_is_counted_in_ticks() -> None:
    load = describe_load()
    assert len(load["load_average"]) == 3
    assert load["total_ticks"] >= load["steal_ticks"] >= 0


def test_a_process_may_use_no_more_cores_than_its_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, hvbench.records.environment as e\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(e.usable_cores())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=patience.SECONDS
    )
    assert result.stdout == "1\n"
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


def test_limits_of_the_control_group_are_positive_or_none() -> None:
    for limit in (cgroup_cpu_quota(), cgroup_memory_limit_bytes()):
        assert limit is None or limit > 0


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert package_version("hvbench-no-such-package") is None
    assert package_version("pydantic")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_single_and_double_precision_are_native_everywhere(dtype: str, device: str) -> None:
    assert multiplies_natively(dtype, device=device)


def test_a_gpu_multiplies_half_precision_natively() -> None:
    assert multiplies_natively("bfloat16", device="cuda") and multiplies_natively("float16", device="cuda")


def test_usable_memory_is_the_hosts_or_what_the_control_group_allows() -> None:
    assert 2**28 < usable_memory_bytes() <= describe_environment()["memory_bytes"]
    limit = cgroup_memory_limit_bytes()
    assert limit is None or usable_memory_bytes() <= limit


@pytest.mark.parametrize(
    ("settings", "is_native"),
    [
        ({}, True),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, False),
        ({"DNNL_MAX_CPU_ISA": "avx512_core"}, False),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, True),
        ({"ONEDNN_MAX_CPU_ISA": "ALL"}, True),
        ({"TF_ENABLE_ONEDNN_OPTS": "0"}, False),
    ],
)
def test_instructions_that_the_library_may_not_use_are_none(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], is_native: bool
) -> None:
    monkeypatch.setattr(environment, "cpu_flags", lambda: frozenset({"avx512_bf16", "avx512f"}))
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert environment.multiplies_natively("bfloat16", device="cpu") == is_native
