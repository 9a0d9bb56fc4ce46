"""`hvbench suites`: the questions that can be asked."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a suite file instead, for editors.")
def suites(schema: bool) -> None:
    """List the suites with the question that each answers."""
    from hvbench.spec.schema import suite_schema
    from hvbench.spec.suite import list_suites, load_suite

    if schema:
        click.echo(json.dumps(suite_schema(), indent=2))
        return
    loaded = [load_suite(path) for path in list_suites()]
    width = max((len(suite.name) for suite in loaded), default=0)
    for suite in loaded:
        scales = f"  (--scale {', '.join(suite.scales)})" if suite.scales else ""
        click.echo(f"{suite.name:{width}}  {suite.question}{scales}")
