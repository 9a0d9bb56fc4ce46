"""`hvbench report`: everything that follows from a run's records, made again."""

from __future__ import annotations

from pathlib import Path

import click

from hvbench.analysis.formats import NAMES
from hvbench.cli.options import track_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--style", type=click.Path(path_type=Path), metavar="FILE", help="A matplotlib style file for the plots.")
@click.option("--parquet", is_flag=True, help="Write the tables as Parquet too (needs pyarrow: hvbench[parquet]).")
@click.option(
    "--format",
    "formats",
    type=click.Choice(NAMES),
    multiple=True,
    help="Write RUN/formats/… for other programs too. May be repeated.",
)
@track_option
def report(run: Path, style: Path | None, parquet: bool, formats: tuple[str, ...], trackers: tuple[str, ...]) -> None:
    """Rebuild tables, plots, report.html and report.md of the run folder RUN from its records.

    \b
    Formats that other programs read:
      openmetrics               Prometheus' textfile collector: a gauge a metric, with its interval
      bencher                   Bencher's metric format (bencher run --adapter json --file …)
      github-action-benchmark   its customSmallerIsBetter and customBiggerIsBetter
      mlperf                    the lines of MLPerf's training log

    Exit codes: 0 written · 2 usage · 5 no readable record, or none of a launch that ended in ok
    """
    from hvbench.cli.display.report import report_run
    from hvbench.errors import MissingData

    text, has_results = report_run(run, style=style, with_parquet=parquet, formats=formats, trackers=trackers)
    click.echo(text)
    if not has_results:
        raise MissingData(f"{run}: no launch ended in ok with a timed step; the report says how each ended")
