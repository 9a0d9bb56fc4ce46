"""Commands that go on until somebody ends them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hvbench.io.signals import handling

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt in here, even where SIGINT is ignored: so a shell starts what is in the background."""
    with handling(dict.fromkeys(ENDING, _interrupt)):
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
