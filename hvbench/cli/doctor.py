"""`hvbench doctor`: what is installed here, and what to do about the rest."""

from __future__ import annotations

import click

from hvbench.cli.options import env_option


@click.command()
@env_option
def doctor() -> int:
    """Show what is installed and built, cores and memory, what each framework can do here, and what is missing."""
    from hvbench.plan.doctor import examine

    findings = examine()
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        mark = click.style("ok  ", fg="green") if finding.is_good else click.style("miss", fg="red")
        click.echo(f"{mark}  {finding.subject:{width}}  {finding.fact}")
        if finding.remedy:
            click.echo(f"{'':{width + 8}}fix: {finding.remedy}")
    return 0 if all(finding.is_good or not finding.is_required for finding in findings) else 1
