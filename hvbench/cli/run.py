"""`hvbench run`: one point, given as fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hvbench.cli.completers import complete_field
from hvbench.cli.options import (
    Outputs,
    display_options,
    launch_options,
    out_option,
    override_option,
    point_limit_options,
    precision_options,
    resume_options,
    timeline_option,
    track_option,
    typed_words,
)

if TYPE_CHECKING:
    from hvbench.spec.suite import Suite


@click.command()
@click.argument("values", nargs=-1, metavar="KEY=VALUE…", shell_complete=complete_field)
@override_option
@launch_options
@out_option("results/run/TIME")
@point_limit_options
@resume_options
@timeline_option
@precision_options
@track_option
@display_options
def run(
    values: tuple[str, ...], overrides: tuple[str, ...], np: int | None,
    trackers: tuple[str, ...], display: str | None, **choices: Any,
) -> int:  # fmt: skip
    """Run one point, given as fields: hvbench run framework=tensorflow precision=bf16 steps=20 --np 2

    Fields left out have their defaults (see `hvbench plan --fields`).
    """
    from hvbench.cli.launches.sweep import run_sweep
    from hvbench.spec.suite import apply_overrides, suite_of_words
    from hvbench.sweep.options import SweepOptions

    def load() -> Suite:
        return apply_overrides(suite_of_words(values, where="hvbench run"), overrides)

    outputs = Outputs(display=display or "auto", trackers=trackers)
    return run_sweep(load, SweepOptions(command=typed_words(), **choices), outputs, np=np)
