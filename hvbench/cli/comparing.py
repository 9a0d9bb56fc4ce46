"""The commands that compare stored runs: each parses its arguments, calls the package, prints what that returns."""

from __future__ import annotations

from pathlib import Path

import click

RESULTS = Path("results")


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option(
    "--by",
    metavar="AXIS",
    help="Compare the values of a point's field, such as framework or precision, within the runs.",
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
    Exit codes: 0 compared · 2 usage · 4 not comparable: another machine, or frameworks that did not train alike ·
    5 nothing to compare
    """
    from hvbench.cli.options import write_output
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
        fields = ", ".join(comparison.differences) or "the frameworks did not train alike"
        raise NotComparable(f"not comparable: {fields}")
    return 0


@click.group()
def baseline() -> None:
    """Keep runs to compare later ones with: one a suite and machine, in results/baselines."""


@baseline.command("set")
@click.argument("run", metavar="RUN")
def set_(run: str) -> None:
    """Keep RUN (a folder or SUITE@latest) as the baseline of its suite on its machine."""
    from hvbench.comparison.baseline import set_baseline
    from hvbench.comparison.runs import find_run

    kept = set_baseline(find_run(run, root=RESULTS), root=RESULTS)
    click.echo(
        f"baseline of {kept.suite} on {kept.fingerprint}: {kept.points} points, {kept.launches} launches, {kept.path}"
    )


@baseline.command()
def show() -> None:
    """List the stored baselines."""
    from hvbench.comparison.baseline import list_baselines
    from hvbench.spec.messages import shorten

    for one in list_baselines(RESULTS):
        versions = ", ".join(f"{name} {version}" for name, version in (one.facts.get("packages") or {}).items())
        about = f"{one.facts.get('cpu_model')}, {one.facts.get('usable_cores')} cores, {versions}"
        click.echo(
            f"{one.suite}  {one.fingerprint}  {one.points} points, {one.launches} launches  {one.created_at}  {shorten(about, limit=200)}"
        )


@click.command()
@click.argument("metric", default="step_seconds_median")
@click.option("--suite", default="smoke", show_default=True, help="Whose runs below results/.")
@click.option("--fingerprint", metavar="DIGITS", help="Runs of this machine and software. Default: the newest run's.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="STEM", help="Write STEM.svg and STEM.png.")
def history(metric: str, suite: str, fingerprint: str | None, plot: Path | None) -> None:
    """Show METRIC over the stored runs of a suite on one machine, and where it changed (needs hvbench[ci])."""
    from importlib.util import find_spec

    from hvbench.analysis.show.panels import save
    from hvbench.cli.options import find_metric
    from hvbench.comparison.history import trace
    from hvbench.comparison.outputs import history as outputs
    from hvbench.comparison.runs import list_runs
    from hvbench.errors import MissingData, StorageError
    from hvbench.records.fingerprint import fingerprint_id

    if find_spec("ruptures") is None:
        raise click.UsageError("hvbench history needs ruptures: pip install 'hvbench[ci]'")
    chosen = find_metric(metric)
    runs = [
        (name, at, launches.records, {fingerprint_id(r) for r in launches.records})
        for name, at, launches in list_runs(RESULTS, suite)
    ]
    if not runs:
        raise MissingData(f"no run of {suite} below {RESULTS}; make one with hvbench sweep {suite}")
    wanted = fingerprint or fingerprint_id(runs[-1][2][-1])
    same = [(name, at, records) for name, at, records, found in runs if wanted in found]
    if not same:
        known = ", ".join(sorted(set().union(*(found for *_, found in runs))))
        raise MissingData(f"no run of {suite} has the fingerprint {wanted}; there are {known}")
    lines = trace(same, chosen)
    others = len(runs) - len(same)
    click.echo(
        f"{chosen.title} of {suite}, {len(same)} runs on {wanted}" + (f"; {others} on others" if others else "") + "\n"
    )
    click.echo(outputs.render_text(lines, chosen), nl=False)
    if plot:
        try:
            paths = save(outputs.draw(lines, chosen, title=f"{chosen.title} of {suite}"), plot)
        except OSError as error:
            raise StorageError(f"{plot}: cannot be written: {error.strerror}") from None
        click.echo("\n".join(str(path) for path in paths))
