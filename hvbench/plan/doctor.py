"""What this machine and environment offer, and for each thing missing the command that fixes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hvbench.install import Stack, decide, detect, missing_prerequisites
from hvbench.install.stack import FRAMEWORKS as BUILT_FOR
from hvbench.install.stack import find_providers
from hvbench.io.cache import cache_root
from hvbench.launch.environments import WITHOUT_HOROVOD, Environment, find_environment
from hvbench.plan.skip import has_gpu, is_installed, why_no_cuda
from hvbench.plan.together import describe_together
from hvbench.records.environment import (
    cpu_model,
    describe_environment,
    multiplies_natively,
    package_version,
    usable_cores,
)
from hvbench.registry import FRAMEWORKS, describe_framework

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one check found; `is_required` when no sweep can run without it; `remedy` is a command."""

    subject: str
    fact: str
    is_good: bool = True
    is_required: bool = False
    remedy: str | None = None


def examine() -> list[Check]:
    """Look at everything that a sweep needs, without importing a framework; takes about a second."""
    stack = detect()
    own = {name: find_environment(name, needs=WITHOUT_HOROVOD) for name in FRAMEWORKS}
    return [
        *examine_machine(),
        *examine_ranks(),
        *(examine_framework(stack, name) for name in FRAMEWORKS if not own[name]),
        *(check for each in own.values() if each for check in examine_environment(each)),
        examine_horovod(stack),
        examine_mpi(stack),
        examine_gpu(stack),
        examine_toolkit(stack),
        examine_builder(stack),
        examine_cache(),
    ]


def examine_machine() -> list[Check]:
    """Processor, cores, memory."""
    facts = describe_environment()
    limit = facts["cgroup_memory_limit_bytes"] or facts["memory_bytes"]
    memory = f"{min(limit, facts['memory_bytes']) / GIB:.0f} GiB"
    emulated = [
        name
        for name, dtype in (("bf16", "bfloat16"), ("fp16", "float16"))
        if not multiplies_natively(dtype, device="cpu")
    ]
    products = f"; no instructions for {' and '.join(emulated)}: emulated" if emulated else ""
    return [
        Check(subject="processor", fact=f"{cpu_model()}{products}"),
        Check(subject="cores", fact=f"{usable_cores()} usable of {os.cpu_count()}; one a rank is best"),
        Check(subject="memory", fact=f"{memory}; a rank needs 0.5 GiB and more with the model"),
    ]


def examine_ranks() -> list[Check]:
    """What a rank on each core would reach together with the others; nothing on one core."""
    described = describe_together(ranks=usable_cores(), threads=1)
    return [Check(subject="ranks", fact=described)] if described else []


def examine_framework(stack: Stack, name: str) -> Check:
    """One framework: version, and what it can do here."""
    if name not in BUILT_FOR:
        about = describe_framework(name)
        packages = about.distributions or (about.module,)
        if not is_installed(name):
            return Check(
                subject=name,
                fact="not installed: its points are skipped",
                is_good=False,
                remedy=f"pip install {packages[0]}",
            )
        version = next(filter(None, map(package_version, packages)), "installed")
        return Check(subject=name, fact=f"{version}; hvbench install-horovod builds nothing for it")
    found = next((framework for framework in stack.frameworks if framework.name == name), None)
    if not found:
        remedy = f"pip install 'hvbench[{name}]' && hvbench install-horovod"
        return Check(subject=name, fact="not installed: its points are skipped", is_good=False, remedy=remedy)
    if len(providers := find_providers(name)) > 1:
        return describe_overwritten(name, providers)
    built_against = stack.horovod.built_against.get(name) if stack.horovod else None
    devices = "cpu and cuda builds" if found.cuda else "cpu build"
    if stack.horovod and not built_against:
        remedy = "hvbench install-horovod --rebuild"
        return Check(
            subject=name, fact=f"{found.version}, but Horovod was built without it", is_good=False, remedy=remedy
        )
    return Check(subject=name, fact=f"{found.version}, {devices}; trains in fp32, bf16, fp16")


def examine_environment(environment: Environment) -> list[Check]:
    """A framework in an environment of its own, and the Horovod there."""
    stack, name = environment.stack, environment.framework
    found = next((each for each in stack.frameworks if each.name == name), None)
    build = "" if found is None else f"{found.version}, {'cpu and cuda builds' if found.cuda else 'cpu build'}; "
    horovod = examine_horovod(stack)
    remedy = horovod.remedy and horovod.remedy.replace(
        "install-horovod", f"install-horovod --env {name}={environment.folder}"
    )
    return [
        Check(subject=name, fact=f"{build}in an environment of its own, {environment.folder}"),
        replace(horovod, fact=f"of {name}: {horovod.fact}", remedy=remedy),
    ]


def describe_overwritten(name: str, providers: Mapping[str, str]) -> Check:
    """Two distributions bring the same package: pip has written one over the other, such as a build for GPUs over one for CPUs."""
    kept = next((each for each in providers if each.endswith("-cpu")), next(iter(providers)))
    others = " ".join(each for each in providers if each != kept)
    both = " and ".join(f"{each} {version}" for each, version in providers.items())
    return Check(
        subject=name,
        fact=f"{both} are both installed, one written over the other: Horovod was built for one of them",
        is_good=False,
        remedy=f"pip uninstall -y {others} && pip install --force-reinstall --no-deps {kept}=={providers[kept]}",
    )


def describe_other_build(stack: Stack) -> str:
    """Why the Horovod that is installed is not the one that hvbench would build here."""
    built = stack.horovod.built_against
    other = [
        f"it was built for {framework.title} {built[framework.name]}, and {framework.version} is installed"
        for framework in stack.frameworks
        if not is_same_version(built.get(framework.name), framework.version)
    ]
    other += [
        f"{' and '.join(providers)} lie over each other"
        for framework in stack.frameworks
        if len(providers := find_providers(framework.name)) > 1
    ]
    if other:
        return "; ".join(other)
    if "+hvbench" in stack.horovod.version:
        return (
            "hvbench built it for another Python, compiler, MPI or CUDA, or before the edits that mend sums of float16"
        )
    return "another than hvbench builds here, whose edits mend sums of float16"


def is_same_version(built: str | None, installed: str) -> bool:
    """Whether Horovod was built for what is installed, for all that is known.

    A framework says which build it is, `2.11.0+cu130`, where the package that it came in may leave that out.
    """
    if built is None or "+" in built and "+" in installed:
        return built in (None, installed)
    return built.partition("+")[0] == installed.partition("+")[0]


def examine_horovod(stack: Stack) -> Check:
    """The one thing that every launch with more than one rank needs."""
    if not stack.horovod:
        return Check(
            subject="horovod", fact="not installed", is_good=False, is_required=True, remedy="hvbench install-horovod"
        )
    parts = [
        name
        for name, has in (("Gloo", stack.horovod.gloo), ("MPI", stack.horovod.mpi), ("NCCL", stack.horovod.nccl))
        if has
    ]
    fact = f"{stack.horovod.version} with {', '.join(parts) or 'no controller'}"
    if not stack.horovod.gloo:
        remedy = "hvbench install-horovod --rebuild"
        return Check(
            subject="horovod", fact=f"{fact}; workers need Gloo", is_good=False, is_required=True, remedy=remedy
        )
    if stack.frameworks and stack.horovod.version not in {decide(stack, cuda=each).version for each in (None, False)}:
        fact += f"; {describe_other_build(stack)}"
        return Check(subject="horovod", fact=fact, is_good=False, remedy="hvbench install-horovod")
    return Check(subject="horovod", fact=fact)


def examine_mpi(stack: Stack) -> Check:
    """MPI, which one of the launchers needs, and Horovod's controller of that name."""
    if not stack.mpi:
        fact = "none: horovodrun --gloo and hvbench sweep --np N work without it"
        return Check(
            subject="mpi", fact=fact, is_good=False, remedy="pip install 'hvbench[mpi]' && hvbench install-horovod"
        )
    return Check(subject="mpi", fact=f"{stack.mpi.name} {stack.mpi.version}")


def examine_gpu(stack: Stack) -> Check:
    """Whether the frameworks can train on a GPU; where one cannot, its points are skipped for the same reason."""
    names = [framework.name for framework in stack.frameworks]
    reasons = {name: reason for name in names if (reason := why_no_cuda(name))}
    if not has_gpu():
        hides = " (CUDA_VISIBLE_DEVICES hides all)" if os.environ.get("CUDA_VISIBLE_DEVICES") is not None else ""
        return Check(
            subject="gpu", fact=f"none{hides}: points with device = cuda are skipped, those with auto train on the CPU"
        )
    if reasons:
        fact = f"there is one, but {' and '.join(reasons)} cannot use it (a build for CPUs alone): points with device = cuda are skipped"
        return Check(subject="gpu", fact=fact, is_good=False)
    return Check(subject="gpu", fact=f"seen by {' and '.join(names)}" if names else "there is one")


def examine_toolkit(stack: Stack) -> Check:
    """CUDA's toolkit and NCCL, which the build of Horovod needs where there are GPUs."""
    if not stack.cuda:
        return Check(subject="cuda", fact="no CUDA toolkit: Horovod is built without NCCL")
    if not stack.nccl and any(framework.cuda for framework in stack.frameworks):
        fact = f"CUDA {stack.cuda.version} without NCCL: all-reduce would go through the host"
        return Check(
            subject="cuda",
            fact=fact,
            is_good=False,
            remedy="pip install nvidia-nccl-cu13 && hvbench install-horovod --rebuild",
        )
    return Check(
        subject="cuda", fact=f"CUDA {stack.cuda.version}" + (f", NCCL {stack.nccl.version}" if stack.nccl else "")
    )


def examine_builder(stack: Stack) -> Check:
    """What building Horovod needs; matters only when it has to be built."""
    missing = missing_prerequisites()
    if missing:
        return Check(subject="builder", fact=missing[0], is_good=bool(stack.horovod))
    return Check(subject="builder", fact=stack.compiler.version if stack.compiler else "C++ compiler works")


def examine_cache() -> Check:
    """Where vocabularies and built wheels are kept."""
    folder = cache_root()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        remedy = "export HVBENCH_CACHE=/a/folder/you/can/write"
        return Check(
            subject="cache", fact=f"{folder} cannot be written", is_good=False, is_required=True, remedy=remedy
        )
    return Check(subject="cache", fact=str(folder))
