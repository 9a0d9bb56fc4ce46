"""`hvbench search`: what trains best, within a budget."""

from __future__ import annotations

from typing import Any

import click

from hvbench.cli.completers import complete_space
from hvbench.cli.options import budget_option, launch_options, out_option, override_option, typed_words


@click.command()
@click.argument("space", required=False, metavar="[SPACE]", shell_complete=complete_space)
@override_option
@launch_options
@click.option(
    "--goal",
    default="steps",
    show_default=True,
    metavar="GOAL[,GOAL]",
    help="What to reach target_loss in the least of: steps, tokens, seconds or joules; loss: the lowest at the end; throughput: the most tokens a second. Of two goals: the front.",
)
@budget_option("30m")
@click.option(
    "--pairs",
    type=click.IntRange(2, 18),
    default=6,
    show_default=True,
    help="Launches of the best and of the default, at least, with seeds of their own.",
)
@click.option(
    "--sampler",
    type=click.Choice(["auto", "tpe", "nsga2", "random"]),
    default="auto",
    show_default=True,
    help="What proposes; auto: tpe, of two goals nsga2.",
)
@click.option(
    "--early-ends/--whole",
    "ends_early",
    default=True,
    help="End launches that fall behind (default), or train all to their end.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of the proposals.")
@out_option("results/SPACE/TIME")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the newest run of that name (or with --out): its launches are not repeated.",
)
@click.option("--force", is_flag=True, help="With --resume: go on even if the space or the machine has changed.")
def search(
    space: str | None, overrides: tuple[str, ...], np: int | None, goal: str, budget_seconds: float, pairs: int,
    sampler: str, ends_early: bool, seed: int, **choices: Any,
) -> int:  # fmt: skip
    """Find the training that reaches a loss soonest, or gets furthest, and prove its gain with fresh seeds.

    \b
    hvbench search tiny --np 2 --budget 10m                 a space of suites/spaces, or a TOML file
    hvbench search --np 2 -s model=tiny -s target_loss=3.5 -s evaluate_every=5 -s steps=300
        -s learning_rate=log:1e-4..1e-1 -s optimizer=adamw,lamb -s global_batch=16..512
    hvbench search tiny --np 2 --goal seconds -s framework=pytorch,tensorflow

    A range or a list is searched, one value is fixed. What is found is launched in pairs with the default. Ctrl-C loses nothing:
    --resume goes on, with a new budget. Needs optuna: pip install 'hvbench[tune]'.
    """
    if choices["force"] and not choices["resume"]:
        raise click.UsageError("--force goes with --resume")
    from hvbench.cli.launches.search import SearchOptions, run_search
    from hvbench.sweep.options import SweepOptions

    asked = {
        "budget_seconds": budget_seconds,
        "pairs": pairs,
        "sampler": sampler,
        "ends_early": ends_early,
        "seed": seed,
    }
    options = SearchOptions(space=space, words=overrides, goal=goal, choices=asked)
    return run_search(options, SweepOptions(command=typed_words(), checks_parity=False, **choices), np=np)
