"""Why a point cannot run: the rules of its knobs, and what this place lacks."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from hvbench.install.stack import FRAMEWORKS as BUILT_FOR
from hvbench.install.stack import find_framework
from hvbench.launch.environments import find_environment
from hvbench.launch.link import VARIABLE as LINK_VARIABLE
from hvbench.records.environment import multiplies_natively
from hvbench.records.float32 import why_tf32_is_off
from hvbench.records.gpu import least_compute_capability
from hvbench.registry import FRAMEWORKS, describe_framework
from hvbench.spec.knob import Site, knobs_of
from hvbench.spec.numerics import TF32_CAPABILITY
from hvbench.spec.point import AnyPoint, Point
from hvbench.spec.script import ScriptPoint
from hvbench.spec.settings import MeasureSettings
from hvbench.training.flops import model_facts
from hvbench.training.weights import trained_shapes

DEVICES = Path("/dev")
AMD_NODE = "kfd"
GPU_NODES = ("nvidia[0-9]*", "nvhost-gpu", "dxg", AMD_NODE)  # of a graphics card, a Jetson, Windows' Linux, AMD


def reason_to_skip(point: AnyPoint, *, world_size: int, assumes_frameworks: bool = False) -> str | None:
    """Why `point` (with a resolved world size) cannot run on `world_size` launched ranks; None when it can.

    What makes no sense anywhere comes before what is missing here, and each in the order of the fields.
    `assumes_frameworks`: as if every framework were installed here.
    """
    knobs = knobs_of(type(point)).values()
    for knob in knobs:
        if knob.impossible and (reason := knob.impossible(point)):
            return reason
    try:
        if not isinstance(point, ScriptPoint) and (reason := compresses_nothing(point)):
            return reason
    except ValueError:
        return "its sizes are beyond what a record can hold, and any machine"
    if point.is_served and point.servers > (tensors := len(trained_shapes(point))):
        return f"servers = {point.servers}: {tensors} tensors train, and each is on one server"
    site = describe_site(world_size, assumes_frameworks=assumes_frameworks)
    for knob in knobs:
        if knob.unavailable and (reason := knob.unavailable(point, site)):
            return reason
    return None


def reason_not_to_measure(point: AnyPoint, settings: MeasureSettings) -> str | None:
    """Why `point` cannot give what `settings` ask for; None when it can. What no script can give, its suite cannot ask for."""
    if isinstance(point, ScriptPoint):
        return None
    for knob in knobs_of(type(settings)).values():
        if knob.unmeasurable and (reason := knob.unmeasurable(settings, point)):
            return reason
    return None


def compresses_nothing(point: Point) -> str | None:
    """Why PowerSGD would send everything as it is; None: it does not. Raises ValueError for sizes that no record can hold."""
    facts = model_facts(point)
    if point.compression == "powersgd" and facts.allreduce_bytes_per_step == 4 * facts.trained_parameters:
        return f"powersgd_rank {point.powersgd_rank}: no matrix that trains is smaller as two of that rank; give less than its smaller side"
    return None


def describe_site(world_size: int, *, assumes_frameworks: bool = False) -> Site:
    """What this host offers to points on `world_size` ranks; imports no framework and no MPI."""
    no_links = f"no link may be shaped here: run it in hvbench lab, or name the interface in {LINK_VARIABLE}"
    return Site(
        world_size=world_size,
        frameworks=frozenset(name for name in FRAMEWORKS if assumes_frameworks or is_installed(name)),
        no_mpi=None if has_mpi() else "needs mpirun and mpi4py: pip install 'hvbench[mpi]'",
        no_shaped_links=None if os.environ.get(LINK_VARIABLE) else no_links,
        no_tf32=why_no_tf32(least_compute_capability()),
        no_cuda=why_no_cuda,
        no_compiler=why_no_compiler,
        emulates=lambda dtype, device: not multiplies_natively(dtype, device=device),
    )


def why_no_tf32(capability: tuple[int, int] | None) -> str | None:
    """Why the GPUs of this host, the least of which has this compute capability, do not multiply in TF32; None: they do."""
    needed = f"precision tf32 needs NVIDIA GPUs of compute capability {TF32_CAPABILITY}.0 and later"
    if capability is None:
        return f"{needed}; there is none here"
    if capability[0] < TF32_CAPABILITY:
        return f"{needed}; here it is {'.'.join(map(str, capability))}"
    return why_tf32_is_off()


@cache
def has_mpi() -> bool:
    """Whether ranks of MPI can be started, without importing it."""
    installed = os.path.join(os.path.dirname(sys.executable), "mpirun")  # by pip, where no PATH may lead
    return find_spec("mpi4py") is not None and bool(which(installed) or which("mpirun"))


@cache
def is_installed(framework: str) -> bool:
    """Whether the framework can be imported, without importing it, in the environment of its workers. Raises UsageError where that cannot train."""
    if find_environment(framework):
        return True
    spec = find_spec(describe_framework(framework).module)
    return spec is not None and spec.origin is not None  # a folder that an uninstalled package left has no origin


def why_no_cuda(framework: str) -> str | None:
    """Why `framework` cannot train on a GPU of this host, without importing it; None: it can, for all that is known."""
    if not has_gpu():
        return "device cuda: no GPU can be used on this host; see hvbench doctor"
    if is_cpu_build(framework):
        return f"device cuda: the {framework} that is installed here is a build for CPUs alone; see hvbench doctor"
    return None


def why_no_compiler(framework: str, device: str) -> str | None:
    """What `framework` lacks here to compile for `device` (cpu or cuda): `needs …`; None: nothing. XLA is part of TensorFlow.

    PyTorch's compiler writes C++ for a CPU and Triton's language for a GPU; Triton compiles a few lines of C.
    """
    if framework != "pytorch":
        return None
    if device == "cpu":
        compilers, language = (os.environ.get("CXX") or "g++",), "C++"
    elif lacks_triton(framework):
        return "needs Triton, which comes with PyTorch's builds for GPUs, and it is not installed"
    else:
        compilers, language = (os.environ.get("CC") or "gcc", "clang"), "C"
    if not any(which(name) for name in compilers):
        return f"needs a {language} compiler, and there is no {compilers[0]}"
    headers = Path(sysconfig.get_path("include")) / "Python.h"  # what is compiled is called from Python
    return None if headers.exists() else f"needs Python's headers (python3-dev), and there is no {headers}"


def has_gpu() -> bool:
    """Whether this process may see a GPU: the kernel has one, and CUDA_VISIBLE_DEVICES does not hide them all."""
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1", "NoDevFiles")
    return not is_hidden and any(any(DEVICES.glob(name)) for name in GPU_NODES)


@cache
def is_cpu_build(framework: str) -> bool:
    """Whether the installed framework was built without CUDA; False where that is not known."""
    if framework not in BUILT_FOR or (DEVICES / AMD_NODE).exists():  # AMD's build of PyTorch has another name for it
        return False
    environment = find_environment(framework)
    known = environment.stack.frameworks if environment else filter(None, [find_framework(framework)])
    return any(found.name == framework and not found.cuda for found in known)


def lacks_triton(framework: str) -> bool:
    """Whether the compiler of GPU kernels is not installed beside the framework."""
    environment = find_environment(framework)
    return "triton" in environment.missing if environment else find_spec("triton") is None
