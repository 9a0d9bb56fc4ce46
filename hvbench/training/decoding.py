"""Bytes of a file -> UTF-8 text, or why they are none. Imports only the standard library.

A byte order mark says which encoding a file has; without one it has the encoding that was asked for.
"""

from __future__ import annotations

import codecs

UTF8 = "utf-8"
CHUNK_BYTES = 1 << 16
# The marks of UTF-32 come first: its little-endian one begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
HAS_NUL = "NUL bytes"


class NotTextError(Exception):
    """Content that is no text; the message is why, in a few words: `not utf-8`, `NUL bytes`."""


def to_utf8(content: bytes, *, encoding: str = UTF8) -> bytes:
    """The same text in UTF-8, without a byte order mark. Raises NotTextError."""
    for mark, name in MARKS:
        if content.startswith(mark):
            content, encoding = content[len(mark) :], name
            break
    if encoding == UTF8:
        if b"\0" in content:
            raise NotTextError(HAS_NUL)
        _require_utf8(content)
        return content
    try:
        text = content.decode(encoding)
        if "\0" in text:
            raise NotTextError(HAS_NUL)
        return text.encode()
    except UnicodeError:
        raise NotTextError(f"not {encoding}") from None


def _require_utf8(content: bytes) -> None:
    """A piece at a time: the whole text as Python's characters could take four times its bytes."""
    decoder = codecs.getincrementaldecoder(UTF8)()
    try:
        for start in range(0, len(content), CHUNK_BYTES):
            decoder.decode(content[start : start + CHUNK_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise NotTextError(f"not {UTF8}") from None
