"""Check for what only the system's package manager can install: a C++ compiler, make, Python's headers, venv.

It runs before anything is downloaded. Each missing thing gives one line with the Debian command that installs it.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from hvbench.install.stack import find_compiler

PROGRAM = "#include <optional>\nint main() { std::optional<int> zero{0}; return *zero; }\n"


def missing_prerequisites(*, environment: bool = False) -> list[str]:
    """Return a line for each missing thing; `environment`: also what making a virtual environment needs."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    missing = []
    if problem := compiler_problem():
        missing.append(problem)
    if shutil.which("make") is None:
        missing.append("make is missing: apt-get install make")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        missing.append(f"Python's headers are missing ({header}): apt-get install {python}-dev")
    if environment:
        if not all(importlib.util.find_spec(module) for module in ("venv", "ensurepip")):
            missing.append(f"Python's venv module is missing or incomplete: apt-get install {python}-venv")
    elif importlib.util.find_spec("pip") is None:
        missing.append(f"this environment has no pip: {sys.executable} -m ensurepip")
    return missing


def compiler_problem() -> str | None:
    """Return why the C++ compiler cannot build a C++17 program, in one line, or None when it can."""
    compiler = find_compiler()
    if compiler is None:
        return "a C++ compiler is missing (looked for $CXX, c++, g++, clang++): apt-get install g++"
    with tempfile.TemporaryDirectory(prefix="hvbench-") as folder:
        source = Path(folder) / "program.cc"
        source.write_text(PROGRAM, encoding="utf-8")
        command = [*compiler.command.split(), "-std=c++17", str(source), "-o", str(source.with_suffix(""))]
        english = {**os.environ, "LC_ALL": "C"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, env=english)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"the C++ compiler {compiler.command!r} does not run ({error}): apt-get install g++"
    if done.returncode == 0:
        return None
    reason = next((line for line in done.stderr.splitlines() if "error" in line), "it says nothing").strip()
    return f"the C++ compiler {compiler.command!r} cannot build a C++17 program ({reason}): apt-get install g++"
