"""`hvbench plan`: what a suite would run, without running it."""

from __future__ import annotations

import click

from hvbench.cli.options import launch_options, memory_limit_option, override_option, scale_option


@click.command()
@click.argument("suite", default="quickstart")
@scale_option
@override_option
@launch_options
@memory_limit_option
@click.option("--fields", is_flag=True, help="List the fields of a point and the [measure] settings, and stop.")
def plan(
    suite: str, scale: str | None, overrides: tuple[str, ...], np: int | None, memory_limit_bytes: int | None,
    fields: bool,
) -> None:  # fmt: skip
    """Show what SUITE would run, what is skipped and why, what may not fit into memory, and roughly how long it takes."""
    from hvbench.cli.display.plan import describe_fields, describe_plan
    from hvbench.spec.suite import choose_suite

    if fields:
        click.echo(describe_fields())
        return
    chosen = choose_suite(suite, scale=scale, overrides=overrides)
    click.echo(describe_plan(chosen, np=np, memory_limit_bytes=memory_limit_bytes))
