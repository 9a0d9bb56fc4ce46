"""Building, installing and verifying Horovod: download, patch, compile, cache the wheel, install it, check its features."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable
from pathlib import Path

from hvbench.errors import InstallError
from hvbench.install.cache import build_folder, cached_wheel, locked
from hvbench.install.edits import apply_edits
from hvbench.install.paths import BuildPaths, plain_paths
from hvbench.install.plan import HOROVOD, Build, decide
from hvbench.install.prerequisites import missing_prerequisites
from hvbench.install.process import run_logged
from hvbench.install.stack import Stack, detect, scripts_first_path
from hvbench.records.limits import read_limits

# Build requirements of Horovod, installed into a folder of their own, so that the environment keeps its versions.
TOOLS = ("cmake<4", "setuptools<81", "wheel", "packaging", "cffi", "cloudpickle", "psutil", "pyyaml")
CPU_SECONDS = 420  # of compiling the parts for both frameworks, summed over cores
JOB_BYTES = 2 * 2**30  # memory that one compiler process may need

Report = Callable[[str], None]


def install(
    *,
    report: Report,
    status: Report | None = None,
    cuda: bool | None = None,
    rebuild: bool = False,
    cache: Path | None = None,
    jobs: int | None = None,
    dry_run: bool = False,
) -> Build:
    """Install Horovod into the running interpreter's environment, from the cache or newly built, and verify it.

    Args:
        report: Called with each line for the user.
        status: Called with a line of progress to redraw; None where the output is no terminal.
        cuda: GPU collectives (NCCL): True requires them, False omits them, None decides by what is installed.
        rebuild: Build even where the cache has the wheel, or the environment the build.
        cache: Its folder; None: the user's.
        jobs: Compiler processes at a time; None: `default_jobs`.
        dry_run: Report what would be built, and stop.

    Returns:
        What was, or would be, built.

    Raises:
        InstallError: Something is missing, or a command failed; with the lines of its log that tell why.
    """
    stack = detect()
    build = decide(stack, cuda=cuda)
    report(f"Found {describe(stack)}")
    report(f"Horovod {HOROVOD} with {', '.join(build.features)} (build {build.key})")
    for note in build.notes:
        report(f"Note: {note}")
    if dry_run:
        return build
    if stack.horovod and stack.horovod.version == build.version and not rebuild:
        report("It is installed already")
        return build
    folder = build_folder(build.key, cache)
    with locked(folder, report=report):
        wheel = cached_wheel(folder)
        if wheel and not rebuild:
            report(f"Taken from the cache: {wheel}")
        else:
            wheel = _build_wheel(build, folder=folder, jobs=jobs or default_jobs(), report=report, status=status)
        _install_wheel(wheel, log=folder / "install.log", report=report, status=status)
    verify(build)
    report(f"horovodrun --check-build confirms {', '.join(build.features)}")
    return build


def describe(stack: Stack) -> str:
    """Return the versions of `stack` in one line."""
    parts = [f"Python {stack.python}", *(f"{found.title} {found.version}" for found in stack.frameworks)]
    parts.append(f"{stack.mpi.name} {stack.mpi.version}" if stack.mpi else "no MPI")
    parts.append(f"CUDA {stack.cuda.version}" if stack.cuda else "no CUDA toolkit")
    if stack.nccl:
        parts.append(f"NCCL {stack.nccl.version}")
    parts.append(stack.compiler.version if stack.compiler else "no C++ compiler")
    return " · ".join(parts)


def default_jobs() -> int:
    """Return how many compilers to run: one per core that this process may use, as far as the free memory allows."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = min(free, read_limits().memory_bytes or free)
    return max(1, min(given_cores(), free // JOB_BYTES))


def given_cores() -> int:
    """Return how many cores this process may use, by its affinity and its control groups; at least 1."""
    affinity = len(os.sched_getaffinity(0))
    return max(1, min(affinity, int(read_limits().cpu_quota or affinity)))


def check_build() -> dict[str, bool]:
    """Return feature -> whether Horovod has it, as `horovodrun --check-build` says; takes seconds, it imports frameworks."""
    horovodrun = Path(sysconfig.get_path("scripts")) / "horovodrun"
    try:
        done = subprocess.run(
            [str(horovodrun), "--check-build"], capture_output=True, text=True, errors="replace", timeout=300
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{horovodrun} --check-build does not run: {error}") from error
    ticks = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("[")]
    if done.returncode != 0 or not ticks:
        raise InstallError(f"{horovodrun} --check-build failed:\n{done.stdout}{done.stderr}")
    # MPI and Gloo are listed twice, as controllers and as operations, with the same value.
    return {line[3:].strip(): line.startswith("[X]") for line in ticks}


def verify(build: Build) -> None:
    """Raise InstallError unless the installed Horovod has every feature of `build`."""
    built = check_build()
    if lost := [feature for feature in build.features if not built.get(feature)]:
        raise InstallError(f"Horovod was built without {', '.join(lost)}: see horovodrun --check-build --verbose")


def _build_wheel(build: Build, *, folder: Path, jobs: int, report: Report, status: Report | None) -> Path:
    """Build in `folder` (whose lock is held) and return the finished wheel there."""
    if missing := missing_prerequisites():
        raise InstallError("\n".join(missing))
    log = folder / "build.log"
    log.write_bytes(b"")
    (folder / "against.txt").write_text(f"{describe(build.stack)}\n", encoding="utf-8")
    run = {"log": log, "report": report, "status": status}
    with plain_paths(Path(sys.prefix), folder / "build") as paths:
        work = paths.work
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        with_tools = _tools_environment(paths)
        pip = [str(paths.prefix / "bin" / Path(sys.executable).name), "-m", "pip"]
        try:
            report("Fetching the build tools and Horovod's source (usually under a minute)")
            tools = ["--target", str(work / "tools"), *TOOLS]
            run_logged([*pip, "install", *tools], "Fetching the build tools", environment=with_tools, **run)
            source = ["--no-deps", "--no-build-isolation", "--no-binary", "horovod", f"horovod=={HOROVOD}"]
            download = [*pip, "download", "--dest", str(work), *source]
            run_logged(download, "Fetching Horovod's source", environment=with_tools, **run)
            tree = _unpack(work)
            apply_edits(tree)
            usual = CPU_SECONDS / min(jobs, given_cores()) / 60
            report(f"Compiling with {jobs} jobs (usually about {max(1, round(usual))} min; log: {log})")
            wheel = ["--verbose", "--no-deps", "--no-build-isolation", "--use-pep517", "--wheel-dir", str(work)]
            environment = with_tools | _build_variables(build, paths=paths, jobs=jobs)
            run_logged([*pip, "wheel", *wheel, str(tree)], "Compiling Horovod", environment=environment, **run)
            return _keep(next(work.glob("horovod-*.whl")), folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _keep(wheel: Path, folder: Path) -> Path:
    """Move the wheel, which may be on another disk, into `folder`; it appears there complete or not at all."""
    part = Path(shutil.move(wheel, folder / f"{wheel.name}.part"))
    return part.replace(folder / wheel.name)


def _unpack(work: Path) -> Path:
    archive = next(work.glob("horovod-*.tar.gz"))
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in Python 3.11.2
    with tarfile.open(archive) as tar:
        tar.extractall(work, **safely)
    return work / archive.name.removesuffix(".tar.gz")


def _tools_environment(paths: BuildPaths) -> dict[str, str]:
    tools = paths.work / "tools"
    # HOROVOD_* that are set for running (a controller, an interface) must not become defaults of the build.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOROVOD_")}
    return (
        inherited
        | paths.variables
        | {
            "PATH": os.pathsep.join([str(tools / "bin"), str(paths.prefix / "bin"), scripts_first_path()]),
            "PYTHONPATH": str(tools),
            "HOROVOD_CMAKE": str(tools / "bin/cmake"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
        }
    )


def _build_variables(build: Build, *, paths: BuildPaths, jobs: int) -> dict[str, str]:
    # The linker records absolute folders. A wheel from the cache must find MPI and NCCL in whichever environment it is
    # installed in, so paths relative to Horovod's own libraries come first. The backslash is for CMake's link script.
    home = Path(sysconfig.get_path("platlib")) / "horovod/torch"
    rpaths = [f"-Wl,-rpath,\\$ORIGIN/{os.path.relpath(library, home)}" for library in build.bundled_libraries()]
    variables = build.variables
    if build.nccl:
        variables["HOROVOD_NCCL_LIB"] = str(_linkable(build.stack.nccl.library, paths.work / "nccl"))
    variables = {name: value.replace(str(build.stack.prefix), str(paths.prefix)) for name, value in variables.items()}
    return variables | {
        "CMAKE_GENERATOR": "Unix Makefiles",
        "CXX": build.stack.compiler.command,
        "LDFLAGS": " ".join([*rpaths, variables.get("LDFLAGS", "")]).strip(),
        "MAKEFLAGS": f"-j{jobs}",  # also keeps a calling make's own flags out
    }


def _linkable(library: Path, folder: Path) -> Path:
    """Return a folder where the linker finds NCCL: the wheels of the frameworks bring libnccl.so.2 without its link."""
    if (library / "libnccl.so").exists():
        return library
    folder.mkdir()
    (folder / "libnccl.so").symlink_to(next(library.glob("libnccl.so.*")))
    return folder


def _install_wheel(wheel: Path, *, log: Path, report: Report, status: Report | None) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    log.write_bytes(b"")
    run = {"log": log, "environment": dict(os.environ), "report": report, "status": status}
    # First the wheel alone, also over an equal version; then whatever it depends on and the environment lacks.
    run_logged([*pip, "--force-reinstall", "--no-deps", str(wheel)], "Installing Horovod", **run)
    run_logged([*pip, str(wheel)], "Installing what Horovod needs", **run)
