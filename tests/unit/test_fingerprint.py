"""The fingerprint of a record: what names a machine and its software, what follows from the point, and what nobody may read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hvbench
from hvbench.analysis.report.quality import describe_sources
from hvbench.comparison.compare import compare
from hvbench.launch.agent import complete
from hvbench.launch.placement import worker_settings
from hvbench.plan.jobs import launch_facts
from hvbench.records.environment import describe_environment
from hvbench.records.fingerprint import (
    MACHINE,
    describe_fingerprint,
    find_differences,
    fingerprint_id,
    machine_facts,
)
from hvbench.records.gpu import (
    describe_gpu,
    nvidia_packages,
    read_least_capability,
    read_query,
    read_slices,
    summarize,
)
from hvbench.records.record import Record
from hvbench.records.source import source_digest, source_revision
from hvbench.records.switches import find_switches
from hvbench.spec.knob import Kind, choices_of, kind_of
from hvbench.spec.point import Point
from hvbench.sweep.resume import find_changes, lasting_environment
from tests import patience
from tests.unit.sample_records import make_rank, make_record
from tests.unit.test_baseline import hvbench as hvbench_fixture
from tests.unit.test_baseline import keep
from tests.unit.test_compare import launches, side

command_line = hvbench_fixture  # the fixture: hvbench("gate", …) in an empty folder


def record_of(environment: dict[str, Any], **fields: Any) -> Record:
    return make_record([make_rank(step_seconds=[1.0, 0.1])], environment=environment, **fields)


# What follows from the point names no machine


def other_values() -> list[dict[str, Any]]:
    """A point's fields, each at another value than its default."""
    given = {
        "data": "synthetic", "pretraining_data": "elsewhere", "initial_checkpoint": "elsewhere", "initial_weights": "elsewhere", "world_size": 4, "fusion_threshold_bytes": 1024,
        "cycle_time_seconds": 0.002, "link_bits_per_second": 10**8, "dropout": 0.1, "encoding": "latin-1",
        "straggler_seconds": 0.05,
    }  # fmt: skip
    found = []
    for name, field in Point.model_fields.items():
        if name in given:
            value = given[name]
        elif kind_of(field) is Kind.CHOICE:
            value = choices_of(field)[-1]
        elif kind_of(field) is Kind.SWITCH:
            value = not field.default
        else:
            value = (field.default or 512) / 2 if kind_of(field) is Kind.NUMBER else (getattr(Point(), name) or 1) * 2
        found.append({name: value})
    return found


def environment_of_worker(monkeypatch: pytest.MonkeyPatch, point: Point, *, threads: int) -> dict[str, Any]:
    """What a worker of `point` records of its environment, by the variables that hvbench really gives it."""
    size = point.world_size or 2
    slot = SimpleNamespace(
        hostname="h", rank=0, size=size, local_rank=0, local_size=size, cross_rank=0, cross_size=1
    )  # fmt: skip
    facts = launch_facts(point)
    places = worker_settings(slot, address="127.0.0.1", port=80, threads=threads, by_mpirun=facts["by_mpirun"])
    with monkeypatch.context() as patch:
        for name, value in complete({**places, **facts["settings"]}).items():
            patch.setenv(name, value)
        return describe_environment() | {"controller": places["HOROVOD_CONTROLLER"] if size > 1 else None}


@pytest.mark.parametrize("fields", other_values(), ids=lambda fields: next(iter(fields)))
def test_no_knob_of_a_point_changes_the_machine(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOROVOD_BATCH_D2D_MEMCOPIES", "0")  # the user's own, on both sides
    assert Point(**fields) != Point()
    ids = set()
    for point, threads in ((Point(), 1), (Point(**fields), 2)):
        environment = environment_of_worker(monkeypatch, point, threads=threads)
        ranks = [make_rank(step_seconds=[1.0, 0.1], threads=threads, device="cpu" if threads == 1 else "cuda")]
        ids.add(fingerprint_id(make_record(ranks, environment=environment, **point.model_dump(exclude_unset=True))))
    assert len(ids) == 1


def test_a_scaling_run_is_a_baseline(command_line: Any) -> None:
    records = []
    for size in (1, 2, 4):
        settings = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo", "HOROVOD_GLOO_IFACE": "lo"}
        environment = {
            "cpu_model": "One", "horovod_settings": settings if size > 1 else {}, "omp_num_threads": str(4 // size),
            "controller": "gloo" if size > 1 else None, "chosen_settings": sorted(settings),
        }  # fmt: skip
        for repeat in range(8):
            ranks = [
                make_rank(rank, step_seconds=[0.05 + 0.0001 * repeat] * 6, threads=4 // size) for rank in range(size)
            ]
            records.append(make_record(ranks, repeat=repeat, environment=environment))
    assert command_line("baseline", "set", keep("1", records))[0] == 0
    assert command_line("gate", "mine@latest")[0] == 0


# Every fact of the machine does, and is named

CHANGES: dict[str, tuple[Any, Any, str]] = {  # fact -> before, now, what is named
    "cpu_model": ("One", "Two", "cpu_model"),
    "cpu_cores": (8, 16, "cpu_cores"),
    "usable_cores": (8, 4, "usable_cores"),
    "cgroup_cpu_quota": (None, 1.0, "cgroup_cpu_quota"),
    "cpu_governor": ("performance", "powersave", "cpu_governor"),
    "memory_bytes": (2**34, 2**35, "memory_bytes"),
    "cgroup_memory_limit_bytes": (None, 2**30, "cgroup_memory_limit_bytes"),
    "gpu": (
        {"model": "1 x A100", "driver": "550.54", "cuda_of_driver": "12.4"},
        {"model": "1 x H100", "driver": "580.1", "cuda_of_driver": "13.0"},
        "gpu.cuda_of_driver",
    ),
    "kernel": ("6.1", "6.12", "kernel"),
    "python": ("3.11.7", "3.12.1", "python"),
    "libc": ("glibc 2.36", "glibc 2.41", "libc"),
    "packages": ({"torch": "2.13.0+cpu"}, {"torch": "2.13.0+cu130"}, "packages.torch"),
    "nvidia_packages": ({"nvidia-nccl-cu12": "2.21"}, {"nvidia-nccl-cu12": "2.27"}, "nvidia_packages.nvidia-nccl-cu12"),
    "horovod_settings": ({}, {"HOROVOD_CACHE_CAPACITY": "0"}, "horovod_settings.HOROVOD_CACHE_CAPACITY"),
    "library_settings": ({}, {"MKL_NUM_THREADS": "1"}, "library_settings.MKL_NUM_THREADS"),
    "native_bfloat16": (True, False, "native_bfloat16"),
    "native_float16": (False, True, "native_float16"),
}


def test_every_fact_has_its_case() -> None:
    assert set(CHANGES) == set(MACHINE)
    assert set(MACHINE) <= set(describe_environment()), "all of them are recorded"


@pytest.mark.parametrize("fact", MACHINE)
def test_another_machine_has_another_fingerprint_and_the_fact_is_named(fact: str, command_line: Any) -> None:
    before = {name: a for name, (a, _, _) in CHANGES.items()}
    now = before | {fact: CHANGES[fact][1]}
    assert fingerprint_id(record_of(before)) != fingerprint_id(record_of(now))
    command_line("baseline", "set", keep("1", launches(environment=before)))
    code, _, err = command_line("gate", keep("2", launches(environment=now, factor=2.0)))
    assert code == 4 and CHANGES[fact][2] in err
    code, out, err = command_line("compare", "mine@baseline", "mine@latest")
    assert code == 4 and CHANGES[fact][2] in err and CHANGES[fact][2] in out


def test_a_slower_instruction_set_is_not_comparable_rather_than_suspected(
    command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    switches = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_NUM_THREADS": "1"}
    for name in switches:
        monkeypatch.delenv(name, raising=False)
    command_line("baseline", "set", keep("1", launches(environment=describe_environment())))
    for name, value in switches.items():
        monkeypatch.setenv(name, value)
    code, _, err = command_line("gate", keep("2", launches(environment=describe_environment(), factor=1.5)))
    assert code == 4
    assert all(
        f"library_settings.{name}: baseline null, now {json.dumps(value)}" in err for name, value in switches.items()
    )


# Which hvbench it was is said, and no obstacle


def test_two_revisions_are_compared_and_named(command_line: Any) -> None:
    machine = {"cpu_model": "One", "hvbench_version": "0.1.0"}
    a = machine | {"hvbench_revision": "aaaaaaaaaaaa", "hvbench_source_digest": "111111111111"}
    b = machine | {
        "hvbench_revision": "bbbbbbbbbbbb+changes",
        "hvbench_source_digest": "222222222222",
        "hvbench_version": "0.2.0",
    }
    command_line("baseline", "set", keep("1", launches(environment=a)))
    code, out, _ = command_line("compare", "mine@baseline", keep("2", launches(environment=b, factor=1.1)))
    assert code == 0 and "worse" in out
    assert (
        "0.1.0 at aaaaaaaaaaaa, source 111111111111" in out
        and "0.2.0 at bbbbbbbbbbbb+changes, source 222222222222" in out
    )
    assert "different versions of hvbench" in command_line("gate", "mine@latest")[1]
    same = compare([side("a", launches(environment=a)), side("b", launches(environment=a))])
    assert same.notes == () and same.is_comparable


def test_a_report_of_two_revisions_says_so() -> None:
    records = [
        record_of({"hvbench_version": "0.1.0", "hvbench_source_digest": digest}) for digest in ("aa", "bb", "aa")
    ]
    assert describe_sources(records) == [
        "Different versions of hvbench ran these launches: 0.1.0, source aa; 0.1.0, source bb."
    ]
    assert describe_sources(records[:1]) == describe_sources([record_of({})]) == []


def test_a_run_is_not_continued_with_another_source() -> None:
    now = lasting_environment(describe_environment())
    changed = now | {"hvbench_source_digest": "000000000000"}
    assert any(
        "hvbench_source_digest was" in line for line in find_changes({"environment": now}, {"environment": changed})
    )
    assert find_changes({"environment": {"python": now["python"]}}, {"environment": now}) == [], "not recorded then"


def test_a_run_is_continued_under_another_launcher() -> None:
    own = describe_environment() | {"horovod_settings": {}}
    horovodrun = own | {
        "horovod_settings": {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo", "HOROVOD_GLOO_IFACE": "lo"}
    }
    assert lasting_environment(own) == lasting_environment(horovodrun)


# Records of earlier versions


def test_what_an_older_record_does_not_state_is_said_and_not_compared(command_line: Any) -> None:
    now = {name: a for name, (a, _, _) in CHANGES.items()}
    old = {name: now[name] for name in ("cpu_model", "packages", "usable_cores", "kernel")}
    command_line("baseline", "set", keep("1", launches(environment=old)))
    code, out, _ = command_line("gate", keep("2", launches(environment=now, seed=1)))
    assert code == 0 and "Recorded on one side only, so not compared: " in out and "library_settings" in out
    code, _, err = command_line("gate", keep("3", launches(environment=now | {"kernel": "7.0"}, seed=1)))
    assert code == 4 and "kernel" in err


def test_an_older_record_stated_the_affinity_and_the_quota_apart() -> None:
    old, new = {"usable_cores": 16, "cgroup_cpu_quota": 1.5}, {"usable_cores": 1, "cgroup_cpu_quota": 1.5}
    assert find_differences(describe_fingerprint(record_of(old)), describe_fingerprint(record_of(new))) == {}


@pytest.mark.parametrize("garbage", [None, 3, "x", [1, None], {"HOROVOD_X": 1}])
def test_garbage_in_a_record_is_no_crash(garbage: Any) -> None:
    for name in ("horovod_settings", "chosen_settings", "usable_cores", "cgroup_cpu_quota", "packages", "gpu"):
        assert fingerprint_id(record_of({"cpu_model": "One", "horovod_settings": {}, name: garbage}))


def test_a_timeline_is_a_setting_and_its_path_is_not() -> None:
    def with_timeline(path: str) -> Record:
        return record_of({"horovod_settings": {"HOROVOD_TIMELINE": path}, "chosen_settings": ["HOROVOD_TIMELINE"]})

    assert fingerprint_id(with_timeline("/a/1.json")) == fingerprint_id(with_timeline("/b/2.json"))
    assert fingerprint_id(with_timeline("/a/1.json")) != fingerprint_id(record_of({"horovod_settings": {}}))


def test_a_field_that_the_point_names_is_not_a_setting_too() -> None:
    settings = {"HOROVOD_FUSION_THRESHOLD": "1024"}
    by_point = record_of({"horovod_settings": settings}, fusion_threshold_bytes=1024)
    assert machine_facts(by_point)["horovod_settings"] == {}
    assert machine_facts(record_of({"horovod_settings": settings}))["horovod_settings"] == settings


# Switches of the libraries


@pytest.mark.parametrize(
    "name",
    [
        "OMP_PROC_BIND", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",
        "ATEN_CPU_CAPABILITY", "TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS", "CUDA_LAUNCH_BLOCKING", "CUDA_DEVICE_MAX_CONNECTIONS",
        "NVIDIA_TF32_OVERRIDE", "NCCL_ALGO", "NCCL_P2P_DISABLE", "TORCH_CUDNN_V8_API_DISABLED", "PYTORCH_CUDA_ALLOC_CONF", "KMP_AFFINITY",
        "KMP_BLOCKTIME", "GOMP_CPU_AFFINITY", "MALLOC_ARENA_MAX", "MALLOC_CONF", "GLIBC_TUNABLES", "LD_PRELOAD", "OPENBLAS_NUM_THREADS",
        "TF_CUDNN_DETERMINISTIC", "CUBLAS_WORKSPACE_CONFIG", "DNNL_PRIMITIVE_CACHE_CAPACITY", "TF_FORCE_GPU_ALLOW_GROWTH",
    ],
)  # fmt: skip
def test_a_switch_is_recorded(name: str) -> None:
    assert find_switches({name: "1"}) == {name: "1"}
    assert find_switches({name: ""}) == find_switches({name: " "}) == {}, "empty is not set"
    assert find_switches({name: "1"}, but=[name]) == {}


@pytest.mark.parametrize(
    "name",
    [
        "CUDA_HOME", "CUDA_PATH", "CUDNN_PATH", "TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "KERAS_HOME", "CUDA_CACHE_PATH", "NCCL_DEBUG",
        "NCCL_DEBUG_FILE", "TF_CPP_MIN_LOG_LEVEL", "TF_CONFIG", "TF2_BEHAVIOR", "TORCH_LOGS", "GLOO_SOCKET_IFNAME", "NVIDIA_VISIBLE_DEVICES",
        "TF_API_TOKEN", "TORCH_HUB_TOKEN", "NCCL_SECRET", "CUDA_PASSWORD", "TF_AUTH", "XLA_API_KEY", "PATH", "HOME", "AWS_SECRET_ACCESS_KEY",
        "MKLROOT", "PYTHONPATH", "LD_LIBRARY_PATH", "OMPI_MCA_btl", "HOROVOD_CYCLE_TIME", "CUDA_VERSION", "NCCL_VERSION",
    ],
)  # fmt: skip
def test_what_is_no_switch_is_not_recorded(name: str) -> None:
    assert find_switches({name: "1"}) == {}


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("LD_PRELOAD", "/home/ann/lib/libtcmalloc.so.4", "libtcmalloc.so.4"),
        ("LD_PRELOAD", "/a/libx.so:/b/liby.so", "libx.so:liby.so"),
        ("XLA_FLAGS", "--xla_dump_to=/home/ann/x --xla_cpu_fast=1", "--xla_dump_to=x --xla_cpu_fast=1"),
        ("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64", "max_split_size_mb:64"),
        ("KMP_AFFINITY", "granularity=fine,compact,1,0", "granularity=fine,compact,1,0"),
        ("MKL_NUM_THREADS", " 4 ", "4"),
        ("CUDA_VISIBLE_DEVICES", "2,3", "2 devices"),
        ("CUDA_VISIBLE_DEVICES", "", "0 devices"),
        ("CUDA_VISIBLE_DEVICES", "0,-1,1", "1 devices"),
        ("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c,MIG-GPU-1/2/3", "2 devices"),
    ],
)
def test_values_are_shown_without_folders_and_devices_by_their_number(name: str, value: str, shown: str) -> None:
    assert find_switches({name: value}) == {name: shown}


def test_what_horovodrun_sets_on_one_host_is_no_switch() -> None:
    assert find_switches({"NCCL_SOCKET_IFNAME": "lo"}) == {}
    assert find_switches({"NCCL_SOCKET_IFNAME": "eth0"}) == {"NCCL_SOCKET_IFNAME": "eth0"}


def test_a_value_with_credentials_is_not_recorded() -> None:
    assert find_switches({"NCCL_NET": "tcp://ann:secret@host/"}) == {}


# GPUs

H100 = "NVIDIA H100 80GB HBM3, 81559, 550.54.15, Disabled, 700.00, 9.0\n"
A100 = "NVIDIA A100-SXM4-80GB, 81920, 550.54.15, [N/A], [Not Supported], 8.0\n"
MIG = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5c)
  MIG 3g.40gb     Device  0: (UUID: MIG-1)
  MIG 1g.10gb     Device  1: (UUID: MIG-2)
  MIG 1g.10gb     Device  2: (UUID: MIG-3)
"""


def test_gpus_are_counted_by_model() -> None:
    facts = summarize(read_query(H100 * 2), cuda="12.4")
    assert facts == {
        "model": "2 x NVIDIA H100 80GB HBM3", "count": 2, "memory_bytes": 2 * 81559 * 2**20, "driver": "550.54.15", "cuda_of_driver": "12.4",
        "compute_capability": "9.0", "power_limit_watts": "700.00", "mig": "Disabled",
    }  # fmt: skip
    mixed = summarize(read_query(A100 + H100))
    assert mixed["model"] == "1 x NVIDIA A100-SXM4-80GB, 1 x NVIDIA H100 80GB HBM3"
    assert summarize(read_query(H100), slices=read_slices(MIG))["mig"] == "2 x 1g.10gb, 1 x 3g.40gb"
    assert read_query("No devices were found\n") == read_query(None) == []
    assert read_least_capability(mixed["compute_capability"]) == (8, 0)
    assert read_least_capability("10.0, 9.0") == (9, 0) and read_least_capability(None) is None


def test_without_nvidia_smi_the_kernels_files_say_what_they_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_gpu(tmp_path / "none") == {}
    files = {
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\n",
        "proc/driver/nvidia/gpus/0000:02:00.0/information": "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 2\n",
    }
    for name, content in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert describe_gpu(tmp_path / "root") == {"model": "2 x NVIDIA H100 80GB HBM3", "count": 2, "driver": "550.54.15"}


def test_cuda_libraries_are_those_packages() -> None:
    versions = {"nvidia-cudnn-cu12": "9.1", "torch": "2.13", "nvidia-nccl-cu12": "2.21"}
    assert nvidia_packages(versions) == {"nvidia-cudnn-cu12": "9.1", "nvidia-nccl-cu12": "2.21"}


# The source


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with a package `pkg`; its path."""
    (tmp_path / "mine/pkg/suites").mkdir(parents=True)
    (tmp_path / "mine/pkg/a.py").write_text("1\n")
    (tmp_path / "mine/README.md").write_text("x\n")
    for words in (("init", "-q"), ("add", "."), ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x")):
        subprocess.run(
            ["git", "-C", str(tmp_path / "mine"), *words], check=True, capture_output=True, timeout=patience.SECONDS
        )
    return tmp_path / "mine"


def forget() -> None:
    source_digest.cache_clear()
    source_revision.cache_clear()


def test_a_digest_is_of_names_and_content_and_of_nothing_else(tmp_path: Path) -> None:
    def digest(files: dict[str, str]) -> str:
        shutil.rmtree(tmp_path / "pkg", ignore_errors=True)
        for name, content in files.items():
            (tmp_path / "pkg" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "pkg" / name).write_text(content)
        forget()
        return source_digest(tmp_path / "pkg")

    base = {"a.py": "1", "b/c.py": "2", "b/t.toml": "x"}
    assert digest(base) == digest(dict(reversed(base.items())))
    for beside in ("__pycache__/a.pyc", "b/__pycache__/x.py", "suites/s.toml", "b/notes.txt"):
        assert digest(base | {beside: "3"}) == digest(base)
    others = [
        base | {"a.py": "2"},
        {"a2.py": "1", "b/c.py": "2", "b/t.toml": "x"},
        base | {"b/t.toml": "y"},
        base | {"d.py": ""},
    ]
    assert len({digest(files) for files in [base, *others]}) == 5
    assert digest({"a.py": "12", "b.py": ""}) != digest({"a.py": "1", "b.py": "2"})


def test_an_installed_copy_has_the_digest_of_its_checkout(tmp_path: Path) -> None:
    package = Path(hvbench.__file__).parent
    shutil.copytree(package, tmp_path / "hvbench", ignore=shutil.ignore_patterns("__pycache__"))
    forget()
    assert source_digest(tmp_path / "hvbench") == source_digest(package)
    assert source_revision(tmp_path / "hvbench") is None


def test_a_revision_says_whether_the_package_was_changed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook
    forget()
    clean = source_revision(checkout / "pkg")
    assert clean is not None and len(clean) == 12
    (checkout / "README.md").write_text("other\n")
    forget()
    assert source_revision(checkout / "pkg") == clean, "the package is what ran"
    (checkout / "pkg/new.py").write_text("2\n")
    forget()
    assert source_revision(checkout / "pkg") == f"{clean}+changes"


def test_no_git_and_another_projects_git_are_no_revision(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = checkout / "venv/site-packages/pkg"
    inner.mkdir(parents=True)
    forget()
    assert source_revision(inner) is None
    monkeypatch.setenv("PATH", os.devnull)
    assert source_revision(checkout / "pkg") is None
