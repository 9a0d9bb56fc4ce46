"""`hvbench allreduce` and `hvbench predict`: what communication costs here, and what it will cost elsewhere."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from hvbench.cli.lab import hosts_option
from hvbench.cli.options import Bandwidths, Choices, Counts, Size

RESULTS = Path("results")


@click.command()
@click.option(
    "--np", "np", type=int, metavar="N", help="Ranks to launch on this host. Under horovodrun or mpirun: leave it out."
)
@hosts_option
@click.option("--ranks", type=Counts(), metavar="N,…", help="World sizes to measure, none above --np. Default: --np.")
@click.option("-b", "--begin", type=Size(), default="1KiB", show_default=True, metavar="SIZE", help="Smallest message.")
@click.option("-e", "--end", type=Size(), default="256MiB", show_default=True, metavar="SIZE", help="Largest message.")
@click.option(
    "-f", "--factor", type=click.IntRange(2, 1024), default=4, show_default=True, help="From one size to the next."
)
@click.option(
    "--implementation", "implementations", default="pytorch,tensorflow,mpi4py,ring", show_default=True, metavar="NAME,…",
    type=Choices("pytorch", "tensorflow", "mpi4py", "ring"), help="Who all-reduces; the last two are references.",
)  # fmt: skip
@click.option(
    "--controller", "controllers", type=Choices("gloo", "mpi"), default="gloo,mpi", show_default=True, metavar="NAME,…",
    help="What Horovod's ranks talk over.",
)  # fmt: skip
@click.option(
    "--compression", "compressions", type=Choices("none", "fp16", "bf16"), default="none,fp16,bf16", show_default=True,
    metavar="NAME,…", help="What goes on the wire.",
)  # fmt: skip
@click.option(
    "--repeats",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Launches with fresh workers, interleaved.",
)
@click.option(
    "--budget",
    "budget_seconds",
    type=click.FloatRange(0.01, 3600),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="Of timed calls in a case, roughly.",
)  # noqa: E501
@click.option(
    "--link",
    "links",
    type=Bandwidths(),
    metavar="RATE,…",
    help="Shape the hosts' links, such as 200Mbit (in hvbench lab only).",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Run folder. Default: results/allreduce/TIME."
)
@click.option("--resume", is_flag=True, help="With --out: leave out what ended in ok there.")
def allreduce(
    np: int | None,
    ranks: Sequence[int] | None,
    begin: int,
    end: int,
    factor: int,
    implementations: Sequence[str],
    controllers: Sequence[str],
    compressions: Sequence[str],
    repeats: int,
    budget_seconds: float,
    links: tuple[int, ...] | None,
    out: Path | None,
    resume: bool,
) -> int:
    """Time all-reduces by message size and path, checked value by value, beside MPI's own: a table and a plot.

    \b
    hvbench allreduce --np 2                          both frameworks, Gloo and MPI, every compression
    hvbench allreduce --np 4 --ranks 2,3,4 -b 4KiB -e 64MiB -f 2 --repeats 3
    horovodrun -np 8 -H host1:4,host2:4 hvbench allreduce --controller gloo

    Records are kept: hvbench predict fits a model of the cost to them.
    """
    from hvbench.cli.display.lines import Display
    from hvbench.communication.plan import list_cases, list_sizes, plan_jobs
    from hvbench.communication.record import CallSettings
    from hvbench.communication.run import done_keys, open_folder, run_cases
    from hvbench.errors import PointsFailed, UsageError
    from hvbench.launch.link import VARIABLE as LINK_VARIABLE
    from hvbench.launch.session import dismiss, open_launch, resolve_context, serve_if_not_first
    from hvbench.plan.skip import has_mpi, is_installed
    from hvbench.records.store import new_run_path
    from hvbench.registry import FRAMEWORKS

    context = resolve_context(np)
    if serve_if_not_first(context):
        return 0
    display = Display()
    try:
        worlds = ranks or (context.size,)
        if min(worlds) < 2 or max(worlds) > context.size:
            raise UsageError(
                f"an all-reduce needs 2 ranks at least, and at most the {context.size} that are launched: give --np"
            )
        if end < begin:
            raise UsageError(f"--end {end}: smaller than --begin {begin}")
        if links and not os.environ.get(LINK_VARIABLE):
            raise UsageError(
                f"--link: no link may be shaped here; run it in hvbench lab, or name the interface in {LINK_VARIABLE}"
            )
        for name in implementations:
            if name in FRAMEWORKS and not is_installed(name):
                raise UsageError(f"--implementation {name}: not installed here; see hvbench doctor")
        if not context.is_single_host or not has_mpi():
            display.prepare("MPI's ways are left out: mpirun starts its ranks on one host, with mpi4py")
            controllers = [name for name in controllers if name != "mpi"]
        settings = CallSettings(budget_seconds=budget_seconds)
        cases = list_cases(
            implementations=implementations,
            controllers=controllers,
            compressions=compressions,
            world_sizes=worlds,
            sizes=list_sizes(begin, end, factor=factor),
            links=links or (None,),
        )
        path = out or new_run_path(RESULTS, "allreduce")
        done = done_keys(path) if resume else set()
        jobs = plan_jobs(cases, repeats=repeats, done=done)
        if not cases:
            raise UsageError("none of these cases exists: the references are MPI's and compress nothing")
        open_folder(
            path,
            asked={
                "command": shlex.join(["hvbench", *sys.argv[1:]]),
                "settings": settings.model_dump(),
                "jobs": len(jobs),
            },
            resume=resume,
        )
    except BaseException:
        dismiss(context)
        raise
    failed = 0
    if jobs:
        with open_launch(context, run_path=path) as coordinator:
            count = iter(range(1, len(jobs) + 1))

            def report(job, record) -> None:
                display.say(f"[{next(count)}/{len(jobs)}] {job.key} {record.outcome.status}")

            failed = run_cases(coordinator, jobs, settings=settings, folder=path, report=report)
    else:
        dismiss(context)
    display.show(write_results(path), path=path)
    if failed:
        raise PointsFailed(f"{failed} of {len(jobs)} launches did not end in ok; see the table")
    return 0


def write_results(path: Path) -> str:
    """Table and plot of a run from its records, written beside them; the text to show."""
    from hvbench.cli.options import write_output
    from hvbench.communication.plot import plot_bandwidth
    from hvbench.communication.record import read_records
    from hvbench.communication.summary import summarize
    from hvbench.communication.table import render_table

    records, problems = read_records(path)
    summary = summarize(records)
    text = render_table(summary)
    write_output(text + "\n", path / "allreduce.txt")
    write_output(summary.to_csv(index=False), path / "allreduce.csv")
    if figure := plot_bandwidth(summary):
        for ending in ("svg", "png"):
            figure.savefig(path / f"allreduce.{ending}", dpi=150)
    lines = [f"not a readable record: {problem}" for problem in problems]
    return "\n".join([*lines, text, "", f"records, table and plot: {path}"])


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--ranks", "world_sizes", type=Counts(), metavar="N,…", help="Ranks to predict for. Default: as measured."
)
@click.option(
    "--link", "links", type=Bandwidths(), metavar="RATE,…", help="Bandwidth of every host's link. Default: as measured."
)
@click.option(
    "--latency",
    "latency_seconds",
    type=click.FloatRange(0, 10),
    default=0.0,
    metavar="SECONDS",
    help="What a hop takes longer than on the measured links.",
)  # noqa: E501
@click.option(
    "--allreduce",
    "beside",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="RUN",
    help="For a sweep: a run of hvbench allreduce, for what more ranks cost beside the wire.",
)  # noqa: E501
@click.option(
    "--size",
    "payloads",
    type=Size(),
    multiple=True,
    default=("1MiB", "16MiB", "256MiB"),
    show_default=True,
    help="For all-reduces: message sizes. May be repeated.",
)  # noqa: E501
def predict(
    run: Path,
    world_sizes: tuple[int, ...] | None,
    links: tuple[int, ...] | None,
    latency_seconds: float,
    beside: Path | None,
    payloads: tuple[int, ...],
) -> None:
    """Fit a model of the cost to RUN and say what more ranks or another link would make of it, and how sure that is.

    \b
    hvbench predict results/allreduce/…  --ranks 8,64 --link 10Gbit
    hvbench predict results/network/…    --ranks 64 --link 10Gbit --allreduce results/allreduce/…

    RUN is a run of hvbench allreduce (the cost of an all-reduce by size and ranks, checked on held-out cases) or of a
    sweep on links of different bandwidth, such as the suite network (step time, efficiency, and the bandwidth where
    compression breaks even).
    """
    from hvbench.analysis.frame.frames import point_frame
    from hvbench.analysis.topics.links import break_even_from_afar, predict_held_out
    from hvbench.analysis.topics.links_report import models_of, payloads_of, show_bandwidth
    from hvbench.communication.cost_report import (
        error_factors,
        fit_all,
        render_allreduces,
        render_costs,
        render_predictions,
    )
    from hvbench.communication.predict import predict_all
    from hvbench.communication.run import ASKED
    from hvbench.errors import UsageError
    from hvbench.records.store import RunFolder

    if min(world_sizes or (2,)) < 2:
        raise UsageError("--ranks: a rank alone communicates with nobody; give 2 or more")
    for folder in [run, beside] if (run / ASKED).exists() else [beside]:
        if folder is not None and not (folder / ASKED).exists():
            raise UsageError(f"{folder}: not a run of hvbench allreduce")
    costs, held, problems = fit_all(read_summary(run if (run / ASKED).exists() else beside))
    factors = error_factors(costs, held)
    blocks = [f"no model: {problem}" for problem in problems]
    if (run / ASKED).exists():
        if not costs:
            raise UsageError(f"{run}: {'; '.join(problems) or 'no case ended in ok'}")
        write_residuals(run, held)
        choices = {"world_sizes": world_sizes or (), "links": links or (), "payloads": payloads}
        blocks += [
            render_costs(costs, held),
            render_allreduces(costs, factors, latency_seconds=latency_seconds, **choices),
        ]
    else:
        records, unreadable = RunFolder(run).read_records()
        blocks += [f"not a readable record: {problem}" for problem in unreadable]
        points = point_frame(records)
        models = models_of(points, records)
        if not models:
            raise UsageError(
                f"{run}: holds no configuration on links of different bandwidth; run: hvbench lab -- hvbench sweep network"
            )
        predictions = predict_all(
            models, world_sizes=world_sizes or (), links=links or (), latency_seconds=latency_seconds,
            costs={name: (cost, factors[name]) for name, cost in costs.items()},
        )  # fmt: skip
        blocks.append(render_predictions(predictions))
        errors = predict_held_out(points, payloads_of(records))
        if len(errors):
            errors = 100 * errors["relative_error"].abs()
            blocks.append(
                f"links that the model did not see: median error {errors.median():.3g} %, largest {errors.max():.3g} %, n = {len(errors)}"
            )
        afar = break_even_from_afar(points, payloads_of(records))
        for row in afar.itertuples():
            blocks.append(
                f"{row.framework} {row.compression} breaks even at {show_bandwidth(row.break_even_bits_per_second)}; a model "
                f"without the nearest links says {show_bandwidth(row.predicted_bits_per_second)} ({100 * row.relative_error:+.1f} %)"
            )
        blocks.append("efficiency: against a step that never waits for the wire, uncompressed")
    click.echo("\n\n".join(blocks))


def read_summary(run: Path | None):
    """`summarize` of a run's records; of no run, no rows."""
    from hvbench.communication.record import read_records
    from hvbench.communication.summary import summarize

    return summarize(read_records(run)[0] if run else [])


def write_residuals(run: Path, held) -> None:
    """The plot of the held-out cases, beside the records."""
    from hvbench.communication.cost_report import plot_residuals

    if figure := plot_residuals(held):
        for ending in ("svg", "png"):
            figure.savefig(run / f"cost_residuals.{ending}", dpi=150)
