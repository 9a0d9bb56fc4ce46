"""The files of a text: which ones a path means, and which are left out. Imports only the standard library.

Hidden names and links to folders are not followed, so version control and link cycles do not matter. Runs of hvbench and
its cache are left out: they grow while a run reads the text.
"""

from __future__ import annotations

import os
import platform
import stat
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hvbench.errors import DataError
from hvbench.io.cache import cache_root
from hvbench.io.folders import is_run_folder

MAX_FILES = 200_000
MAX_BYTES = 1 << 40

STDLIB_EXCLUDED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
STDLIB_EXCLUDED_FILES = ("_sysconfigdata", "sitecustomize", "usercustomize")


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A regular, non-empty file; `relative` is its POSIX path within the corpus, the same on every machine."""

    relative: str
    path: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Files, or folders and links, that lie in a text and are no part of it, for one reason; of bytes only what was looked at."""

    reason: str
    count: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The non-empty regular files of a text in order, not read yet; `source` names it in messages."""

    source: str
    files: list[TextFile]
    left_out: tuple[LeftOut, ...] = ()


def find_files(data: str) -> Listing:
    """The files that `data` means. Raises DataError, one line that names what is wrong."""
    if data == "stdlib":
        root = sysconfig.get_path("stdlib")
        source = f"the standard library of {platform.python_implementation()} {platform.python_version()}"
        listing = _list_folder(root, source, accept_folder=_is_stdlib_folder, accept_file=_is_stdlib_file)
        if not listing.files:
            raise DataError(f"{source} has no .py files in {root!r}; set data to a path of your own text")
        return listing

    source = f"data = {data!r}"
    try:
        path = os.fspath(Path(data).expanduser())
        status = os.stat(path)
    except FileNotFoundError:
        raise DataError(
            f'{source}: no such file or folder; allowed: a path (with a comma in it: between quotes), "stdlib" or "synthetic"'
        ) from None
    except RuntimeError:
        raise DataError(f"{source}: there is no such home folder; write the path without ~") from None
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        if is_run_folder(Path(path)):
            raise DataError(f"{source}: a run of hvbench, whose logs and records change; allowed: a folder of text")
        listing = _list_folder(path, source, accept_folder=_is_visible, accept_file=_is_visible)
        if not listing.files:
            raise DataError(f"{source}: no file with text in this folder (hidden and empty files do not count)")
        return listing
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{source}: must be a regular file or a folder, not a device, pipe or socket")
    if status.st_size == 0:
        raise DataError(f"{source}: the file is empty")
    files = [TextFile(relative=os.path.basename(path), path=path, size_bytes=status.st_size)]
    _require_moderate(source, files=1, size_bytes=status.st_size)
    return Listing(source=source, files=files)


def describe_left_out(left_out: Iterable[LeftOut]) -> str:
    """`9 not utf-8 (1.2 kB), 1 broken link`; nothing for nothing."""
    return ", ".join(
        f"{each.count} {each.reason}" + (f" ({format_bytes(each.size_bytes)})" if each.size_bytes else "")
        for each in left_out
    )


def format_bytes(count: int) -> str:
    """`512 bytes`, `16.2 kB`, `175 kB`, `3.1 MB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.{1 if count < 100 * size else 0}f} {unit}"
    return f"{count} bytes"


def _is_stdlib_folder(name: str) -> bool:
    return name not in STDLIB_EXCLUDED_FOLDERS and not name.startswith("config-")


def _is_stdlib_file(name: str) -> bool:
    return name.endswith(".py") and not name.startswith(STDLIB_EXCLUDED_FILES)


def _is_visible(name: str) -> bool:
    return not name.startswith(".")


def _list_folder(
    root: str, source: str, *, accept_folder: Callable[[str], bool], accept_file: Callable[[str], bool]
) -> Listing:
    """Regular non-empty files below `root`, sorted; links to files are followed, links to folders are not."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{source}: {error.filename!r}: {error.strerror}")

    files, size_bytes = [], 0
    left_out: Counter[str] = Counter()
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = _choose_folders(folder, filter(accept_folder, folders), left_out=left_out)
        for name in filter(accept_file, names):
            path = os.path.join(folder, name)
            try:
                status = os.stat(path)
            except OSError as error:
                if os.path.islink(path):
                    left_out["broken or circular link"] += 1
                    continue
                refuse(error)
            # Only regular files are opened, since a pipe would block. Files of the kernel have size 0.
            if not stat.S_ISREG(status.st_mode):
                left_out["pipe, socket or device"] += 1
            elif status.st_size > 0:
                relative = Path(path).relative_to(root).as_posix()
                files.append(TextFile(relative=relative, path=path, size_bytes=status.st_size))
                size_bytes += status.st_size
                _require_moderate(source, files=len(files), size_bytes=size_bytes)
    return Listing(
        source=source,
        files=sorted(files, key=lambda file: file.relative),
        left_out=tuple(LeftOut(reason=reason, count=count, size_bytes=0) for reason, count in sorted(left_out.items())),
    )


def _choose_folders(folder: str, names: Iterable[str], *, left_out: Counter[str]) -> list[str]:
    """Those of the subfolders `names` whose files are text; the others are counted in `left_out`."""
    kept = []
    for name in names:
        path = Path(folder, name)
        if path.is_symlink():
            left_out["link to a folder"] += 1
        elif is_run_folder(path):
            left_out["folder of a run of hvbench"] += 1
        elif path.absolute() == cache_root():
            left_out["folder with hvbench's cache"] += 1
        else:
            kept.append(name)
    return kept


def _require_moderate(source: str, *, files: int, size_bytes: int) -> None:
    if files > MAX_FILES or size_bytes > MAX_BYTES:
        raise DataError(
            f"{source}: too large; allowed: {MAX_FILES:,} files and {MAX_BYTES >> 40} TiB together, choose a part of it"
        )
