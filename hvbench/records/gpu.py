"""The GPUs of this host and what drives them, without importing a framework: from nvidia-smi, else from the kernel's files."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from hvbench.records.reading import ask, read_text

QUERY = ("name", "memory.total", "driver_version", "mig.mode.current", "power.limit", "compute_cap")
ABSENT = re.compile(r"\[?(N/A|Not Supported|Insufficient Permissions|Unknown Error)\]?|", re.IGNORECASE)
SECONDS = 30.0  # nvidia-smi wakes a GPU that sleeps
MIB = 2**20


@cache
def describe_gpu(root: Path = Path("/")) -> dict[str, Any]:
    """Facts about all GPUs of this host, as JSON values: empty where there is none.

    `model` names each kind with its number, `2 x NVIDIA H100 80GB HBM3`; `mig` the slices where a GPU is cut into some.
    """
    if not (root / "proc/driver/nvidia/version").exists() and not (root / "dev/nvidiactl").exists():
        return {}
    rows = read_query(_ask("--query-gpu=" + ",".join(QUERY), "--format=csv,noheader,nounits"))
    if rows:
        return summarize(rows, slices=read_slices(_ask("-L")), cuda=read_cuda_version(_ask()))
    return read_kernel_files(root)


def least_compute_capability() -> tuple[int, int] | None:
    """CUDA's compute capability (major, minor), the least of this host's GPUs; None where none says it."""
    return read_least_capability(describe_gpu().get("compute_capability"))


def read_least_capability(text: str | None) -> tuple[int, int] | None:
    """The least of versions such as `8.0, 9.0`; None where there is none."""
    versions = re.findall(r"(\d+)\.(\d+)", text or "")
    return min(((int(major), int(minor)) for major, minor in versions), default=None)


def read_query(text: str | None) -> list[dict[str, str]]:
    """One mapping a GPU, from the table that nvidia-smi prints; what a GPU does not say is left out."""
    rows = []
    for line in (text or "").splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(QUERY):
            rows.append({name: cell for name, cell in zip(QUERY, cells, strict=True) if not ABSENT.fullmatch(cell)})
    return rows


def summarize(rows: list[dict[str, str]], *, slices: Iterable[str] = (), cuda: str | None = None) -> dict[str, Any]:
    """The facts of a host from those of its GPUs."""
    memory = [
        int(float(row["memory.total"]) * MIB) for row in rows if row.get("memory.total", "").replace(".", "").isdigit()
    ]
    facts = {
        "model": count_kinds(row.get("name", "unknown") for row in rows),
        "count": len(rows),
        "memory_bytes": sum(memory) if len(memory) == len(rows) else None,
        "driver": count_values(row.get("driver_version") for row in rows),
        "cuda_of_driver": cuda,
        "compute_capability": count_values(row.get("compute_cap") for row in rows),
        "power_limit_watts": count_values(row.get("power.limit") for row in rows),
        "mig": count_kinds(slices) or count_values(row.get("mig.mode.current") for row in rows),
    }
    return {name: value for name, value in facts.items() if value is not None}


def read_slices(text: str | None) -> list[str]:
    """Profiles of the MIG devices that `nvidia-smi -L` lists, such as `1g.10gb`."""
    return re.findall(r"^\s+MIG (\S+)\s+Device", text or "", re.MULTILINE)


def read_cuda_version(text: str | None) -> str | None:
    """The newest CUDA that the driver knows, from the head of nvidia-smi's own table."""
    match = re.search(r"CUDA Version:\s*(\d+\.\d+)", text or "")
    return match[1] if match else None


def read_kernel_files(root: Path) -> dict[str, Any]:
    """Models and driver as the kernel module shows them; what it does not show is left out."""
    files = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    models = re.findall(r"^Model:\s*(.+?)\s*$", "\n".join(read_text(file) or "" for file in files), re.MULTILINE)
    driver = re.search(
        r"Kernel Module(?: for \S+)?\s+(\d+(\.\d+)+)", read_text(root / "proc/driver/nvidia/version") or ""
    )
    facts = {"model": count_kinds(models), "count": len(models) or None, "driver": driver[1] if driver else None}
    return {name: value for name, value in facts.items() if value is not None}


def nvidia_packages(versions: Mapping[str, str] | None = None) -> dict[str, str]:
    """Versions of the CUDA libraries that are installed as packages: cuDNN, NCCL, cuBLAS, the runtime."""
    if versions is None:
        versions = _installed_versions()
    return {name: version for name, version in sorted(versions.items()) if name.startswith("nvidia-")}


def count_kinds(kinds: Iterable[str]) -> str | None:
    """`2 x A, 1 x B`; None for none."""
    counts = Counter(kinds)
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(counts.items())) or None


def count_values(values: Iterable[str | None]) -> str | None:
    """The one value of all, or those that there are; None where nobody states one."""
    return ", ".join(sorted({value for value in values if value})) or None


@cache
def _installed_versions() -> dict[str, str]:
    names = ((each.metadata["Name"] or "").lower().replace("_", "-") for each in metadata.distributions())
    return {name: metadata.version(name) for name in names if name.startswith("nvidia-")}


def _ask(*words: str) -> str | None:
    """What nvidia-smi prints; None where there is none, or it fails."""
    program = shutil.which("nvidia-smi")
    return ask([program, *words], timeout_seconds=SECONDS) if program else None
