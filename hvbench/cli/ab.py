"""`hvbench ab`: launch two arms, pair by pair, until it is clear whether one is worse."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import click

from hvbench.cli.completers import complete_field, complete_suite
from hvbench.cli.options import VerdictFiles, verdict_options
from hvbench.io.folders import RESULTS


@click.command()
@click.argument("suite", shell_complete=complete_suite, default="smoke")
@click.option("--a", "a", multiple=True, metavar="CHANGE", help="What arm a is. Default: as it is. May be repeated.")
@click.option("--b", "b", multiple=True, metavar="CHANGE", help="What is different in arm b. May be repeated.")
@click.option(
    "-s",
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_field,
    help="As in `sweep`, for both arms. May be repeated.",
)
@click.option("--np", "np", type=click.IntRange(1, 4096), metavar="N", help="Ranks to launch on this host.")
@click.option(
    "--budget",
    "budget_seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Start no pair that would end later. Default: 1800.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    metavar="N",
    help="Of the order of the arms. Default: drawn, and kept in ab.json.",
)
@click.option(
    "--turns/--no-turns",
    default=None,
    help="Whether the two launches of a pair live at the same time and take turns, a few steps each. Default: where they can.",
)
@click.option("--all-pairs", is_flag=True, help="Launch all 18 pairs, even when the verdict is clear before.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Default: results/ab/SUITE/TIME.")
@verdict_options
def ab(policy_path: Path | None, files: VerdictFiles, **choices: Any) -> int:
    """Launch SUITE in two arms, pair by pair, until it is clear whether b is worse than a.

    \b
    A CHANGE is one of
      env=PATH           another Python environment
      rev=GIT            another revision, in a worktree made for it: of the script's repository where SUITE
                         has a [script], else of hvbench
      env:NAME=VALUE     an environment variable
      set=KEY=VALUE      a field of the point, or an axis of the script

    \b
    hvbench ab bench/own.toml --a rev=main --b rev=HEAD      two revisions of your own training
    hvbench ab bench/own.toml --a rev=HEAD                   HEAD, and your files as they are
    hvbench ab smoke --np 2 --a env=.venv --b env=.venv-new
    hvbench ab smoke --np 2 -s compression=none --b set=compression=fp16
    hvbench ab smoke --np 2 --b env:HOROVOD_FUSION_THRESHOLD=0

    A revision that has the suite's file runs its own, with its own command and axes: the points that both arms have
    are compared, the rest is named. How they are measured is what the file here says. A worktree has what git
    tracks: data that it does not track needs a path that leads to it from anywhere.

    The two launches of a pair live at the same time and take turns, a few steps each, so that both see the same machine;
    on several hosts, with a parameter server, on a GPU (unless --turns is given) or with --no-turns one follows the other.

    The verdict is looked for after 6, 12 and 18 pairs. Exit codes: 0 pass · 1 regression · 2 usage · 3 inconclusive ·
    4 not comparable · 5 missing data or a crash
    """
    from hvbench.cli.display.verdict import deliver
    from hvbench.comparison.ab.options import AbOptions
    from hvbench.comparison.ab.run import run_ab
    from hvbench.comparison.gate.policy import load_policy
    from hvbench.launch.context import detect_context

    if detect_context().launcher != "none":
        raise click.UsageError("hvbench ab launches by itself: start it without horovodrun or mpirun, with --np")
    options = AbOptions(command=" ".join(["hvbench", *sys.argv[1:]]), **choices)
    if not (options.a or options.b):
        raise click.UsageError(
            "nothing is different: say what arm b is, for example --b env:HOROVOD_FUSION_THRESHOLD=0"
        )
    report = functools.partial(click.echo, err=True)
    return deliver(run_ab(options, load_policy(policy_path), root=RESULTS, report=report), files)
