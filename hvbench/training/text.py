"""The text files of a corpus: finding, reading, digesting and splitting them. Imports only the standard library.

Text is UTF-8 without NUL bytes; any other file is skipped in a folder, and an error where it is the only file. Hidden
names and links to folders are not followed, so version control and link cycles do not matter. A corpus is its files in
the order of their relative POSIX paths, with nothing between them.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import platform
import stat
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hvbench.errors import DataError

VALIDATION_PERCENT = 5
# Range of the validation share, in percent of the bytes, in which the text is split by file; else it is split by position.
VALIDATION_PERCENT_RANGE = (1, 20)

MAX_FILES = 200_000
MAX_BYTES = 1 << 30
MIN_BYTES = 100  # less cannot be split into two parts that both have text
HEAD_BYTES = 1 << 16
CHUNK_BYTES = 1 << 16  # the tokeniser sees pieces of at most this, cut after a line's end

STDLIB_EXCLUDED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
STDLIB_EXCLUDED_FILES = ("_sysconfigdata", "sitecustomize", "usercustomize")


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A regular, non-empty file; `relative` is its POSIX path within the corpus, the same on every machine."""

    relative: str
    path: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Text:
    """The files of a corpus that are text, and the digest of their paths, contents and the tokeniser's settings."""

    source: str
    files: list[TextFile]
    files_skipped: int
    settings: str
    digest: str

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def check(data: str) -> None:
    """Raise DataError where `data` cannot be trained on, as far as names, sizes and the beginning of a file tell."""
    if data == "synthetic":
        return
    source, files = find_files(data)
    if not any(_is_text(_read(file, limit_bytes=HEAD_BYTES), whole=False) for file in files):
        raise _not_text(source, files)


def find_files(data: str) -> tuple[str, list[TextFile]]:
    """The source's name for messages, and its non-empty regular files in order, not read yet. Raises DataError."""
    if data == "stdlib":
        root = sysconfig.get_path("stdlib")
        source = f"the standard library of {platform.python_implementation()} {platform.python_version()}"
        files = _list_folder(root, source, accept_folder=_is_stdlib_folder, accept_file=_is_stdlib_file)
        if not files:
            raise DataError(f"{source} has no .py files in {root!r}; set data to a path of your own text")
        return source, files

    source = f"data = {data!r}"
    try:
        path = os.fspath(Path(data).expanduser())
        status = os.stat(path)
    except FileNotFoundError:
        raise DataError(f'{source}: no such file or folder; allowed: a path, "stdlib" or "synthetic"') from None
    except RuntimeError:
        raise DataError(f"{source}: there is no such home folder; write the path without ~") from None
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        files = _list_folder(path, source, accept_folder=_is_visible, accept_file=_is_visible)
        if not files:
            raise DataError(f"{source}: no file with text in this folder (hidden and empty files do not count)")
        return source, files
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{source}: must be a regular file or a folder, not a device, pipe or socket")
    if status.st_size == 0:
        raise DataError(f"{source}: the file is empty")
    files = [TextFile(relative=os.path.basename(path), path=path, size_bytes=status.st_size)]
    _require_moderate(source, files=1, size_bytes=status.st_size)
    return source, files


def _is_stdlib_folder(name: str) -> bool:
    return name not in STDLIB_EXCLUDED_FOLDERS and not name.startswith("config-")


def _is_stdlib_file(name: str) -> bool:
    return name.endswith(".py") and not name.startswith(STDLIB_EXCLUDED_FILES)


def _is_visible(name: str) -> bool:
    return not name.startswith(".")


def _list_folder(
    root: str, source: str, *, accept_folder: Callable[[str], bool], accept_file: Callable[[str], bool]
) -> list[TextFile]:
    """Regular non-empty files below `root`, sorted; links to files are followed, links to folders are not."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{source}: {error.filename!r}: {error.strerror}")

    files = []
    size_bytes = 0
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = filter(accept_folder, folders)
        for name in filter(accept_file, names):
            path = os.path.join(folder, name)
            try:
                status = os.stat(path)
            except OSError as error:
                if os.path.islink(path):  # broken or circular
                    continue
                refuse(error)
            # Only regular files are opened, since a pipe would block. Files of the kernel have size 0.
            if stat.S_ISREG(status.st_mode) and status.st_size > 0:
                relative = Path(path).relative_to(root).as_posix()
                files.append(TextFile(relative=relative, path=path, size_bytes=status.st_size))
                size_bytes += status.st_size
                _require_moderate(source, files=len(files), size_bytes=size_bytes)
    return sorted(files, key=lambda file: file.relative)


def _require_moderate(source: str, *, files: int, size_bytes: int) -> None:
    if files > MAX_FILES or size_bytes > MAX_BYTES:
        raise DataError(
            f"{source}: too large; allowed: {MAX_FILES:,} files and {MAX_BYTES >> 30} GiB together, choose a part of it"
        )


def _read(file: TextFile, *, limit_bytes: int = MAX_BYTES) -> bytes:
    try:
        with open(file.path, "rb") as stream:
            return stream.read(limit_bytes)
    except OSError as error:
        raise DataError(f"{file.path!r} cannot be read: {error.strerror}") from None


def _is_text(content: bytes, *, whole: bool = True) -> bool:
    """Whether `content` is UTF-8 without NUL bytes; where it is not the `whole` file, its last character may be cut off."""
    if b"\0" in content:
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(content), HEAD_BYTES):
            decoder.decode(content[start : start + HEAD_BYTES])
        decoder.decode(b"", final=whole)
    except UnicodeDecodeError:
        return False
    return True


def _not_text(source: str, files: list[TextFile]) -> DataError:
    what = "not a text file" if len(files) == 1 else f"none of its {len(files)} files is text"
    return DataError(f"{source}: {what}; text is UTF-8 without NUL bytes")


def examine(source: str, files: list[TextFile], *, settings: str) -> Text:
    """Read every file once, keep those that are text, and digest them with the tokeniser's `settings`. Raises DataError."""
    sha256 = hashlib.sha256(settings.encode())
    kept = []
    for file in files:
        content = _read(file)
        if _is_text(content):
            sha256.update(_header(file, content))
            sha256.update(content)
            kept.append(TextFile(relative=file.relative, path=file.path, size_bytes=len(content)))
    text = Text(
        source=source,
        files=kept,
        files_skipped=len(files) - len(kept),
        settings=settings,
        digest=sha256.hexdigest()[:16],
    )
    if not kept:
        raise _not_text(source, files)
    if text.size_bytes < MIN_BYTES:
        raise DataError(f"{source}: {text.size_bytes} bytes of text are too few to train on; at least {MIN_BYTES}")
    return text


def _header(file: TextFile, content: bytes) -> bytes:
    """The bytes before a file's content in the digest: with both lengths, different lists of files never hash the same bytes."""
    path = os.fsencode(file.relative)
    return b"%d %d\n%b" % (len(path), len(content), path)


def _split(files: list[TextFile]) -> list[int]:
    """Number of leading bytes of each file that are training text; the rest of the file is validation text.

    A file is validation text when the hash of its relative path falls into the first 5 %. Where that gives too little or
    too much (a single file, or a few of unequal size), the last 5 % of the whole text are validation text instead.
    """
    total = sum(file.size_bytes for file in files)
    by_file = [0 if _is_held_out(file.relative) else file.size_bytes for file in files]
    least, most = VALIDATION_PERCENT_RANGE
    if least * total <= 100 * (total - sum(by_file)) <= most * total:
        return by_file
    remaining = total * (100 - VALIDATION_PERCENT) // 100
    by_position = []
    for file in files:
        by_position.append(min(file.size_bytes, remaining))
        remaining -= by_position[-1]
    return by_position


def _is_held_out(relative: str) -> bool:
    value = int.from_bytes(hashlib.sha256(os.fsencode(relative)).digest()[:8], "big")
    return value % 100 < VALIDATION_PERCENT


def cut_into_chunks(text: Text, *, held_out: bool) -> Iterator[bytes]:
    """The text of one split in order, in chunks of at most CHUNK_BYTES that end at a line's end where they can.

    Raises DataError at the end if the text has changed since `examine`.
    """
    return (chunk for _, chunks in cut_files(text, held_out=held_out) for chunk in chunks)


def cut_files(text: Text, *, held_out: bool) -> Iterator[tuple[TextFile, Iterator[bytes]]]:
    """The same by file: each file with its chunks of that split, which may be none."""
    sha256 = hashlib.sha256(text.settings.encode())
    for file, train_bytes in zip(text.files, _split(text.files), strict=True):
        content = _read(file)
        sha256.update(_header(file, content))
        sha256.update(content)
        while train_bytes < len(content) and _is_inside_character(content[train_bytes]):
            train_bytes += 1
        yield file, _cut(content[train_bytes:] if held_out else content[:train_bytes])
    if sha256.hexdigest()[:16] != text.digest:
        raise DataError(f"{text.source} changed while it was read; start again when nothing writes to it")


def _cut(content: bytes) -> Iterator[bytes]:
    start = 0
    while len(content) - start > CHUNK_BYTES:
        end = content.rfind(b"\n", start, start + CHUNK_BYTES) + 1
        if end == 0:  # no line ends here
            end = start + CHUNK_BYTES
            while _is_inside_character(content[end]):
                end -= 1
        yield content[start:end]
        start = end
    if start < len(content):
        yield content[start:]


def _is_inside_character(byte: int) -> bool:
    return byte & 0xC0 == 0x80  # UTF-8 continuation
