"""`hvbench predict`: what more ranks or another link would make of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hvbench.cli.param_types import Bandwidths, Counts, Size


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
)
@click.option(
    "--allreduce",
    "beside",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="RUN",
    help="For a sweep: a run of hvbench allreduce, for what more ranks cost beside the wire.",
)
@click.option(
    "--size",
    "payloads",
    type=Size(),
    multiple=True,
    default=("1MiB", "16MiB", "256MiB"),
    show_default=True,
    help="For all-reduces: message sizes. May be repeated.",
)
def predict(run: Path, **choices: Any) -> None:
    """Fit a model of the cost to RUN and say what more ranks or another link would make of it, and how sure that is.

    \b
    hvbench predict results/allreduce/…  --ranks 8,64 --link 10Gbit
    hvbench predict results/network/…    --ranks 64 --link 10Gbit --allreduce results/allreduce/…
    hvbench predict results/exchange/…   --link 200Mbit,1Gbit

    RUN is a run of hvbench allreduce (the cost of an all-reduce by size and ranks, checked on held-out cases) or of a
    sweep: on links of different bandwidth, such as the suite network (step time, efficiency, and the bandwidth where
    compression breaks even), or on one machine with several compressions, such as the suite exchange (the same from the
    bytes that cross a link).
    """
    from hvbench.communication.forecast import Question, forecast

    click.echo(forecast(run, Question(**choices)))
