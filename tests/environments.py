"""Second environments for tests: a real interpreter of its own, onto which the packages of the tests' environment are linked."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path


def make_environment(folder: Path, *, without: Collection[str] = ()) -> Path:
    """Make one with every package that is installed here but those named; `folder` again."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", folder], check=True)
    here = Path(sysconfig.get_path("platlib"))
    there = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for path in here.iterdir():
        package = path.name.partition("-")[0].partition(".")[0]
        if path.suffix != ".pth" and package not in (*without, "hvbench", "__editable__"):
            (there / path.name).symlink_to(path)
    return folder
