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
@click.option("--all", "lists_all", is_flag=True, help="List all points, however many.")
@click.option("--fields", is_flag=True, help="List the fields of a point and the [measure] settings, and stop.")
def plan(
    suite: str, scale: str | None, overrides: tuple[str, ...], np: int | None, memory_limit_bytes: int | None,
    lists_all: bool, fields: bool,
) -> None:  # fmt: skip
    """Show what SUITE would run, and run nothing: a row a point with its launches and time, what is skipped and why.

    Then what may not fit into memory, whether frameworks take turns, which difference between them the rounds will tell, and the time in
    all. Times and scatter are those of this machine's earlier runs in results/, where there are any; `~` is a rough estimate.
    """
    from hvbench.cli.display.fields import describe_fields
    from hvbench.cli.display.plan import describe_plan
    from hvbench.spec.suite import choose_suite
    from hvbench.sweep.options import SweepOptions

    if fields:
        click.echo(describe_fields())
        return
    chosen = choose_suite(suite, scale=scale, overrides=overrides)
    chosen = SweepOptions(memory_limit_bytes=memory_limit_bytes).apply_to(chosen)
    click.echo(describe_plan(chosen, np=np, lists_all=lists_all))
