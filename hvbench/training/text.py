"""The text of a corpus: reading, digesting and splitting its files. Imports only the standard library.

A file is text where it has a byte order mark, or the encoding that was asked for, and no NUL; any other one is left out of
a folder, counted by its reason, and an error where it is the only file. A corpus is the UTF-8 of its files in the order of
their relative POSIX paths, with nothing between them. It is read as a stream: of a file, as of a text, only blocks are in memory.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hvbench.errors import DataError
from hvbench.training.decoding import MARK_BYTES, UTF8, NotTextError, find_mark, to_utf8
from hvbench.training.files import LeftOut, Listing, TextFile, describe_left_out, find_files, format_bytes

VALIDATION_PERCENT = 5
# Range of the validation share, in percent of the bytes, in which the text is split by file; else it is split by position.
VALIDATION_PERCENT_RANGE = (1, 20)

_Hash = Any  # of hashlib, which names no type for it

MIN_BYTES = 100  # less cannot be split into two parts that both have text
BLOCK_BYTES = 1 << 16  # of a file that is read at once: larger ones leave holes in the heap, and the processor's cache
CHUNK_BYTES = 1 << 16  # the tokeniser sees pieces of at most this, cut after a line's end


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of one file's text in UTF-8 that belongs to one split."""

    file: int  # its place in the text
    is_held_out: bool
    content: bytes


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


def _read(file: TextFile, *, encoding: str) -> Iterator[bytes]:
    """The file's text in UTF-8, in blocks. Raises NotTextError, and DataError where it cannot be read."""
    return to_utf8(_read_blocks(file), encoding=encoding)


def _read_blocks(file: TextFile) -> Iterator[bytes]:
    try:
        with open(file.path, "rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block
    except OSError as error:
        raise DataError(f"{file.path!r} cannot be read: {error.strerror}") from None


def _count_bytes(file: TextFile, *, encoding: str) -> int:
    """Bytes of the file's text in UTF-8, which its digest begins with: those of a file in UTF-8 are known before it is read."""
    head = next(_read_blocks(file), b"")[:MARK_BYTES]
    mark, encoding = find_mark(head, encoding=encoding)
    if encoding == UTF8:
        return file.size_bytes - len(mark)
    return sum(map(len, _read(file, encoding=encoding)))


def _hash_file(sha256: _Hash, file: TextFile, *, encoding: str) -> tuple[_Hash, int]:
    """The digest with one more file, and the bytes of its text in UTF-8. Raises NotTextError."""
    size = _count_bytes(file, encoding=encoding)
    for _ in range(2):  # its size was looked up before: it may have grown since
        longer, count = sha256.copy(), 0
        longer.update(_header(file, size))
        for block in _read(file, encoding=encoding):
            longer.update(block)
            count += len(block)
        if count == size:
            break
        size = count
    return longer, count


def examine(listing: Listing, *, encoding: str = UTF8, settings: str = "") -> Text:
    """Read every file once, keep those that are text, and digest them with the tokeniser's `settings`. Raises DataError."""
    sha256 = hashlib.sha256(settings.encode())
    kept: list[TextFile] = []
    refused: dict[str, list[int]] = {}
    for file in listing.files:
        try:
            longer, size = _hash_file(sha256, file, encoding=encoding)
        except NotTextError as reason:
            refused.setdefault(_in_plural(str(reason)), []).append(file.size_bytes)
            continue
        if size:
            sha256 = longer
            kept.append(TextFile(relative=file.relative, path=file.path, size_bytes=size))
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


def _header(file: TextFile, size_bytes: int) -> bytes:
    """The bytes before a file's content in the digest: with both lengths, different lists of files never hash the same bytes."""
    path = os.fsencode(file.relative)
    return b"%d %d\n%b" % (len(path), size_bytes, path)


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


def cut_into_chunks(text: Text) -> Iterator[Chunk]:
    """The text in order, in chunks of at most CHUNK_BYTES that end at a line's end where they can; of a file its training
    text comes first.

    Raises DataError at the end if the text has changed since `examine`.
    """
    sha256 = hashlib.sha256(text.settings.encode())
    for number, (file, train_bytes) in enumerate(zip(text.files, _split(text.files), strict=True)):
        sha256.update(_header(file, file.size_bytes))
        blocks = _hash_on_the_way(_read(file, encoding=text.encoding), sha256)
        try:
            for is_held_out, side in itertools.groupby(_divide(blocks, train_bytes), key=lambda part: part[0]):
                for content in _cut(part for _, part in side):
                    yield Chunk(file=number, is_held_out=is_held_out, content=content)
        except NotTextError:
            raise _changed(text) from None
    if sha256.hexdigest()[:16] != text.digest:
        raise _changed(text)


def _hash_on_the_way(blocks: Iterable[bytes], sha256: _Hash) -> Iterator[bytes]:
    for block in blocks:
        sha256.update(block)
        yield block


def _divide(blocks: Iterable[bytes], train_bytes: int) -> Iterator[tuple[bool, bytes]]:
    """(whether it is validation text, part of a block), in order; the border moves on to the next character's begin."""
    position, is_held_out = 0, False
    for block in blocks:
        border = len(block) if not is_held_out else 0
        if not is_held_out and position + len(block) > train_bytes:
            border = max(0, train_bytes - position)
            while border < len(block) and _is_inside_character(block[border]):
                border += 1
            is_held_out = border < len(block)
        position += len(block)
        if border:
            yield False, block[:border]
        if border < len(block):
            yield True, block[border:]


def _changed(text: Text) -> DataError:
    return DataError(f"{text.source} changed while it was read; start again when nothing writes to it")


def _cut(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Chunks of the text that `parts` make up."""
    content = b""
    for part in parts:
        content, start = content + part, 0
        while len(content) - start > CHUNK_BYTES:
            end = content.rfind(b"\n", start, start + CHUNK_BYTES) + 1
            if end == 0:  # no line ends here
                end = start + CHUNK_BYTES
                while _is_inside_character(content[end]):
                    end -= 1
            yield content[start:end]
            start = end
        content = content[start:]
    if content:
        yield content


def _is_inside_character(byte: int) -> bool:
    return byte & 0xC0 == 0x80  # UTF-8 continuation
