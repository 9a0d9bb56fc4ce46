"""What a person reads when a run has ended: the tables that answer its question, and where the report lies."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

from hvbench.io.untrusted import make_printable
from hvbench.records.store import RunFolder


@contextlib.contextmanager
def rarely_collecting() -> Iterator[None]:
    """Look for unreachable cycles after every 100,000th new object instead of every 700th.

    Records and the objects of a figure live until the report is written. Looking through all of them again and again took
    a sixth of the time of 10,000 records.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


@rarely_collecting()
def write_report(
    path: Path, *, style: Path | None = None, with_parquet: bool = False, trackers: Sequence[str] = ()
) -> str:
    """Rebuild everything that follows from a run's records; the text to show."""
    from hvbench import tracking
    from hvbench.analysis.frame.run import Run
    from hvbench.analysis.report import write
    from hvbench.analysis.report.terminal import render_terminal

    folder = RunFolder(path)
    request = folder.read_run()
    records, problems = folder.read_records()
    run = Run(records, request)
    write.write_report(path, run, style=style, with_parquet=with_parquet)
    lines = [make_printable(f"not a readable record: {problem}") for problem in problems]
    lines += render_terminal(run)
    tracked = [f"tracked: {line}" for line in tracking.track(path, records, trackers)]
    return "\n".join([*lines, "", *tracked, f"report: {path / 'report.html'}"])
