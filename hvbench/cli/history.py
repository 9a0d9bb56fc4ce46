"""`hvbench history`: a metric over the stored runs."""

from __future__ import annotations

from pathlib import Path

import click

from hvbench.io.folders import RESULTS


@click.command()
@click.argument("metric", default="step_seconds_median")
@click.option("--suite", default="smoke", show_default=True, help="Whose runs below results/.")
@click.option("--fingerprint", metavar="DIGITS", help="Runs of this machine and software. Default: the newest run's.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="STEM", help="Write STEM.svg and STEM.png.")
def history(metric: str, suite: str, fingerprint: str | None, plot: Path | None) -> None:
    """Show METRIC over the stored runs of a suite on one machine, and where it changed."""
    from hvbench.analysis.show.panels import save
    from hvbench.comparison.outputs import history as outputs
    from hvbench.comparison.read import read_history
    from hvbench.io.atomic import explaining_write_errors

    found = read_history(metric, suite=suite, fingerprint=fingerprint, root=RESULTS)
    for problem in found.problems:
        click.echo(f"not readable: {problem}", err=True)
    click.echo(outputs.render_title(found) + "\n")
    click.echo(outputs.render_text(found.lines, found.metric), nl=False)
    if plot:
        figure = outputs.draw(found.lines, found.metric, title=f"{found.metric.title} of {suite}")
        with explaining_write_errors(plot):
            paths = save(figure, plot)
        click.echo("\n".join(str(path) for path in paths))
