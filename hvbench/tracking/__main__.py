"""The process of a tracker that follows a sweep: `python -m hvbench.tracking RUN TRACKER PLACE PARENT`, see `hvbench.tracking.process`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from hvbench.errors import HvbenchError
from hvbench.io.atomic import write_text
from hvbench.launch.own_process import die_with_parent, yield_to_others
from hvbench.tracking.trackers import failure_path

MAX_LENGTH = 300
START_NICENESS = 10  # while libraries are loaded, which is over before the first step, or it would see the end alone


def main(run: str, name: str, place: str, parent: str) -> None:
    """Follow the sweep to its end; what ends that is left in a file, in one line, for the process that runs the sweep."""
    die_with_parent(int(parent))
    yield_to_others(START_NICENESS)
    try:
        from hvbench.tracking.live import follow  # only now: it and the tracker's library take a second of a core

        follow(Path(run), name, place=int(place))
    except Exception as error:  # of whatever kind: it is told there
        kind = "" if isinstance(error, HvbenchError) else f"{type(error).__name__}: "
        words = (str(error) or "no message").splitlines()[0][:MAX_LENGTH]
        with contextlib.suppress(OSError):
            write_text(failure_path(Path(run), name), kind + words, durable=False)
        raise


if __name__ == "__main__":
    main(*sys.argv[1:])
