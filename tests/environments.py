"""Second environments for tests: a real interpreter of its own, onto which packages of the tests' environment are linked."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Collection, Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def make_environment(folder: Path, *, without: Collection[str] = ()) -> Path:
    """Make one with every package that is installed here but those named; `folder` again."""
    there = make_empty_environment(folder)
    here = Path(sysconfig.get_path("platlib"))
    for path in here.iterdir():
        package = path.name.partition("-")[0].partition(".")[0]
        if path.suffix != ".pth" and package not in (*without, "hvbench", "__editable__"):
            (there / path.name).symlink_to(path)
    return folder


def make_empty_environment(folder: Path) -> Path:
    """Make one without any package, not even pip; the folder that its packages belong into."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", folder], check=True)
    return folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def link_requirements(there: Path, requirements: Iterable[str]) -> None:
    """Link into an environment what `requirements` ask for and all that those need in turn, as installed here, and nothing else."""
    for found in find_requirements(requirements):
        here = Path(str(found.locate_file("")))
        for name in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (there / name).exists():  # several packages may share a folder
                (there / name).symlink_to(here / name)


def find_requirements(requirements: Iterable[str]) -> list[Distribution]:
    """The distributions that `requirements` ask for, and those that these need; raises PackageNotFoundError where one is missing here."""
    found: dict[str, Distribution] = {}
    asked = [(Requirement(text), "") for text in requirements]
    while asked:
        requirement, extra = asked.pop()
        name = canonicalize_name(requirement.name)
        if name in found or requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        found[name] = distribution(name)
        asked += [
            (Requirement(text), each) for text in found[name].requires or () for each in ("", *requirement.extras)
        ]
    return list(found.values())
