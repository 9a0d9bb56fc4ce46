"""Bytes of a file -> UTF-8 text, or why they are none. Imports only the standard library.

A byte order mark says which encoding a file has; without one it has the encoding that was asked for.
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator

UTF8 = "utf-8"
# The marks of UTF-32 come first: its little-endian one begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MARK_BYTES = max(len(mark) for mark, _ in MARKS)
# Without a mark the order of bytes is this machine's; Python's decoders of a stream would refuse that.
NATIVE = {name: f"{name}-{'le' if codecs.BOM_UTF16 == codecs.BOM_UTF16_LE else 'be'}" for name in ("utf-16", "utf-32")}
HAS_NUL = "NUL bytes"


class NotTextError(Exception):
    """Content that is no text; the message is why, in a few words: `not utf-8`, `NUL bytes`."""


def to_utf8(blocks: Iterable[bytes], *, encoding: str = UTF8) -> Iterator[bytes]:
    """The same text in UTF-8, block by block, without a byte order mark. Raises NotTextError, at the latest at the end."""
    blocks = iter(blocks)
    head = b""
    while len(head) < MARK_BYTES and (block := next(blocks, b"")):
        head += block
    mark, encoding = find_mark(head, encoding=encoding)
    return _transcode(itertools.chain((head[len(mark) :],), blocks), encoding=encoding)


def find_mark(head: bytes, *, encoding: str) -> tuple[bytes, str]:
    """The byte order mark that the first bytes of a file begin with, or nothing, and the encoding that the file has."""
    for mark, name in MARKS:
        if head.startswith(mark):
            return mark, name
    return b"", encoding


def _transcode(blocks: Iterator[bytes], *, encoding: str) -> Iterator[bytes]:
    """What is not in the encoding is reported as that, unless it is said to be UTF-8 and has a NUL: then it is binary."""
    decoder = _make_decoder(encoding)
    has_nul = False
    try:
        for block in blocks:
            text = decoder.decode(block)
            has_nul = has_nul or "\0" in text
            if not has_nul:
                yield block if encoding == UTF8 else text.encode()
        text = decoder.decode(b"", final=True)
        has_nul = has_nul or "\0" in text
    except UnicodeError:
        if encoding == UTF8 and (has_nul or b"\0" in block or any(b"\0" in each for each in blocks)):
            raise NotTextError(HAS_NUL) from None
        raise NotTextError(f"not {encoding}") from None
    if has_nul:
        raise NotTextError(HAS_NUL)
    if encoding != UTF8:
        yield text.encode()


def _make_decoder(encoding: str) -> codecs.IncrementalDecoder:
    """Python's own, or for a codec without one a decoder of all bytes at once."""
    found = codecs.lookup(NATIVE.get(encoding, encoding)).incrementaldecoder
    return found() if found else _AtOnce(encoding)


class _AtOnce(codecs.BufferedIncrementalDecoder):
    """Decodes nothing before the end."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self.encoding = encoding

    def _buffer_decode(self, content: bytes, errors: str, final: bool) -> tuple[str, int]:
        return (content.decode(self.encoding), len(content)) if final else ("", 0)
