"""The text of a corpus: reading, digesting and splitting its files. Imports only the standard library.

A file is text where it has a byte order mark, or the encoding that was asked for, and no NUL; any other one is left out of
a folder, counted by its reason, and an error where it is the only file. A corpus is the UTF-8 of its files in the order of
their relative POSIX paths, with nothing between them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hvbench.errors import DataError
from hvbench.training.decoding import UTF8, NotTextError, to_utf8
from hvbench.training.files import MAX_BYTES, LeftOut, Listing, TextFile, describe_left_out, find_files, format_bytes

VALIDATION_PERCENT = 5
# Range of the validation share, in percent of the bytes, in which the text is split by file; else it is split by position.
VALIDATION_PERCENT_RANGE = (1, 20)

MIN_BYTES = 100  # less cannot be split into two parts that both have text
CHUNK_BYTES = 1 << 16  # the tokeniser sees pieces of at most this, cut after a line's end


@dataclass(frozen=True, kw_only=True)
class Text:
    """The files of a corpus that are text, and the digest of their paths, contents and the tokeniser's settings.

    Sizes are those of the text in UTF-8.
    """

    source: str
    files: list[TextFile]
    left_out: tuple[LeftOut, ...]
    encoding: str
    settings: str
    digest: str

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def check(data: str, *, encoding: str = UTF8) -> str | None:
    """Read `data` once: a line about what of it is no text, or None; raises DataError where nothing can be trained on."""
    if data == "synthetic":
        return None
    text = examine(find_files(data), encoding=encoding)
    return describe_loss(text.source, files=len(text.files), size_bytes=text.size_bytes, left_out=text.left_out)


def describe_loss(source: str, *, files: int, size_bytes: int, left_out: Iterable[LeftOut]) -> str | None:
    """One line about what is left out of a text, and how much is read; None where nothing is left out."""
    reasons = list(left_out)
    if not reasons:
        return None
    read = f"{files} file{'s' * (files != 1)}, {format_bytes(size_bytes)}"
    hint = "; encoding = NAME reads files of another encoding" if any(each.size_bytes for each in reasons) else ""
    return f"{source}: trains on {read}; left out: {describe_left_out(reasons)}{hint}"


def _read(file: TextFile, *, encoding: str) -> bytes:
    """The file's text in UTF-8. Raises NotTextError, and DataError where it cannot be read."""
    try:
        with open(file.path, "rb") as stream:
            content = stream.read(MAX_BYTES)
    except OSError as error:
        raise DataError(f"{file.path!r} cannot be read: {error.strerror}") from None
    return to_utf8(content, encoding=encoding)


def examine(listing: Listing, *, encoding: str = UTF8, settings: str = "") -> Text:
    """Read every file once, keep those that are text, and digest them with the tokeniser's `settings`. Raises DataError."""
    sha256 = hashlib.sha256(settings.encode())
    kept: list[TextFile] = []
    refused: dict[str, list[int]] = {}
    for file in listing.files:
        try:
            content = _read(file, encoding=encoding)
        except NotTextError as reason:
            refused.setdefault(_in_plural(str(reason)), []).append(file.size_bytes)
            continue
        if content:
            sha256.update(_header(file, content))
            sha256.update(content)
            kept.append(TextFile(relative=file.relative, path=file.path, size_bytes=len(content)))
    unread = [LeftOut(reason=why, count=len(each), size_bytes=sum(each)) for why, each in sorted(refused.items())]
    text = Text(
        source=listing.source,
        files=kept,
        left_out=(*unread, *listing.left_out),
        encoding=encoding,
        settings=settings,
        digest=sha256.hexdigest()[:16],
    )
    if not kept:
        raise _no_text(text, listing)
    if text.size_bytes < MIN_BYTES:
        lost = f" ({describe_left_out(text.left_out)} left out)" if text.left_out else ""
        raise DataError(
            f"{listing.source}: {text.size_bytes} bytes of text{lost} are too few to train on; at least {MIN_BYTES}"
        )
    return text


def _no_text(text: Text, listing: Listing) -> DataError:
    """Of a text without any file that can be read as one: why, and what would be."""
    if len(listing.files) == 1:
        what = f"not a text file: {text.left_out[0].reason if text.left_out else 'nothing but a byte order mark'}"
    else:
        what = f"none of its {len(listing.files)} files is text: {describe_left_out(text.left_out)}"
    wanted = f"text is {text.encoding}, or what its byte order mark says, without NUL bytes"
    return DataError(f"{text.source}: {what}; {wanted}; encoding = NAME reads another one")


def _in_plural(reason: str) -> str:
    """`9 with NUL bytes`, `9 not utf-8`: what follows a count."""
    return reason if reason.startswith("not ") else f"with {reason}"


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
        try:
            content = _read(file, encoding=text.encoding)
        except NotTextError:
            raise _changed(text) from None
        sha256.update(_header(file, content))
        sha256.update(content)
        while train_bytes < len(content) and _is_inside_character(content[train_bytes]):
            train_bytes += 1
        yield file, _cut(content[train_bytes:] if held_out else content[:train_bytes])
    if sha256.hexdigest()[:16] != text.digest:
        raise _changed(text)


def _changed(text: Text) -> DataError:
    return DataError(f"{text.source} changed while it was read; start again when nothing writes to it")


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
