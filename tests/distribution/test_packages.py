"""The sdist and the wheel: built from what git tracks with what pyproject.toml asks for, and at work where no framework is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

from hvbench import __version__
from hvbench.spec.suite import list_suites
from tests import patience
from tests.environments import link_requirements, make_empty_environment

ROOT = Path(__file__).parents[2]
RUN = ROOT / "results" / "reference" / "convergence"
BACKEND = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
ABSENT = ("torch", "tensorflow", "keras", "horovod", "mpi4py", "pytest", "setuptools")


def list_tracked(*paths: str) -> list[str]:
    """Files of the repository, as `git ls-files` names them, that are there."""
    words = ["git", "ls-files", "-z", "--", *paths]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


def call(words: list[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that finds nothing of this checkout."""
    hidden = ("PYTHONPATH", "HVBENCH_", "HOROVOD_", "OMPI_", "PMI_", "PMIX_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return subprocess.run(
        list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True, timeout=patience.SECONDS
    )


def build(python: Path, kind: str, source: Path, out: Path) -> Path:
    """What `python -m build` makes of a folder, `sdist` or `wheel`: it calls this function of the back end there."""
    out.mkdir(exist_ok=True)
    done = call([python, "-c", BACKEND, f"build_{kind}", out], source)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


def read_wheel(path: Path) -> dict[str, bytes]:
    """Name -> content of the files in a wheel, but for the list of their digests."""
    with zipfile.ZipFile(path) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/RECORD")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A sdist, the wheel that follows from it, and the one of the checkout; in an environment of what a build asks for."""
    folder = tmp_path_factory.mktemp("built")
    clone = folder / "clone"
    for name in list_tracked():
        if not name.startswith("results/"):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    needed = tomllib.loads((clone / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    link_requirements(make_empty_environment(folder / "builder"), needed)
    python = folder / "builder" / "bin" / "python"
    sdist = build(python, "sdist", clone, folder / "sdist")
    wheel = build(python, "wheel", clone, folder / "wheel")
    subprocess.run(["tar", "-xzf", sdist, "-C", folder], check=True)
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    return sdist, build(python, "wheel", unpacked, folder / "again"), wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment with the wheel and what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    packages = make_empty_environment(folder / "environment")
    python = folder / "environment" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    done = call([*pip, "install", "--quiet", "--no-index", "--no-deps", "--no-compile", built[1]], folder)
    assert done.returncode == 0, done.stderr
    (found,) = distributions(path=[str(packages)])
    link_requirements(packages, [text for text in found.requires or () if "extra ==" not in text])
    done = call([*pip, "check"], folder)
    assert done.returncode == 0, done.stdout
    look = f"import importlib.util as u; print([name for name in {ABSENT} if u.find_spec(name)])"
    assert call([python, "-c", look], folder).stdout == "[]\n"
    return python.parent


def test_the_sdist_makes_the_same_wheel_as_the_checkout(built: tuple[Path, Path, Path]) -> None:
    sdist, again, wheel = built
    assert sdist.name == f"hvbench-{__version__}.tar.gz"
    assert again.name == wheel.name == f"hvbench-{__version__}-py3-none-any.whl"
    assert read_wheel(again) == read_wheel(wheel)


def test_the_wheel_has_every_file_of_the_package_and_no_other(built: tuple[Path, Path, Path]) -> None:
    wanted = {name.replace("suites/", "hvbench/suites/", 1) for name in list_tracked("suites", "hvbench")}
    names = {name for name in read_wheel(built[1]) if ".dist-info/" not in name and ".data/" not in name}
    assert names == wanted


def test_the_wheel_has_the_manual_page_of_these_commands(built: tuple[Path, Path, Path]) -> None:
    """In a process of its own: click keeps with a command how its help was first asked for."""
    code = "import sys; from hvbench.cli.manual import render_manual; sys.stdout.write(render_manual())"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True).stdout
    assert read_wheel(built[1])[f"hvbench-{__version__}.data/data/share/man/man1/hvbench.1"] == shown


def test_it_works_without_any_framework(installed: Path, tmp_path: Path) -> None:
    """The commands that read: help, plans, reports and comparisons."""
    program = installed / "hvbench"
    runs = [shutil.copytree(RUN, tmp_path / name) for name in ("one", "other")]
    said = {}
    for words in (["--help"], ["suites"], ["plan", "quickstart"], ["report", runs[0]], ["compare", *runs]):
        done = call([program, *words], tmp_path)
        assert done.returncode == 0 and "Traceback" not in done.stderr, (words, done)
        said[words[0]] = done.stdout
    assert "Usage: hvbench" in said["--help"]
    assert [line.split()[0] for line in said["suites"].splitlines()] == [path.stem for path in list_suites()]
    assert "No framework is installed here" in said["plan"] and "tensorflow" in said["plan"]
    assert (runs[0] / "report.html").stat().st_size > 100_000
    assert "pytorch" in said["compare"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "smoke", "--np", "2"], "points can run: pytorch is not installed here; see hvbench doctor"),
        (["ab", "smoke", "--np", "2", "--b", "rev=HEAD"], "this folder lies in no git repository: start in a checkout"),
    ],
)
def test_what_needs_a_framework_or_the_sources_is_one_line(
    words: list[str], message: str, installed: Path, tmp_path: Path
) -> None:
    done = call([installed / "hvbench", *words], tmp_path)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "") and message in line
