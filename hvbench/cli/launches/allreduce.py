"""`hvbench allreduce` between the command line and the output: plan the cases, launch them, show the table."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hvbench.cli.display.lines import Display
from hvbench.cli.display.report import describe_defect
from hvbench.communication.options import AllreduceOptions
from hvbench.communication.plan import CaseJob, plan_jobs
from hvbench.communication.record import AllreduceRecord, CallSettings
from hvbench.communication.results import write_results
from hvbench.communication.run import ASKED, done_keys, open_folder, run_cases
from hvbench.errors import HvbenchError, PointsFailed, StorageError, UsageError
from hvbench.io.folders import RESULTS
from hvbench.launch.link import VARIABLE as LINK_VARIABLE
from hvbench.launch.session import Launch, join_launch
from hvbench.plan.skip import has_mpi, is_installed
from hvbench.records.store import new_run_path, newest_folder
from hvbench.registry import FRAMEWORKS


def run_allreduce(options: AllreduceOptions, *, np: int | None) -> int:
    """Take part in a launch, or make one; on rank 0 time the cases and print the table.

    Args:
        options: which cases, how often, for how long.
        np: ranks to launch on this host; None under a launcher.

    Returns:
        The exit code 0.

    Raises:
        HvbenchError: the cases could not be run to their end, or some launches did not end in `ok`.
    """
    with join_launch(np) as launch:
        if launch is None:
            return 0
        display = Display()
        settings = CallSettings(budget_seconds=options.budget_seconds)
        jobs, path = prepare(options, launch, display)
        command = shlex.join(["hvbench", *sys.argv[1:]])
        asked = {"command": command, "settings": settings.model_dump(), "jobs": len(jobs)}
        with open_folder(path, asked=asked, resume=options.resume):
            try:
                failed = run_jobs(jobs, launch, settings, path, display) if jobs else 0
            finally:  # also of a launch that could not go on: what was measured is shown
                display.show(show_measured(path), path=path)
    if failed:
        raise PointsFailed(f"{failed} of {len(jobs)} launches did not end in ok; see the table")
    return 0


def show_measured(path: Path) -> str:
    """The table of what was measured, written into the run's folder with its plot; raises StorageError."""
    try:
        return write_results(path)
    except HvbenchError:
        raise
    except Exception as error:  # a defect of a plot: the records are there
        raise StorageError(f"{describe_defect(path, error)}; every record is safe, {path / 'records'}") from error


def prepare(options: AllreduceOptions, launch: Launch, display: Display) -> tuple[list[CaseJob], Path]:
    """The launches that are left to do, and their run folder; raises UsageError or StorageError."""
    options = replace(options, implementations=list_available(options, display))
    may_use_mpi = launch.context.is_single_host and has_mpi()
    if not may_use_mpi:
        display.prepare("MPI is left out: mpirun starts its ranks on one host, with mpi4py")
    cases = options.list_cases(world_size=launch.world_size, has_mpi=may_use_mpi)
    latest = newest_folder((RESULTS / "allreduce").glob(f"*/{ASKED}")) if options.resume else None
    before = options.out or latest
    done = done_keys(before) if before and options.resume else set()
    jobs = plan_jobs(cases, repeats=options.repeats, done=done)
    return jobs, before or new_run_path(RESULTS, "allreduce")


def list_available(options: AllreduceOptions, display: Display) -> list[str]:
    """The implementations that are installed here; raises UsageError where there are none, or no link may be shaped."""
    if options.links and not os.environ.get(LINK_VARIABLE):
        raise UsageError(
            f"--link: no link may be shaped here; run it in hvbench lab, or name the interface in {LINK_VARIABLE}"
        )
    missing = [name for name in options.implementations if name in FRAMEWORKS and not is_installed(name)]
    if len(missing) == len(options.implementations):
        raise UsageError(f"--implementation {','.join(missing)}: not installed here; see hvbench doctor")
    for name in missing:
        display.prepare(f"left out: {name} is not installed here; see hvbench doctor")
    return [name for name in options.implementations if name not in missing]


def run_jobs(jobs: Sequence[CaseJob], launch: Launch, settings: CallSettings, path: Path, display: Display) -> int:
    """Run `jobs`, a line each; how many did not end in `ok`."""
    count = iter(range(1, len(jobs) + 1))

    def report(job: CaseJob, record: AllreduceRecord) -> None:
        display.say(f"[{next(count)}/{len(jobs)}] {job.key} {record.outcome.status}")

    with launch.open(run_path=path) as coordinator:
        return run_cases(coordinator, jobs, settings=settings, folder=path, report=report)
