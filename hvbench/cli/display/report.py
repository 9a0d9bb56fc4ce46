"""What a person reads when a run has ended: the tables that answer its question, and where the report lies."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvbench.errors import MissingData
from hvbench.io.atomic import write_text
from hvbench.io.folders import RESULTS
from hvbench.io.untrusted import make_printable
from hvbench.records.store import RunFolder, latest_run_path

if TYPE_CHECKING:
    from hvbench.analysis.frame.run import Run


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


def describe_defect(path: Path, error: Exception) -> str:
    """Why there is no report, in one line; the traceback is left beside the logs of the workers."""
    log = path / "logs" / "report.log"
    with contextlib.suppress(OSError):
        write_text(log, "".join(traceback.format_exception(error)))
    words = str(error).split("\n")[0][:300]
    return f"no report: {type(error).__name__}: {words} (log: {log})"


def write_report(
    path: Path, *, style: Path | None = None, with_parquet: bool = False, trackers: Sequence[str] = ()
) -> str:
    """Rebuild everything that follows from a run's records; the text to show.

    Raises:
        MissingData: no record can be read; the files of an earlier report stay as they are.
        UsageError: this is no run folder.
        StorageError: a file cannot be written.
    """
    return report_run(path, style=style, with_parquet=with_parquet, trackers=trackers)[0]


def name_to_continue(path: Path, request: Mapping[str, Any]) -> str | None:
    """The run folder as `--out` has to name it; None where it is the newest of its suite, which `--resume` takes."""
    suite = str(request.get("suite") or "")
    newest = latest_run_path(RESULTS, suite) if suite and Path(suite).name == suite else None
    return None if newest and newest.resolve() == path.resolve() else str(path)


@rarely_collecting()
def describe_run(path: Path) -> str:
    """What a run has found, and where its report lies if there is one; nothing is written.

    Raises:
        UsageError: this is no run folder.
        MissingData: no record can be read.
    """
    from hvbench.analysis.report.terminal import render_terminal

    run, problems = read_whole_run(path)
    page = path / "report.html"
    return "\n".join(
        [*problems, *render_terminal(run), "", f"report: {page}" if page.is_file() else f"records: {path}"]
    )


def read_whole_run(path: Path) -> tuple[Run, list[str]]:
    """(the run, a line for each file that is no record); raises UsageError, and MissingData where no record can be read."""
    from hvbench.analysis.frame.run import Run

    folder = RunFolder(path)
    request = folder.read_run()
    records, problems = folder.read_records()
    if not records:
        first = make_printable(f"; the first: {problems[0]}") if problems else ""
        raise MissingData(f"{path}: holds no readable record; {len(problems)} files are none{first}")
    run = Run(records, request, folder=name_to_continue(path, request))
    return run, [make_printable(f"not a readable record: {problem}") for problem in problems]


@rarely_collecting()
def report_run(
    path: Path, *, style: Path | None, with_parquet: bool, trackers: Sequence[str], formats: Sequence[str] = ()
) -> tuple[str, bool]:
    """As `write_report`: the text, and whether any launch was measured."""
    from hvbench.analysis.formats.catalogue import write_formats
    from hvbench.analysis.report import write
    from hvbench.analysis.report.terminal import render_terminal
    from hvbench.tracking.export import track

    run, problems = read_whole_run(path)
    write.write_report(path, run, style=style, with_parquet=with_parquet)
    lines = [*problems, *render_terminal(run)]
    tracked = [f"tracked: {line}" for line in track(path, run.records, trackers)]
    tracked += [f"written: {written}" for written in write_formats(path, run, formats)]
    text = "\n".join([*lines, "", *tracked, f"report: {path / 'report.html'}"])
    return text, any(record.is_measured for record in run.records)
