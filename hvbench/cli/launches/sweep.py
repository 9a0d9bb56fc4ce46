"""`sweep` and `run` between the command line and the output: launch, watch, report."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from hvbench.cli.display.choose import choose_display
from hvbench.cli.display.lines import Display
from hvbench.cli.display.report import describe_defect, write_report
from hvbench.cli.options import Outputs
from hvbench.errors import HvbenchError, Interrupted, PointsFailed, StorageError
from hvbench.io.folders import RESULTS
from hvbench.launch.context import Context
from hvbench.launch.process import worker_environment
from hvbench.launch.session import Launch, join_launch
from hvbench.plan.estimates import describe_shortages
from hvbench.plan.risks import describe_wire_risks
from hvbench.records.environment import usable_memory_bytes
from hvbench.records.journal import JournalWriter
from hvbench.records.store import RunFolder
from hvbench.spec.suite import Suite
from hvbench.sweep.journal import Journalled
from hvbench.sweep.options import SweepOptions
from hvbench.sweep.prepare import prepare_sweep
from hvbench.sweep.run import Sweep
from hvbench.sweep.tracked import Tracked
from hvbench.tracking.process import LiveTrackers


def run_sweep(load: Callable[[], Suite], options: SweepOptions, outputs: Outputs, *, np: int | None) -> int:
    """Take part in a launch, or make one; on rank 0 run the sweep and report it.

    Args:
        load: reads the suite; called on rank 0 alone.
        options: what bounds the sweep, and where its records go.
        outputs: what is shown, and what is made of the records.
        np: ranks to launch on this host; None under a launcher.

    Returns:
        The exit code 0.

    Raises:
        HvbenchError: the sweep could not run to its end, or some launches did not end in `ok`.
    """
    with join_launch(np) as launch:
        if launch is None:
            return 0
        display = choose_display(outputs.display)
        loaded = load()
        # Where a suite asks what fits, running out of memory is an answer.
        answers = {"oom"} if loaded.search or loaded.measure.memory_limit_bytes is not None else set()
        suite = options.apply_to(loaded)
        folder = options.run_folder(RESULTS, suite.name)
        path = folder.path
        sweep = prepare_sweep(
            suite,
            folder,
            options,
            world_size=launch.world_size,
            observer=display,
            is_single_host=launch.context.is_single_host,
        )
        host = {"memory_bytes": usable_memory_bytes(), "is_single_host": launch.context.is_single_host}
        shortages = describe_shortages(sweep.plan.jobs, limit_bytes=suite.measure.memory_limit_bytes, **host)
        for line in (*shortages, *describe_wire_risks(sweep.plan.jobs)):
            display.warn(line)
        try:
            timelines = path / "timelines" if options.timeline else None
            run_launches(sweep, launch, display, timelines=timelines, trackers=outputs.trackers)
        except HvbenchError as error:
            if any(sweep.statuses.values()):
                is_hurried = isinstance(error, Interrupted)
                partial = (
                    report_partial_run(path, launch.context, is_hurried=is_hurried)
                    if outputs.with_report
                    else name_records(path)
                )
                display.show(partial, path=path)
            raise
    show_results = report_measured_run if outputs.with_report else track_measured_run
    display.show(show_results(path, outputs.trackers), path=path)
    require_all_ok(sweep, see=path / ("report.html" if outputs.with_report else "logs"), answers=answers)
    return 0


def report_measured_run(path: Path, trackers: Sequence[str]) -> str:
    """Write the report of a sweep that has run to its end; the text to show.

    Whatever fails in it, a defect of hvbench or a broken library, the records are there: the error says so in one line,
    and the traceback is kept in the run's folder.

    Raises:
        HvbenchError: there is no report, and why.
    """
    try:
        return write_report(path, trackers=trackers)
    except HvbenchError:
        raise
    except Exception as error:
        raise StorageError(f"{describe_defect(path, error)}; every record is safe: {remake(path)}") from error


def track_measured_run(path: Path, trackers: Sequence[str]) -> str:
    """Give the records of a sweep that has run to its end to trackers, without a report; the text to show. Raises HvbenchError."""
    lines = []
    if trackers:
        from hvbench.tracking.export import track

        lines = [f"tracked: {line}" for line in track(path, RunFolder(path).read_records()[0], trackers)]
    return "\n".join([*lines, name_records(path)])


def name_records(path: Path) -> str:
    """Where they are."""
    return f"records: {path}"


def remake(path: Path) -> str:
    """The command that makes a report again."""
    return f"make the report with hvbench report {shlex.quote(str(path))}"


def run_launches(
    sweep: Sweep, launch: Launch, display: Display, *, timelines: Path | None, trackers: Sequence[str]
) -> None:
    """Run what the sweep has left to do, if anything, with trackers that follow it; raises HvbenchError."""
    if not sweep.has_work:
        launch.dismiss()
        return
    path = sweep.folder.path
    followers = LiveTrackers(path, trackers, environment=environment_for_report(), warn=display.warn)
    with followers, launch.open(run_path=path) as coordinator, display, JournalWriter(path) as journal:
        coordinator.state.timelines = timelines
        sweep.steps_folder = followers.steps_folder
        observer = Journalled(display, journal)
        sweep.run(coordinator, Tracked(observer, followers) if sweep.steps_folder else observer)


def require_all_ok(sweep: Sweep, *, see: Path, answers: Collection[str] = ()) -> None:
    """Raise PointsFailed, with the outcomes counted and where to look, unless every launch ended in `ok`, or in one of `answers`."""
    bad = {status: count for status, count in sweep.statuses.items() if status not in ("ok", "skipped", *answers)}
    if bad:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(bad.items()))
        total = sum(sweep.statuses.values())
        raise PointsFailed(f"{counts} of {total} launches did not end in ok; see {see}")


def report_partial_run(path: Path, context: Context, *, is_hurried: bool) -> str:
    """Tables and plots of a sweep that had to end early, as far as its disk takes them; the text to show.

    A launcher that was told to stop kills its ranks within seconds, so the report is then left to a process of its own,
    in a session of its own, which no rank has as a child.
    """
    if is_hurried and context.launcher != "none":
        words = [sys.executable, "-P", "-c", "from hvbench.cli import main; main()", "report", str(path.resolve())]
        subprocess.run(
            ["/bin/sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *words],
            start_new_session=True,
            env=environment_for_report(),
        )
        return f"partial report: {path / 'report.html'} (in a few seconds)"
    try:
        return write_report(path)
    except HvbenchError as error:
        return f"no report: {error}"
    except Exception as error:  # the sweep's own end is what has to be told
        return describe_defect(path, error)


def environment_for_report() -> dict[str, str]:
    """The environment of a process that takes part in no launch, and needs no setting of Horovod."""
    return {key: value for key, value in worker_environment({}).items() if not key.startswith("HOROVOD_")}
