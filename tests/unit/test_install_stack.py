"""Detection imports nothing, and a missing prerequisite is an error of one line before anything is downloaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvbench.install import prerequisites
from hvbench.install.__main__ import main
from hvbench.install.stack import detect, find_compiler, find_cuda, find_framework, find_mpi, find_nccl

ROOT = Path(__file__).resolve().parents[2]


def program(path: Path, says: str, *, code: int = 0) -> Path:
    """Make a small program that prints a line, in place of a tool that this machine lacks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    path.chmod(0o755)
    return path


def test_detection_loads_no_package() -> None:
    script = (
        "import sys; from hvbench.install import detect; detect(); "
        "loaded = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names); "
        "print(*sorted(name for name in loaded if not name.startswith('_')))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "hvbench"


def test_this_environment_is_found() -> None:
    stack = detect()
    assert stack.python.startswith("3.")
    assert stack.prefix == Path(sys.prefix)
    assert all(framework.version[0].isdigit() for framework in stack.frameworks)


def test_a_framework_is_recognised_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "torch"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (folder / "version.py").write_text("from typing import Optional\ncuda: Optional[str] = '13.0'\n")
    (tmp_path / "torch-9.9.0.dist-info").mkdir()
    (tmp_path / "torch-9.9.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # another test may have imported the real one
    framework = find_framework("pytorch")
    assert (framework.version, framework.cuda) == ("9.9.0", True)
    (folder / "version.py").write_text("cuda: Optional[str] = None\n")
    assert not find_framework("pytorch").cuda


def test_mpi_cuda_and_nccl_are_found_by_their_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts, cuda_home = tmp_path / "bin", tmp_path / "cuda"
    monkeypatch.setattr("hvbench.install.stack.scripts_first_path", lambda: str(scripts))
    monkeypatch.delenv("HOROVOD_NCCL_HOME", raising=False)
    assert find_mpi() is None
    program(scripts / "mpicxx", "a compiler")
    program(scripts / "mpirun", "mpirun (Open MPI) 4.1.8")
    assert (find_mpi().name, find_mpi().version, find_mpi().bundled) == ("Open MPI", "4.1.8", False)

    monkeypatch.setenv("HOROVOD_CUDA_HOME", str(cuda_home))
    program(cuda_home / "bin/nvcc", "Cuda compilation tools, release 13.0, V13.0.48")
    (cuda_home / "include").mkdir()
    (cuda_home / "include/cuda_runtime.h").touch()
    (cuda_home / "include/nccl.h").write_text("#define NCCL_MAJOR 2\n#define NCCL_MINOR 28\n#define NCCL_PATCH 3\n")
    (cuda_home / "lib64").mkdir()
    (cuda_home / "lib64/libnccl.so.2").touch()
    cuda = find_cuda()
    assert (cuda.version, cuda.home) == ("13.0", cuda_home)
    nccl = find_nccl(cuda)
    assert (nccl.version, nccl.library) == ("2.28.3", cuda_home / "lib64")


def test_a_working_compiler_passes() -> None:
    assert prerequisites.compiler_problem() is None


def test_a_missing_compiler_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvbench.install.stack.scripts_first_path", lambda: str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert find_compiler() is None
    (line,) = prerequisites.missing_prerequisites(environment=True)
    assert line == "a C++ compiler is missing (looked for $CXX, c++, g++, clang++): apt-get install g++"


def test_a_compiler_without_a_standard_library_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = program(tmp_path / "c++", "fatal error: optional: No such file or directory", code=1)
    broken.write_text(broken.read_text().replace("'\nexit", "' >&2\nexit"))
    monkeypatch.setenv("CXX", str(broken))
    (line,) = prerequisites.missing_prerequisites(environment=True)
    assert "cannot build a C++17 program (fatal error: optional" in line and "\n" not in line


def test_missing_headers_make_and_venv_give_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(prerequisites.shutil, "which", lambda name, path=None: None)
    monkeypatch.setattr(prerequisites.importlib.util, "find_spec", lambda name: None)
    lines = prerequisites.missing_prerequisites(environment=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert [line.partition(": apt-get install ")[2] for line in lines[-3:]] == [
        "make",
        f"python{version}-dev",
        f"python{version}-venv",
    ]


def test_check_exits_with_the_documented_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check"]) == 0
    monkeypatch.setenv("CXX", str(program(tmp_path / "c++", "", code=1)))
    assert main(["--check"]) == 5
    errors = capsys.readouterr().err
    assert errors.startswith("error: the C++ compiler") and errors.count("\n") == 1


def test_make_stops_before_downloading_without_a_compiler(tmp_path: Path) -> None:
    for name in ("Makefile", "setup.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "hvbench").symlink_to(ROOT / "hvbench")
    environment = {**os.environ, "CXX": str(program(tmp_path / "bin/c++", "", code=1)), "PYTHON": sys.executable}
    environment.pop("MAKEFLAGS", None)
    done = subprocess.run(["make", "setup"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "apt-get install g++" in done.stderr
    assert not (tmp_path / ".venv").exists()
