"""Files from strangers, read within bounds: a suite or a result may come from a pull request.

Nothing that is read here runs, leads to another file, or takes more memory or time than its size explains.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from hvbench.errors import UsageError

MAX_CONTAINERS = 2_000_000  # lists and objects in one JSON file: each takes tens of times its two bytes
MAX_INTEGER_CHARACTERS = 20  # any signed or unsigned integer of 64 bits
RESULTS = "results are regular files"


def read_regular_file(path: Path, *, max_bytes: int, kind: str = RESULTS) -> bytes:
    """Contents of a file that is no link, pipe or device and not absurdly large; raises OSError or UsageError.

    A link could lead outside the folder that somebody gave us, a pipe could block. `kind` ends the messages.
    """
    if path.is_symlink():
        raise UsageError(f"{path}: a link; {kind}")
    if path.exists() and not path.is_file():  # not even opened: a device may do something when it is
        raise UsageError(f"{path}: not a regular file; {kind}")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path}: not a regular file; {kind}")
        content = file.read(max_bytes + 1) if status.st_size <= max_bytes else None  # the kernel's own files say 0
    if content is None or len(content) > max_bytes:
        raise UsageError(f"{path}: larger than {max_bytes} bytes; {kind}")
    return content


def refuse_links(folder: Path, *, names: tuple[str, ...]) -> None:
    """Raise UsageError for a link in the place of one of the folder's own files and folders: it could lead anywhere."""
    for name in names:
        if (folder / name).is_symlink():
            raise UsageError(f"{folder / name}: a link; {RESULTS} and folders")


def load_json(content: bytes, *, where: str, max_depth: int) -> Any:
    """The value of a JSON text without integers beyond 64 bits, nested at most `max_depth`; raises UsageError."""
    if content.count(b"[") + content.count(b"{") > MAX_CONTAINERS:
        raise UsageError(f"{where}: more than {MAX_CONTAINERS} lists and objects; not written by hvbench")

    def read_integer(text: str) -> int:
        if len(text) > MAX_INTEGER_CHARACTERS:
            raise UsageError(f"{where}: holds an integer of {len(text)} digits; not written by hvbench")
        return int(text)

    try:
        value = json.loads(content, parse_int=read_integer)
    except (ValueError, RecursionError):
        raise UsageError(f"{where}: not JSON (truncated?)") from None
    require_shallow(value, where=where, max_depth=max_depth)
    return value


def require_shallow(value: Any, *, where: str, max_depth: int) -> None:
    """Raise UsageError for tables and lists nested so deeply that looking at them could exhaust the stack."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(max_depth):
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, (dict, list))]
        if not level:
            return
    raise UsageError(f"{where}: tables or lists nested more than {max_depth} deep")


def make_printable(text: str) -> str:
    """`text` as one line that can neither colour nor move a terminal's cursor: what is not printable is written as its code."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
