"""Where a script's Python would import the repository's own packages from: in a worktree, those of the worktree come first.

A package that is installed in editable mode, or whose folder is in PYTHONPATH, is imported from the repository as it is now,
in every revision's run: two revisions would be compared that train with the same code.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

from hvbench.launch.script_process import path_of_scripts
from hvbench.records.source import PACKAGE

SECONDS = 60.0
ASK = """
import json, sys
from importlib.metadata import distributions
found = [path for path in sys.path if path]
for distribution in distributions():
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        found.append(origin["url"])
print(json.dumps(found))
"""


def find_python_paths(command: str, environment: Mapping[str, str], *, repository: Path, worktree: Path) -> list[Path]:
    """Folders of the worktree that stand for those of the repository from which the command's Python imports."""
    given = [Path(text).absolute() for text in environment.get("PYTHONPATH", "").split(os.pathsep) if text]
    return stand_ins([*given, *ask_python(command, environment)], repository=repository, worktree=worktree)


def stand_ins(folders: Iterable[Path], *, repository: Path, worktree: Path) -> list[Path]:
    """The folders of the worktree that stand for those of `folders` that lie in the repository; hvbench's own are none."""
    found = []
    for folder in folders:
        resolved = folder.resolve()
        if not resolved.is_relative_to(repository) or resolved == PACKAGE.parent.resolve():
            continue
        stand_in = worktree / resolved.relative_to(repository)
        if stand_in.is_dir():
            found.append(stand_in)
    return list(dict.fromkeys(found))


def ask_python(command: str, environment: Mapping[str, str]) -> list[Path]:
    """Folders that a command's Python imports from by itself; none where the command begins with no Python."""
    try:
        program = shlex.split(command)[0]
    except (ValueError, IndexError):
        return []
    path = shutil.which(program, path=path_of_scripts(environment))
    if not path or not Path(path).name.startswith("python"):
        return []
    try:
        # -I: what PYTHONPATH adds is known, and nothing is imported from the folder here
        words = [path, "-I", "-c", ASK]
        answer = subprocess.run(
            words, env=dict(environment), capture_output=True, timeout=SECONDS, check=True, stdin=subprocess.DEVNULL
        )
        texts = [text for text in json.loads(answer.stdout) if isinstance(text, str)]
    except (OSError, ValueError, TypeError, subprocess.SubprocessError):
        return []
    roots = [Path(unquote(urlparse(text).path)) if text.startswith("file:") else Path(text) for text in texts]
    return [folder for root in roots for folder in (root / "src", root)]
