"""One point from Python: fields in, a run folder with a record of every launch out. It shows nothing while it runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hvbench.errors import Interrupted, LaunchError, StorageError, UsageError
from hvbench.launch.context import detect_context
from hvbench.launch.messages import Progress
from hvbench.launch.placement import Member
from hvbench.launch.session import join_launch
from hvbench.launch.task import without_advice
from hvbench.plan.jobs import Job, Plan
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.spec.effect import require_effect
from hvbench.spec.messages import did_you_mean, shorten
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings, check_measure
from hvbench.spec.suite import Suite
from hvbench.sweep.options import SweepOptions
from hvbench.sweep.prepare import prepare_sweep

WHERE = "hvbench.run_point"  # begins its messages


class Silence:
    """Watches a sweep (`hvbench.sweep.observer.Observer`) and shows nothing."""

    def prepare(self, message: str) -> None:
        """Nothing."""

    def start(self, plan: Plan, members: Sequence[Member]) -> None:
        """Nothing."""

    def progress(self, job: Job, message: Progress) -> None:
        """Nothing."""

    def finish_job(self, job: Job, record: Record) -> None:
        """Nothing."""

    def extend(self, jobs: Sequence[Job], reason: str) -> None:
        """Nothing."""


def measure_point(fields: Mapping[str, Any], *, np: int, out: Path) -> None:
    """Launch one point on `np` ranks of this host, `repeats` times, and leave the records in the run folder `out`.

    Args:
        fields: of the point and of [measure], by their names in a suite; those left out have their defaults.
        np: ranks.
        out: the run folder; it must not hold a run.

    Raises:
        UsageError: a field is unknown or has a wrong value, the point cannot run here, or no launch can begin from here.
        DataError: the text is missing or too short.
        StorageError: the folder cannot be written, or holds a run.
        LaunchError: the ranks could not be started.
    """
    if detect_context().launcher != "none":
        raise UsageError(f"{WHERE} launches its own ranks: start this program without horovodrun or mpirun")
    if threading.current_thread() is not threading.main_thread():
        raise UsageError(f"{WHERE}: call it from the main thread, which receives Ctrl-C")
    suite = suite_of_point(fields)
    if (out / "run.json").exists():
        raise StorageError(f"{out}: holds a run already; give another folder as out")
    options = SweepOptions(command=[WHERE], out=out, checks_parity=False)
    with join_launch(np) as launch:
        sweep = prepare_sweep(suite, RunFolder(out), options, world_size=launch.world_size, observer=Silence())
        try:
            with launch.open(run_path=out) as coordinator:
                sweep.run(coordinator, Silence())
        except (Interrupted, LaunchError) as error:
            raise_as = Interrupted if isinstance(error, Interrupted) else LaunchError
            raise raise_as(f"{without_advice(str(error))}; what was measured is in {out}") from None


def suite_of_point(fields: Mapping[str, Any]) -> Suite:
    """The suite of one point; raises UsageError for a field that does not exist or a value that it cannot have."""
    allowed = [*Point.model_fields, *MeasureSettings.model_fields]
    for name in fields:
        if name not in allowed:
            raise UsageError(
                f"{WHERE}: unknown field {shorten(name)}{did_you_mean(name, allowed)}; allowed: {', '.join(allowed)}"
            )
    measured = {name: value for name, value in fields.items() if name in MeasureSettings.model_fields}
    base = {name: value for name, value in fields.items() if name not in measured}
    settings = check_measure(measured, where=WHERE)
    require_effect(base, {}, settings, where=WHERE, fields=base)
    return Suite(name="run", question="", base=base, axes={}, measure=settings, where=WHERE)
