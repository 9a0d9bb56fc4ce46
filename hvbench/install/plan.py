"""What to build for a `Stack`: frameworks, MPI and NCCL, environment variables of the build, and its cache key."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from hvbench.errors import InstallError
from hvbench.install.edits import edits_digest
from hvbench.install.stack import FRAMEWORKS, Cuda, Stack

HOROVOD = "0.28.1"


@dataclass(frozen=True, kw_only=True)
class Build:
    """One Horovod build: against what, with which communication libraries, and notes for the user."""

    stack: Stack
    nccl: bool
    flags: tuple[tuple[str, str], ...] = ()  # CXXFLAGS and LDFLAGS of the user
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Return a digest, 12 hexadecimal digits, of everything that the binary depends on."""
        stack = self.stack
        against = {
            "horovod": HOROVOD,
            "edits": edits_digest(),
            "abi": stack.abi,
            "cpu": stack.cpu_features,
            "compiler": stack.compiler and stack.compiler.version,
            "frameworks": [(framework.name, framework.version, framework.cuda) for framework in stack.frameworks],
            # A bundled MPI is found relative to Horovod's libraries, any other by its absolute path.
            "mpi": stack.mpi and [stack.mpi.name, stack.mpi.version, stack.mpi.bundled or str(stack.mpi.compiler)],
            "cuda": self.cuda and self.cuda.version,
            "nccl": self.nccl and [stack.nccl.version, self._bundled(stack.nccl.library) or str(stack.nccl.library)],
            "flags": self.flags,
        }
        return hashlib.sha256(json.dumps(against, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def cuda(self) -> Cuda | None:
        """Return the CUDA toolkit where one is used: a CPU build of the frameworks makes a CPU build of Horovod."""
        return self.stack.cuda if any(framework.cuda for framework in self.stack.frameworks) else None

    @property
    def version(self) -> str:
        """Return the wheel's version: Horovod's, with the key as its local part, so that pip sees different builds."""
        return f"{HOROVOD}+hvbench{self.key}"

    @property
    def features(self) -> tuple[str, ...]:
        """Return the features that `horovodrun --check-build` must list afterwards, by its names."""
        return (
            *(framework.title for framework in self.stack.frameworks),
            *(["MPI"] if self.stack.mpi else []),
            "Gloo",
            *(["NCCL"] if self.nccl else []),
        )

    @property
    def variables(self) -> dict[str, str]:
        """Return the environment variables that configure Horovod's build."""
        stack = self.stack
        present = {framework.name for framework in stack.frameworks}
        with_or_without = {name: "WITH" if name in present else "WITHOUT" for name in FRAMEWORKS}
        variables = {
            "HOROVOD_LOCAL_VERSION": self.version.partition("+")[2],
            "HOROVOD_WITHOUT_MXNET": "1",
            "HOROVOD_WITH_GLOO": "1",
            "HOROVOD_WITH_MPI" if stack.mpi else "HOROVOD_WITHOUT_MPI": "1",
            **{f"HOROVOD_{word}_{name.upper()}": "1" for name, word in with_or_without.items()},
        }
        if self.cuda:
            variables |= {"HOROVOD_CUDA_HOME": str(self.cuda.home), "CUDA_HOME": str(self.cuda.home)}
        if self.nccl:
            variables |= {"HOROVOD_GPU_OPERATIONS": "NCCL", "HOROVOD_NCCL_LINK": "SHARED"}
            variables |= {"HOROVOD_NCCL_INCLUDE": str(stack.nccl.include), "HOROVOD_NCCL_LIB": str(stack.nccl.library)}
        return variables | dict(self.flags)

    def _bundled(self, folder: Path) -> bool:
        return folder.is_relative_to(self.stack.prefix)

    def bundled_libraries(self) -> list[Path]:
        """Return the library folders inside the environment, which the wheel must find by relative paths."""
        stack = self.stack
        folders = [stack.mpi.compiler.parent.parent / "lib"] if stack.mpi and stack.mpi.bundled else []
        return folders + ([stack.nccl.library] if self.nccl and self._bundled(stack.nccl.library) else [])


def decide(stack: Stack, *, cuda: bool | None = None) -> Build:
    """Return what to build for `stack`.

    Args:
        stack: What was found.
        cuda: GPU collectives (NCCL): True requires them, False omits them, None uses them where all they need is there.

    Raises:
        InstallError: There is no framework, or `cuda` is True and something that it needs is missing.
    """
    if not stack.frameworks:
        raise InstallError(
            f"neither PyTorch nor TensorFlow is installed in {stack.prefix}: "
            "install the framework first (for example: pip install 'hvbench[pytorch]')"
        )
    lacking = _lacking_for_nccl(stack)
    if cuda and lacking:
        raise InstallError(f"a build for GPUs was asked for, but {'; '.join(lacking)}")
    notes = []
    if cuda is None and lacking and any(framework.cuda for framework in stack.frameworks):
        notes.append(f"GPUs will not talk over NCCL: {'; '.join(lacking)}")
    if stack.mpi is None:
        notes.append("no mpicxx on PATH: without MPI, only Gloo (for MPI: pip install 'hvbench[mpi]')")
    elif stack.mpi.name == "Open MPI" and not stack.mpi.version.startswith("4."):
        notes.append(f"Open MPI {stack.mpi.version} refuses horovodrun's options: use 4.1, or horovodrun --gloo")
    flags = tuple((name, os.environ[name]) for name in ("CXXFLAGS", "LDFLAGS") if os.environ.get(name))
    return Build(stack=stack, nccl=not lacking and cuda is not False, flags=flags, notes=tuple(notes))


def _lacking_for_nccl(stack: Stack) -> list[str]:
    lacking = [f"{framework.title} is a CPU build" for framework in stack.frameworks if not framework.cuda]
    if stack.cuda is None:
        lacking.append("there is no nvcc (install the CUDA toolkit or set CUDA_HOME)")
    if stack.nccl is None:
        lacking.append("there is no nccl.h (install libnccl-dev or set HOROVOD_NCCL_HOME)")
    return lacking
