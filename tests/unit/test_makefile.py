"""The Makefile: it takes the Pythons that setup.py allows, in any folder, and installs for a purpose what that needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Stands for every Python: notes what it is asked for, and makes an environment of itself.
RECORDER = """#!/bin/sh
echo "$*" >> asked
case "$*" in
    *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in a folder with a space, and a Python of which another program is made up."""
    folder = tmp_path / "my checkout"
    (folder / "hvbench" / "install").mkdir(parents=True)
    for name in ("Makefile", "setup.py"):
        shutil.copy(ROOT / name, folder / name)
    python = tmp_path / "python 3"
    python.write_text(RECORDER)
    python.chmod(0o755)
    return folder


def make(checkout: Path, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}
    variables = {"PYTHON": str(checkout.parent / "python 3"), **variables}
    words = ["make", target, *(f"{name}={value}" for name, value in variables.items())]
    return subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True)


def installed(checkout: Path) -> list[str]:
    """What pip was asked to install, in order."""
    return re.findall(r"pip install .*--editable (\S+)", (checkout / "asked").read_text())


def test_a_purpose_installs_what_it_needs_in_a_folder_with_a_space(checkout: Path) -> None:
    done = make(checkout, "setup")
    assert done.returncode == 0, done.stderr
    assert installed(checkout) == [".[all]"], "no tests' libraries for who only runs"
    assert "-m hvbench.install" in (checkout / "asked").read_text().splitlines()
    assert "-m compileall -qq -j 0 .venv/lib" in (checkout / "asked").read_text(), "on all cores, where pip takes one"
    assert make(checkout, "setup-test").returncode == 0
    assert installed(checkout) == [".[all]", ".[all,test]"]
    assert make(checkout, "setup").returncode == make(checkout, "setup-test").returncode == 0
    assert len(installed(checkout)) == 2, "nothing is installed twice"


def test_whoever_sets_up_for_the_tests_installs_all_at_once(checkout: Path) -> None:
    for target in ("setup-test", "setup", "setup-test"):
        done = make(checkout, target)
        assert done.returncode == 0, done.stderr
    assert installed(checkout) == [".[all,test]"]
    assert (checkout / "asked").read_text().splitlines().count("-m hvbench.install") == 1


def test_the_style_needs_ruff_alone(checkout: Path) -> None:
    make(checkout, "style")  # fails in the end: the made-up Python installs no ruff
    asked = (checkout / "asked").read_text()
    assert re.search(r"pip install --disable-pip-version-check ruff==\S+$", asked, re.M) and "editable" not in asked


def test_the_makefile_takes_the_pythons_that_setup_py_allows() -> None:
    makefile, setup = ((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "setup.py"))
    least, beyond = map(int, re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', setup).groups())
    names = re.search(r"^PYTHONS := (.+)$", makefile, re.M)[1].split()
    assert names == [*(f"python3.{minor}" for minor in range(least, beyond)), "python3"]
    assert f"(3, {least}) <= sys.version_info[:2] < (3, {beyond})" in makefile


def test_another_python_is_refused_in_one_line(checkout: Path) -> None:
    old = checkout.parent / "old"
    old.write_text('#!/bin/sh\ntest "$1" != --version || { echo Python 3.9.1; exit 0; }\nexit 1\n')
    old.chmod(0o755)
    done = make(checkout, "setup", PYTHON=str(old))
    assert done.returncode != 0 and not (checkout / ".venv").exists()
    assert (
        done.stderr.splitlines()[0] == "error: Python 3.9.1 is not supported: set PYTHON to a Python 3.11, 3.12 or 3.13"
    )
