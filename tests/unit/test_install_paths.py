"""A build in paths with spaces: it sees an environment and a folder without any, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hvbench.install.paths import plain_paths


def make_environment(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    for name in ("mpicxx", "mpirun", "opal_wrapper"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} as $(basename "$0"), OPAL_PREFIX=$OPAL_PREFIX"\n')
        program.chmod(0o755)
    return folder


def test_paths_without_spaces_stay(tmp_path: Path) -> None:
    with plain_paths(tmp_path / "environment", tmp_path / "work") as paths:
        assert (paths.prefix, paths.work, paths.variables) == (tmp_path / "environment", tmp_path / "work", {})


def test_an_environment_with_a_space_is_seen_by_a_path_without(tmp_path: Path) -> None:
    prefix = make_environment(tmp_path / "my environment")
    with plain_paths(prefix, tmp_path / "work") as paths:
        assert " " not in str(paths.prefix) and paths.work == tmp_path / "work"
        python = [str(paths.prefix / "bin" / "python"), "-c", "import sys; print(sys.prefix)"]
        assert subprocess.run(python, capture_output=True, text=True, check=True).stdout.strip() == str(paths.prefix)
        said = {
            name: subprocess.run([paths.prefix / "bin" / name], env=paths.variables, capture_output=True, text=True)
            for name in ("mpicxx", "mpirun")
        }
        assert said["mpicxx"].stdout.startswith(f"opal_wrapper as mpicxx, OPAL_PREFIX={paths.prefix}")
        assert said["mpirun"].stdout.startswith("mpirun as mpirun")
        links = paths.prefix
    assert not links.exists() and (prefix / "bin" / "python").exists()


def test_a_cache_with_a_space_is_not_built_in(tmp_path: Path) -> None:
    with plain_paths(tmp_path / "environment", tmp_path / "my cache" / "build") as paths:
        assert " " not in str(paths.work) and paths.prefix == tmp_path / "environment"
        assert paths.work.parent.is_dir()
    assert not paths.work.parent.exists()
