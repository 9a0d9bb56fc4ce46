"""`hvbench allreduce`: all-reduces by themselves, by message size and path."""

from __future__ import annotations

from typing import Any

import click

from hvbench.cli.options import launch_options, out_option
from hvbench.cli.param_types import Bandwidths, Choices, Counts, Size


@click.command()
@launch_options
@click.option(
    "--ranks",
    "world_sizes",
    type=Counts(),
    metavar="N,…",
    help="World sizes to measure, none above --np. Default: --np.",
)
@click.option(
    "-b",
    "--begin",
    "begin_bytes",
    type=Size(),
    default="1KiB",
    show_default=True,
    metavar="SIZE",
    help="Smallest message.",
)
@click.option(
    "-e",
    "--end",
    "end_bytes",
    type=Size(),
    default="256MiB",
    show_default=True,
    metavar="SIZE",
    help="Largest message.",
)
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
)
@click.option(
    "--link",
    "links",
    type=Bandwidths(),
    metavar="RATE,…",
    help="Shape the hosts' links, such as 200Mbit (in hvbench lab only).",
)
@out_option("results/allreduce/TIME")
@click.option("--resume", is_flag=True, help="Go on with the newest run (or with --out): what ended in ok is left out.")
def allreduce(np: int | None, **choices: Any) -> int:
    """Time all-reduces by message size and path, checked value by value, beside MPI's own: a table and a plot.

    \b
    hvbench allreduce --np 2                          both frameworks, Gloo and MPI, every compression
    hvbench allreduce --np 4 --ranks 2,3,4 -b 4KiB -e 64MiB -f 2 --repeats 3
    horovodrun -np 8 -H host1:4,host2:4 hvbench allreduce --controller gloo

    Records are kept: hvbench predict fits a model of the cost to them.
    """
    from hvbench.cli.launches.allreduce import run_allreduce
    from hvbench.communication.options import AllreduceOptions

    return run_allreduce(AllreduceOptions(**choices), np=np)
