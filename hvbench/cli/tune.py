"""`hvbench tune`: Horovod's knobs for one point, within a budget."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvbench.cli.lab import hosts_option
from hvbench.cli.options import Choices, Duration, typed_words

if TYPE_CHECKING:
    from hvbench.plan.jobs import Job
    from hvbench.records.record import Record

RESULTS = Path("results")


@click.command()
@click.argument("values", nargs=-1, metavar="KEY=VALUE…")
@click.option(
    "--np", "np", type=int, metavar="N", help="Ranks to launch on this host. Under horovodrun or mpirun: leave it out."
)
@hosts_option
@click.option(
    "--knob", "knobs", type=Choices("fusion_threshold_bytes", "cycle_time_seconds", "controller", "compression"),
    default="fusion_threshold_bytes,cycle_time_seconds", show_default=True, metavar="NAME,…", help="What may be turned.",
)  # fmt: skip
@click.option(
    "--budget",
    "budget_seconds",
    type=Duration(),
    default="10m",
    show_default=True,
    metavar="TIME",
    help="Time for all launches.",
)
@click.option(
    "--pairs",
    type=click.IntRange(1, 18),
    default=6,
    show_default=True,
    help="Launches of the best and of the default, at least.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Run folder. Default: results/tune/TIME."
)
@click.option(
    "--resume", is_flag=True, help="Go on with the newest run (or with --out): its launches are not repeated."
)
@click.option("--force", is_flag=True, help="With --resume: go on even if the point or the machine has changed.")
def tune(
    values: tuple[str, ...],
    np: int | None,
    knobs: tuple[str, ...],
    budget_seconds: float,
    pairs: int,
    out: Path | None,
    resume: bool,
    force: bool,
) -> int:
    """Find Horovod's knobs for one point: hvbench tune framework=tensorflow model=small --np 2 --budget 10m

    An optimiser proposes, launches answer; what it finds is launched in turn with the default, and the gain is that of
    the pairs, with its interval. Ctrl-C loses nothing: --resume goes on, with a new budget. Needs optuna: pip install
    'hvbench[tune]'.
    """
    from importlib.util import find_spec

    from hvbench.cli.display.lines import Display, describe_record
    from hvbench.errors import HvbenchError, UsageError
    from hvbench.launch.session import dismiss, open_launch, resolve_context, serve_if_not_first
    from hvbench.records.store import RunFolder
    from hvbench.spec.labels import describe_values
    from hvbench.spec.suite import apply_overrides, parse_suite
    from hvbench.sweep.options import SweepOptions
    from hvbench.sweep.run import prepare_sweep
    from hvbench.sweep.tune import SEARCH, Search, describe_gain, read_search
    from hvbench.sweep.tune import tune as search

    class TuningDisplay(Display):
        """A line a launch, by what was turned in it."""

        def finish_job(self, job: Job, record: Record) -> None:
            turned = describe_values({name: getattr(job.point, name) for name in knobs})
            self.say(f"[{next(count)}] {turned}  {describe_record(record)}")

    if force and not resume:
        raise click.UsageError("--force goes with --resume")
    context = resolve_context(np)
    if serve_if_not_first(context):
        return 0
    display, count = TuningDisplay(), itertools.count(1)
    try:
        if find_spec("optuna") is None:
            raise UsageError("hvbench tune needs optuna: pip install 'hvbench[tune]'")
        if context.size < 2:
            raise UsageError("one rank has no knobs to turn: give --np 2 or more")
        suite = apply_overrides(parse_suite("", name="tune", where="hvbench tune"), values, option="")
        if len(suite.points()) > 1:
            raise UsageError("hvbench tune: one point at a time: give each field one value")
        if suite.points()[0].strategy != "horovod":
            raise UsageError(f"hvbench tune: the knobs are Horovod's, and the strategy is {suite.points()[0].strategy}")
        options = SweepOptions(command=typed_words(), out=out, resume=resume, force=force, checks_parity=False)
        path = options.run_path(RESULTS, "tune")
        folder = RunFolder(path)
        sweep = prepare_sweep(suite, folder, options, world_size=context.size, observer=display)
        before = read_search(folder.read_run(), where=path) or Search(knobs=knobs)
        if before.knobs != knobs:
            raise UsageError(
                f"{path}: was begun with --knob {','.join(before.knobs)}; go on with these, or start a new run"
            )
        recorded = {record.key: record for record in folder.read_records()[0] if record.outcome.status != "interrupted"}
    except BaseException:
        dismiss(context)
        raise

    def settle(trials: int | None) -> None:
        folder.write_run({**folder.read_run(), SEARCH: Search(knobs=knobs, trials=trials).model_dump()})

    settle(before.trials)
    if recorded:
        display.prepare(f"{len(recorded)} launches are recorded in {path}")
    try:
        with open_launch(context, run_path=path) as coordinator, display:

            def launch(job: Job) -> Record:
                sweep.run_jobs([job], coordinator, display)
                return next(record for record in folder.read_records()[0] if record.key == job.key)

            tuned = search(
                [*sweep.plan.jobs, *sweep.plan.done][0].point,
                knobs=knobs, launch=launch, budget_seconds=budget_seconds, pairs=pairs, say=display.prepare,
                recorded=recorded, settled=before.trials, settle=settle,
            )  # fmt: skip
    except HvbenchError:
        display.show(f"records: {path}", path=path)
        raise
    display.show(f"{describe_values(tuned.knobs)}\n{describe_gain(tuned)}\nrecords: {path}", path=path)
    return 0
