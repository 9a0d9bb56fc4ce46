"""`hvbench compare`: two or more runs, point by point."""

from __future__ import annotations

from pathlib import Path

import click

from hvbench.cli.completers import complete_run
from hvbench.cli.options import write_output
from hvbench.io.folders import RESULTS


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN…", shell_complete=complete_run)
@click.option(
    "--by",
    metavar="AXIS",
    help="Compare the values of a point's field, such as framework or precision, or of a script's axis, within the runs.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "markdown", "csv", "json"]),
    default="text",
    show_default=True,
    help="Of the output.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write there instead of to the terminal.")
def compare(runs: tuple[str, ...], by: str | None, style: str, out: Path | None) -> int:
    """Compare two or more runs, point by point; the first one is the reference.

    A RUN is a folder, SUITE@latest, SUITE@baseline, or SUITE@ab: the newest `hvbench ab`, which holds both of its arms.

    \b
    hvbench compare results/smoke/20260101T000000Z smoke@latest
    hvbench compare quickstart@latest --by framework
    hvbench compare batch@baseline batch@latest --format markdown --out changes.md

    \b
    Exit codes: 0 compared · 2 usage · 4 not comparable: another machine, or frameworks that did not do the same work ·
    5 nothing to compare
    """
    from hvbench.comparison.outputs.comparison import RENDERERS
    from hvbench.comparison.read import compare_runs
    from hvbench.errors import MissingData, NotComparable

    comparison, problems = compare_runs(runs, by=by, root=RESULTS)
    for problem in problems:
        click.echo(f"not a readable record: {problem}", err=True)
    write_output(RENDERERS[style](comparison), out)
    if not comparison.points:
        raise MissingData("nothing to compare: no point ended in ok on both sides")
    if not comparison.is_comparable:
        fields = ", ".join(comparison.differences) or "the frameworks are not proven to have done the same work"
        raise NotComparable(f"not comparable: {fields}")
    return 0
