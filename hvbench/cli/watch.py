"""`hvbench watch`: a sweep as its own terminal shows it, from another one."""

from __future__ import annotations

import click

from hvbench.cli.completers import complete_run
from hvbench.cli.interruption import ending_on_signals
from hvbench.cli.options import display_options


@click.command()
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@display_options
def watch(run: str, display: str | None) -> None:
    """Show the sweep in the run folder RUN (or SUITE@latest) while it runs; of one that has ended, what it found.

    \b
    hvbench watch smoke@latest                        beside the terminal in which the sweep runs, or instead of it
    hvbench watch results/batch/20260101T120000Z --json

    It only reads: Ctrl-C ends the watching and not the sweep, any number may watch, and so may other hosts that see the folder.

    Exit codes: 0 the sweep has ended · 2 usage · 5 its process is gone without a word, or nothing was measured
    """
    from hvbench.cli.display.choose import choose_display
    from hvbench.cli.display.watching import watch_run
    from hvbench.comparison.runs import find_run
    from hvbench.io.folders import RESULTS

    with ending_on_signals():
        watch_run(find_run(run, root=RESULTS), choose_display(display or "auto"))
