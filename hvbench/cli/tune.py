"""`hvbench tune`: Horovod's knobs for one point, within a budget."""

from __future__ import annotations

from typing import Any

import click

from hvbench.cli.completers import complete_field
from hvbench.cli.options import budget_option, launch_options, out_option, override_option, typed_words
from hvbench.cli.param_types import SearchedKnobs


@click.command()
@click.argument("values", nargs=-1, metavar="KEY=VALUE…", shell_complete=complete_field)
@launch_options
@click.option(
    "--knob", "knobs", type=SearchedKnobs(),
    default="fusion_threshold_bytes,cycle_time_seconds", show_default=True, metavar="NAME,…", help="What may be turned.",
)  # fmt: skip
@budget_option("10m")
@click.option(
    "--pairs",
    type=click.IntRange(1, 18),
    default=6,
    show_default=True,
    help="Launches of the best and of the default, at least.",
)
@out_option("results/tune/TIME")
@click.option(
    "--resume", is_flag=True, help="Go on with the newest run (or with --out): its launches are not repeated."
)
@click.option("--force", is_flag=True, help="With --resume: go on even if the point or the machine has changed.")
@override_option
def tune(
    values: tuple[str, ...],
    overrides: tuple[str, ...],
    np: int | None,
    knobs: tuple[str, ...],
    budget_seconds: float,
    pairs: int,
    **choices: Any,
) -> int:
    """Find Horovod's knobs for one point: hvbench tune framework=tensorflow model=small --np 2 --budget 10m

    An optimiser proposes, launches answer; what it finds is launched in turn with the default, and the gain is that of
    the pairs, with its interval. Ctrl-C loses nothing: --resume goes on, with a new budget. Needs optuna: pip install
    'hvbench[tune]'.
    """
    if choices["force"] and not choices["resume"]:
        raise click.UsageError("--force goes with --resume")
    from hvbench.cli.launches.tune import TuneOptions, run_tune
    from hvbench.sweep.options import SweepOptions

    options = TuneOptions(values=(*values, *overrides), knobs=knobs, budget_seconds=budget_seconds, pairs=pairs)
    return run_tune(options, SweepOptions(command=typed_words(), checks_parity=False, **choices), np=np)
