"""`hvbench sweep`: run every point of a suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hvbench.cli.completers import complete_suite
from hvbench.cli.options import (
    Outputs,
    display_options,
    launch_options,
    out_option,
    override_option,
    point_limit_options,
    precision_options,
    resume_options,
    scale_option,
    timeline_option,
    track_option,
    typed_words,
)

if TYPE_CHECKING:
    from hvbench.spec.suite import Suite


@click.command()
@click.argument("suite", shell_complete=complete_suite, default="quickstart")
@scale_option
@override_option
@launch_options
@out_option("results/SUITE/TIME")
@point_limit_options
@precision_options
@resume_options
@timeline_option
@track_option
@display_options
@click.option(
    "--parity/--no-parity",
    "checks_parity",
    default=True,
    help="First check that the frameworks do the same work (default), or leave it unproven.",
)
@click.option(
    "--report/--no-report",
    "with_report",
    default=True,
    envvar="HVBENCH_REPORT",
    help="Write tables, plots, report.html and report.md at the end.",
)
def sweep(
    suite: str, scale: str | None, overrides: tuple[str, ...], np: int | None,
    trackers: tuple[str, ...], display: str | None, with_report: bool, **choices: Any,
) -> int:  # fmt: skip
    """Run every point of SUITE (a name or a TOML file) and write records, tables, plots and a report.

    \b
    horovodrun -np 8 hvbench sweep                    the main job: suite "quickstart" on 8 ranks
    hvbench sweep smoke --np 2                        the same without a launcher, on this host
    hvbench sweep batch -s precision=bf16 -s steps=20 --np 2
    hvbench sweep batch --np 2 --resume --retry timeout,oom --timeout 900
    """
    from hvbench.cli.launches.sweep import run_sweep
    from hvbench.spec.suite import choose_suite
    from hvbench.sweep.options import SweepOptions

    def load() -> Suite:
        return choose_suite(suite, scale=scale, overrides=overrides)

    outputs = Outputs(display=display or "auto", with_report=with_report, trackers=trackers)
    return run_sweep(load, SweepOptions(command=typed_words(), **choices), outputs, np=np)
