"""Bounded reads of untrusted files: a suite or a result may come from a pull request.

Nothing that is read is executed or leads to another file, and memory and time are in proportion to the file's size.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from hvbench.errors import UsageError

MAX_CONTAINERS = 2_000_000  # lists and objects in one JSON file: in memory each takes tens of times its two bytes
MAX_INTEGER_CHARACTERS = 20  # any signed or unsigned integer of 64 bits
RESULT_FILES = "results are regular files"


def read_regular_file(path: Path, *, max_bytes: int, kind: str = RESULT_FILES) -> bytes:
    """Content of a regular file of at most `max_bytes`.

    Links could lead outside of the folder that was given, and pipes could block, so both are refused.

    Args:
        path: The file.
        max_bytes: Largest size.
        kind: The end of an error's message: what is allowed.

    Raises:
        OSError: The file cannot be opened or read.
        UsageError: It is a link, a pipe, a device, a folder, or too large.
    """
    if path.is_symlink():
        raise UsageError(f"{path}: a link; {kind}")
    if path.exists() and not path.is_file():  # not opened, which alone can have effects on a device
        raise UsageError(f"{path}: not a regular file; {kind}")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path}: not a regular file; {kind}")
        content = file.read(max_bytes + 1) if status.st_size <= max_bytes else None  # the kernel's files have size 0
    if content is None or len(content) > max_bytes:
        raise UsageError(f"{path}: larger than {max_bytes} bytes; {kind}")
    return content


def refuse_links(folder: Path, *, names: tuple[str, ...]) -> None:
    """Raise UsageError where one of `names` in `folder` is a link: it could lead anywhere."""
    for name in names:
        if (folder / name).is_symlink():
            raise UsageError(f"{folder / name}: a link; {RESULT_FILES} and folders")


def load_json(content: bytes, *, where: str, max_depth: int) -> Any:
    """Parse a JSON text. Raises UsageError for invalid JSON, integers beyond 64 bits, or nesting beyond `max_depth`."""
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
    """Raise UsageError for dicts and lists nested beyond `max_depth`: recursion over them could exhaust the stack."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(max_depth):
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, (dict, list))]
        if not level:
            return
    raise UsageError(f"{where}: tables or lists nested more than {max_depth} deep")


def make_printable(text: str) -> str:
    """`text` with unprintable characters escaped: one line without control sequences for a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
