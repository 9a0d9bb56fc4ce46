"""Which training a script is: the revision of its repository, and a digest of the files that it is made of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hvbench.io.git import ask_git

UNTRACKED = (".py", ".pyx", ".cpp", ".cu", ".sh")  # of files that git does not track: outputs and caches are none
WITHOUT_GIT = (*UNTRACKED, ".toml", ".yaml", ".yml", ".json", ".cfg", ".ini")
NOT_SOURCE = ("__pycache__", "results", "node_modules", "venv", "env")
WRITTEN_BY_HVBENCH = frozenset({"run.json", "ab.json"})  # in a folder of results, whatever its name is
MAX_FILES = 20_000
BLOCK_BYTES = 2**20


def describe_script_source(folder: Path) -> dict[str, Any]:
    """`revision`, `is_dirty` (files differ from it) and `digest` of what lies in `folder`; None each where it is not known.

    In a git repository the digest is of all tracked files, as they are now, and of untracked sources; elsewhere of the
    files that look like source. It is None beyond MAX_FILES of them.
    """
    revision = ask_git(folder, "rev-parse", "HEAD")
    changes = ask_git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".") if revision else None
    files = list_tracked(folder) if revision else find_sources(folder, WITHOUT_GIT)
    names = sorted(set(files))[: MAX_FILES + 1]
    return {
        "revision": revision[:12] if revision else None,
        "is_dirty": None if changes is None else bool(changes),
        "digest": digest_of(folder, names) if len(names) <= MAX_FILES else None,
    }


def list_tracked(folder: Path) -> list[str]:
    """Paths below `folder` of the files that git tracks, and of untracked sources that it does not ignore."""
    tracked = ask_git(folder, "ls-files", "-z", "--cached", "--", ".") or ""
    others = ask_git(folder, "ls-files", "-z", "--others", "--exclude-standard", "--", ".") or ""
    return [
        *filter(None, tracked.split("\0")),
        *(name for name in others.split("\0") if name.endswith(UNTRACKED)),
    ]


def find_sources(folder: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Paths below `folder` of at most MAX_FILES + 1 files with these suffixes, hidden folders and outputs left out."""
    count = 0
    for base, folders, names in os.walk(folder):
        if base != str(folder) and WRITTEN_BY_HVBENCH.intersection(names):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if name not in NOT_SOURCE and not name.startswith("."))
        for name in sorted(names):
            if name.endswith(suffixes) and count <= MAX_FILES:
                count += 1
                yield str(Path(base, name).relative_to(folder))


def digest_of(folder: Path, names: Iterable[str]) -> str:
    """12 hexadecimal digits, of paths and contents; a file that is gone or no plain file counts as such."""
    digest = hashlib.sha256()
    for name in names:
        path = folder / name
        is_file = path.is_file()
        digest.update(f"{name}\0{path.stat().st_size if is_file else -1}\0".encode(errors="surrogateescape"))
        if is_file:
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
    return digest.hexdigest()[:12]
