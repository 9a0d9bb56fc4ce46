"""`hvbench plan`: what a suite would run, without running it."""

from __future__ import annotations

import click

from hvbench.cli.completers import complete_suite_or_field
from hvbench.cli.options import launch_options, memory_limit_option, override_option, scale_option


@click.command()
@click.argument("words", nargs=-1, metavar="[SUITE|KEY=VALUE…]", shell_complete=complete_suite_or_field)
@scale_option
@override_option
@launch_options
@memory_limit_option
@click.option("--all", "lists_all", is_flag=True, help="List all points, however many.")
@click.option("--fields", is_flag=True, help="List the fields of a point and the [measure] settings, and stop.")
def plan(
    words: tuple[str, ...], scale: str | None, overrides: tuple[str, ...], np: int | None, memory_limit_bytes: int | None,
    lists_all: bool, fields: bool,
) -> None:  # fmt: skip
    """Show what SUITE would run, and run nothing: a row a point with its launches and time, what is skipped and why.

    Fields as `hvbench run` takes them stand for that run; without either it is the suite quickstart.

    Then what may not fit into memory, whether frameworks take turns, which difference between them the rounds will tell, and the time in
    all. Times and scatter are those of this machine's earlier runs in results/, where there are any; `~` is a rough estimate.
    """
    from hvbench.cli.display.fields import describe_fields
    from hvbench.cli.display.plan import describe_plan
    from hvbench.errors import UsageError
    from hvbench.spec.messages import shorten
    from hvbench.spec.suite import apply_overrides, choose_suite, suite_of_words
    from hvbench.sweep.options import SweepOptions

    if fields:
        click.echo(describe_fields())
        return
    are_fields = bool(words) and "=" in words[0] and not words[0].endswith(".toml")
    if (len(words) > 1 and not are_fields) or (are_fields and scale):
        raise UsageError(
            f"plan {' '.join(map(shorten, words))}: one suite, or fields as KEY=VALUE, which have no --scale"
        )
    if are_fields:
        chosen = apply_overrides(suite_of_words(words, where="hvbench plan"), overrides)
    else:
        chosen = choose_suite(*words or ("quickstart",), scale=scale, overrides=overrides)
    chosen = SweepOptions(memory_limit_bytes=memory_limit_bytes).apply_to(chosen)
    click.echo(describe_plan(chosen, np=np, lists_all=lists_all))
