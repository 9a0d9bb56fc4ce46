"""`hvbench report`: everything that follows from a run's records, made again."""

from __future__ import annotations

from pathlib import Path

import click

from hvbench.cli.options import track_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--style", type=click.Path(path_type=Path), metavar="FILE", help="A matplotlib style file for the plots.")
@click.option("--parquet", is_flag=True, help="Write the tables as Parquet too (needs pyarrow: hvbench[parquet]).")
@track_option
def report(run: Path, style: Path | None, parquet: bool, trackers: tuple[str, ...]) -> None:
    """Rebuild tables, plots, report.html and report.md of the run folder RUN from its records.

    Exit codes: 0 written · 2 usage · 5 no readable record, or none of a launch that ended in ok
    """
    from hvbench.cli.display.report import report_run
    from hvbench.errors import MissingData

    text, has_results = report_run(run, style=style, with_parquet=parquet, trackers=trackers)
    click.echo(text)
    if not has_results:
        raise MissingData(f"{run}: no launch ended in ok with a timed step; the report says how each ended")
