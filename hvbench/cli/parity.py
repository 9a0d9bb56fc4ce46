"""`hvbench parity`: whether the frameworks do the same work, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import click

from hvbench.cli.completers import complete_suite_or_field
from hvbench.cli.options import launch_options, override_option
from hvbench.parity import CHECKED_UPDATES


@click.command()
@click.argument("words", nargs=-1, metavar="[SUITE] [KEY=VALUE…]", shell_complete=complete_suite_or_field)
@override_option
@launch_options
@click.option(
    "--steps",
    type=click.IntRange(1, 10_000),
    default=CHECKED_UPDATES,
    show_default=True,
    help="Optimizer updates to compare.",
)
@click.option(
    "--full", "is_full", is_flag=True, help="Print every tensor and every update, not only the largest errors."
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write every figure to FILE too."
)
def parity(
    words: tuple[str, ...],
    overrides: tuple[str, ...],
    np: int | None,
    steps: int,
    is_full: bool,
    json_path: Path | None,
) -> int:
    """Train the same few updates in both frameworks and compare every tensor: is it the same work?

    \b
    hvbench parity --np 2                             model tiny, every precision, compression and accumulation
    hvbench parity precision=bf16 --np 2 --full       fewer of these, with every tensor
    horovodrun -np 2 hvbench parity quickstart --steps 3

    Exit code 0: all within their tolerances, which hvbench/parity/tolerances.toml states with the measurements behind them.
    """
    from hvbench.cli.launches.parity import ParityOptions, run_parity

    options = ParityOptions(words=words, overrides=overrides, steps=steps, is_full=is_full, json_path=json_path)
    return run_parity(options, np=np)
