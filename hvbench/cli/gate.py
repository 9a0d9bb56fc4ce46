"""`hvbench gate`: a verdict over stored pairs, or over a run and the baseline of its suite."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from hvbench.cli.completers import complete_run
from hvbench.cli.options import VerdictFiles, verdict_options
from hvbench.io.folders import RESULTS


@click.command()
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@click.option("--baseline", metavar="RUN", help="Compare with this run instead of the stored baseline.")
@click.option("--fail-on-baseline", is_flag=True, help="Let a stored baseline alone call a regression (exit code 1).")
@verdict_options
def gate(run: str, baseline: str | None, fail_on_baseline: bool, policy_path: Path | None, files: VerdictFiles) -> int:
    """Judge RUN: the pairs of an `hvbench ab`, or a run against the stored baseline of its suite on this machine.

    \b
    hvbench gate smoke@ab --policy gate.toml --junit gate.xml --markdown comment.md
    hvbench gate smoke@latest --fail-on-baseline

    A stored baseline alone cannot tell a slower program from a slower day: it warns and asks for pairs (exit code 3)
    unless --fail-on-baseline is given. Exit codes: 0 pass · 1 regression · 2 usage · 3 inconclusive · 4 not comparable ·
    5 missing data or a crash
    """
    from hvbench.cli.display.verdict import deliver
    from hvbench.comparison.gate.policy import load_policy
    from hvbench.comparison.read import judge_stored

    policy = load_policy(policy_path)
    if fail_on_baseline:
        policy = policy.model_copy(update={"fail_on_baseline": True})
    today = datetime.now(UTC).date().isoformat()
    judgement, problems = judge_stored(run, against=baseline, root=RESULTS, policy=policy, today=today)
    for problem in problems:
        click.echo(f"not a readable record: {problem}", err=True)
    return deliver(judgement, files)
