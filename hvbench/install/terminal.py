"""One line at the bottom of a terminal that is redrawn while a long command runs."""

import shutil
from collections.abc import Callable
from typing import TextIO


def terminal_status(stream: TextIO) -> Callable[[str], None] | None:
    """Return a function that redraws a line on `stream` (an empty line removes it), or None if it is no terminal."""
    if not stream.isatty():
        return None

    def redraw(line: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        stream.write(f"\r\033[K{line[:width]}")
        stream.flush()

    return redraw
