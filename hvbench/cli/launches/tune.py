"""`hvbench tune` between the command line and the output: launch what the search proposes, show what it found."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from hvbench.cli.display.lines import Display, describe_record
from hvbench.errors import HvbenchError, MissingData, UsageError
from hvbench.io.folders import RESULTS
from hvbench.launch.coordinator import Coordinator
from hvbench.launch.session import Launch, join_launch
from hvbench.plan.jobs import Job
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.spec.exchange import STRATEGIES
from hvbench.spec.labels import describe_values
from hvbench.spec.suite import Suite, apply_overrides, parse_suite
from hvbench.sweep.options import SweepOptions
from hvbench.sweep.prepare import prepare_sweep
from hvbench.sweep.run import Sweep
from hvbench.sweep.tune import SEARCH, Launches, Search, Tuned, Tuning, describe_gain, read_search, tune


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What `hvbench tune` is asked: the point, its knobs, and how long to look."""

    values: Sequence[str]  # of the point, key=value
    knobs: tuple[str, ...]
    budget_seconds: float
    pairs: int  # launches of the best and of the default, at least


class TuneDisplay(Display):
    """Shows a line a launch: the values of the knobs, and what came out."""

    def __init__(self, knobs: Sequence[str]) -> None:
        super().__init__()
        self.knobs = knobs
        self.count = itertools.count(1)
        self.last: Record | None = None  # of the launch that ended last

    def finish_job(self, job: Job, record: Record) -> None:
        values = describe_values({name: getattr(job.point, name) for name in self.knobs})
        self.last = record
        self.say(f"[{next(self.count)}] {values}  {describe_record(record)}")


def run_tune(options: TuneOptions, sweep_options: SweepOptions, *, np: int | None) -> int:
    """Take part in a launch, or make one; on rank 0 search the knobs and print what they gain.

    Args:
        options: the point, the knobs, the budget.
        sweep_options: where the records go, and whether a run is resumed.
        np: ranks to launch on this host; None under a launcher.

    Returns:
        The exit code 0.

    Raises:
        HvbenchError: the search could not begin, or was ended before it found anything.
        MissingData: no launch ended in `ok`, or no pair of the best and the default.
    """
    with join_launch(np) as launch:
        if launch is None:
            return 0
        display = TuneDisplay(options.knobs)
        suite = choose_point(options, world_size=launch.world_size)
        folder = sweep_options.run_folder(RESULTS, "tune")
        sweep = prepare_sweep(
            suite,
            folder,
            sweep_options,
            world_size=launch.world_size,
            observer=display,
            is_single_host=launch.context.is_single_host,
        )
        before = continue_search(folder, options.knobs)
        tuned = search_and_show(sweep, launch, display, options=options, before=before)
    if tuned.missing:
        raise MissingData(f"{tuned.missing}; records: {folder.path}")
    display.show(f"{describe_values(tuned.knobs)}\n{describe_gain(tuned)}\nrecords: {folder.path}", path=folder.path)
    return 0


def choose_point(options: TuneOptions, *, world_size: int) -> Suite:
    """The suite of the one point that is tuned; raises UsageError where nothing can be tuned."""
    if find_spec("optuna") is None:
        raise UsageError("hvbench tune needs optuna: pip install 'hvbench[tune]'")
    if world_size < 2:
        raise UsageError("one rank has no knobs to turn: give --np 2 or more")
    suite = apply_overrides(parse_suite("", name="tune", where="hvbench tune"), options.values, option="")
    points = suite.points()
    if len(points) > 1:
        raise UsageError("hvbench tune: one point at a time: give each field one value")
    if not STRATEGIES[points[0].strategy].is_horovod:
        raise UsageError(f"hvbench tune: the knobs are Horovod's, and the strategy is {points[0].strategy}")
    return suite


def continue_search(folder: RunFolder, knobs: tuple[str, ...]) -> Search:
    """The search as the run folder has it, or a new one; raises UsageError when it turned other knobs."""
    before = read_search(folder.read_run(), where=folder.path) or Search(knobs=knobs)
    if before.knobs != knobs:
        raise UsageError(
            f"{folder.path}: was begun with --knob {','.join(before.knobs)}; go on with these, or start a new run"
        )
    return before


def search_and_show(
    sweep: Sweep, launch: Launch, display: TuneDisplay, *, options: TuneOptions, before: Search
) -> Tuned:
    """Search, a launch at a time, answering from the records what they answer; raises HvbenchError."""
    folder = sweep.folder
    recorded = {record.key: record for record in folder.read_records()[0] if record.outcome.status != "interrupted"}

    def settle(trials: int | None) -> None:
        folder.write_run({**folder.read_run(), SEARCH: Search(knobs=options.knobs, trials=trials).model_dump()})

    settle(before.trials)
    if recorded:
        display.prepare(f"{len(recorded)} launches are recorded in {folder.path}")
    try:
        with launch.open(run_path=folder.path) as coordinator, display:
            tuning = Tuning(
                base=[*sweep.plan.jobs, *sweep.plan.done][0].point,
                knobs=options.knobs,
                budget_seconds=options.budget_seconds,
                pairs=options.pairs,
            )
            launches = Launches(lambda job: run_job(sweep, job, coordinator, display), recorded=recorded)
            return tune(tuning, launches, say=display.prepare, settled=before.trials, settle=settle)
    except HvbenchError:
        display.show(f"records: {folder.path}", path=folder.path)
        raise


def run_job(sweep: Sweep, job: Job, coordinator: Coordinator, display: TuneDisplay) -> Record:
    """Launch one job; its record, which is not read again: a search has hundreds."""
    sweep.run_jobs([job], coordinator, display)
    return display.last
