"""Reads a file of lines while another process appends to it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path


class LineReader:
    """Whole lines that were appended since it last read; the file may be anybody's, and it may not be there yet."""

    def __init__(self, path: Path, *, max_bytes: int, max_line_bytes: int, place: int = 0) -> None:
        """Args: `place` is the byte to begin at; nothing is read beyond `max_bytes`, nor behind a line that is longer than allowed."""
        self.path = path
        self.place = place
        self.max_bytes = max_bytes
        self.max_line_bytes = max_line_bytes

    def read(self) -> Iterator[bytes]:
        """The new lines, in their order; of what is no regular file none."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return
            file.seek(self.place)
            while self.place < self.max_bytes and (line := file.readline(self.max_line_bytes)).endswith(b"\n"):
                self.place += len(line)
                yield line
