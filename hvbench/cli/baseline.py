"""`hvbench baseline`: runs that are kept, to compare later ones with."""

from __future__ import annotations

import click

from hvbench.cli.completers import complete_run
from hvbench.io.folders import RESULTS


@click.group()
def baseline() -> None:
    """Keep runs to compare later ones with: one a suite and machine, in results/baselines."""


@baseline.command("set")
@click.argument("run", metavar="RUN", shell_complete=complete_run)
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
    from hvbench.errors import MissingData
    from hvbench.spec.messages import shorten

    kept, problems = list_baselines(RESULTS)
    for problem in problems:
        click.echo(f"not a readable baseline: {problem}", err=True)
    if not kept:
        raise MissingData(f"no baseline below {RESULTS / 'baselines'}; keep one with hvbench baseline set RUN")
    for one in kept:
        versions = ", ".join(f"{name} {version}" for name, version in (one.facts.get("packages") or {}).items())
        about = f"{one.facts.get('cpu_model')}, {one.facts.get('usable_cores')} cores, {versions}"
        click.echo(
            f"{one.suite}  {one.fingerprint}  {one.points} points, {one.launches} launches  {one.created_at}  {shorten(about, limit=200)}"
        )
