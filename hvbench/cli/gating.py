"""The commands that end with a verdict: they launch or read pairs, judge them, and say it in every form asked for."""

from __future__ import annotations

import os
import sys
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hvbench.comparison.gate.judge import Judgement

RESULTS = Path("results")


def outputs_of_a_verdict(command):
    """Options of `ab` and `gate`: the policy, and where the verdict goes."""
    path = click.Path(path_type=Path)
    for name, text in (
        ("--json", "Write the verdict and all decisions as JSON."),
        ("--markdown", "Write a Markdown comment for a pull request."),
        ("--junit", "Write JUnit XML (needs the extra hvbench[ci])."),
        ("--policy", "Margins, metrics and accepted regressions, a TOML file; see docs/ci.md."),
    ):
        command = click.option(name, f"{name[2:]}_path", type=path, metavar="FILE", help=text)(command)
    return command


@click.command()
@click.argument("suite", default="smoke")
@click.option("--a", "a", multiple=True, metavar="CHANGE", help="What arm a is. Default: as it is. May be repeated.")
@click.option("--b", "b", multiple=True, metavar="CHANGE", help="What is different in arm b. May be repeated.")
@click.option(
    "-s",
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="As in `sweep`, for both arms. May be repeated.",
)
@click.option("--np", "np", type=click.IntRange(1, 4096), metavar="N", help="Ranks to launch on this host.")
@click.option(
    "--budget",
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
@outputs_of_a_verdict
def ab(
    suite: str,
    a: tuple[str, ...],
    b: tuple[str, ...],
    overrides: tuple[str, ...],
    np: int | None,
    budget: float | None,
    seed: int | None,
    turns: bool | None,
    all_pairs: bool,
    out: Path | None,
    policy_path: Path | None,
    junit_path: Path | None,
    markdown_path: Path | None,
    json_path: Path | None,
) -> int:
    """Launch SUITE in two arms, pair by pair, until it is clear whether b is worse than a.

    \b
    A CHANGE is one of
      env=PATH           another Python environment
      rev=GIT            another revision of hvbench, in a worktree made for it
      env:NAME=VALUE     an environment variable
      set=KEY=VALUE      a field of the point

    \b
    hvbench ab smoke --np 2 --a env=.venv --b env=.venv-new
    hvbench ab smoke --np 2 --b set=compression=fp16
    hvbench ab smoke --np 2 --b env:HOROVOD_FUSION_THRESHOLD=0

    The two launches of a pair live at the same time and take turns, a few steps each, so that both see the same machine;
    on several hosts, with a parameter server, on a GPU (unless --turns is given) or with --no-turns one follows the other.

    The verdict is looked for after 6, 12 and 18 pairs. Exit codes: 0 pass · 1 regression · 2 usage · 3 inconclusive ·
    4 not comparable · 5 missing data or a crash
    """
    from hvbench.comparison.ab.arms import parse_arm
    from hvbench.comparison.ab.test import run_ab
    from hvbench.comparison.gate.policy import load_policy
    from hvbench.launch.context import detect_context
    from hvbench.records.store import new_run_path
    from hvbench.spec.suite import apply_overrides, find_suite, load_suite

    if detect_context().launcher != "none":
        raise click.UsageError("hvbench ab launches by itself: start it without horovodrun or mpirun, with --np")
    if not (a or b):
        raise click.UsageError("nothing is different: say what arm b is, for example --b set=compression=fp16")
    require_writer(junit_path)
    policy = load_policy(policy_path)
    file = find_suite(suite)
    loaded = apply_overrides(load_suite(file), overrides)
    loaded.points()
    arguments = [
        str(file.absolute()),
        *(["--np", str(np)] if np else []),
        *(word for text in overrides for word in ("-s", text)),
    ]
    path = out or new_run_path(RESULTS / "ab", loaded.name)
    judgement = run_ab(
        loaded,
        [parse_arm("a", a), parse_arm("b", b)],
        path=path,
        policy=policy,
        arguments=arguments,
        seed=int.from_bytes(os.urandom(3), "big") if seed is None else seed,
        command=" ".join(["hvbench", *sys.argv[1:]]),
        budget_seconds=budget or policy.budget_seconds,
        stops_early=not all_pairs,
        turns=turns,
        report=lambda line: click.echo(line, err=True),
    )
    click.echo(f"pairs: {path}", err=True)
    return deliver(judgement, junit=junit_path, markdown=markdown_path, json=json_path)


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--baseline", metavar="RUN", help="Compare with this run instead of the stored baseline.")
@click.option("--fail-on-baseline", is_flag=True, help="Let a stored baseline alone call a regression (exit code 1).")
@outputs_of_a_verdict
def gate(
    run: str,
    baseline: str | None,
    fail_on_baseline: bool,
    policy_path: Path | None,
    junit_path: Path | None,
    markdown_path: Path | None,
    json_path: Path | None,
) -> int:
    """Judge RUN: the pairs of an `hvbench ab`, or a run against the stored baseline of its suite on this machine.

    \b
    hvbench gate smoke@ab --policy gate.toml --junit gate.xml --markdown comment.md
    hvbench gate smoke@latest --fail-on-baseline

    A stored baseline alone cannot tell a slower program from a slower day: it warns and asks for pairs (exit code 3)
    unless --fail-on-baseline is given. Exit codes: 0 pass · 1 regression · 2 usage · 3 inconclusive · 4 not comparable ·
    5 missing data or a crash
    """
    from datetime import datetime

    from hvbench.comparison.ab.test import is_ab, judge_folder
    from hvbench.comparison.baseline import judge_run
    from hvbench.comparison.gate.policy import load_policy
    from hvbench.comparison.runs import find_run

    require_writer(junit_path)
    policy = load_policy(policy_path)
    if fail_on_baseline:
        policy = policy.model_copy(update={"fail_on_baseline": True})
    today = datetime.now(UTC).date().isoformat()
    path = find_run(run, root=RESULTS)
    if is_ab(path):
        judgement, problems = judge_folder(path, policy=policy, today=today)
    else:
        other = find_run(baseline, root=RESULTS) if baseline else None
        judgement, problems = judge_run(path, root=RESULTS, policy=policy, today=today, baseline=other)
    for problem in problems:
        click.echo(f"not a readable record: {problem}", err=True)
    return deliver(judgement, junit=junit_path, markdown=markdown_path, json=json_path)


def require_writer(junit: Path | None) -> None:
    """Raise UsageError before anything is launched when JUnit XML is asked for and cannot be written."""
    from importlib.util import find_spec

    if junit is not None and find_spec("junitparser") is None:
        raise click.UsageError("--junit needs junitparser: pip install 'hvbench[ci]'")


def deliver(judgement: Judgement, *, junit: Path | None, markdown: Path | None, json: Path | None) -> int:
    """Print the verdict, write the files that were asked for, and end with the verdict's exit code."""
    from datetime import datetime
    from functools import partial
    from socket import gethostname

    from hvbench import errors
    from hvbench.cli.options import write_output
    from hvbench.comparison.outputs import verdict

    click.echo(verdict.render_text(judgement), nl=False)
    timestamp = datetime.now(UTC).isoformat(timespec="seconds").partition("+")[0]
    render_junit = partial(verdict.render_junit, timestamp=timestamp, hostname=gethostname())
    for path, render in ((junit, render_junit), (markdown, verdict.render_markdown), (json, verdict.render_json)):
        if path is not None:
            write_output(render(judgement), path)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in verdict.render_annotations(judgement):
            click.echo(line)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with open(summary, "a", encoding="utf-8") as file:
                file.write(verdict.render_markdown(judgement)[:900_000])  # a step may write 1 MiB
    kinds = {1: errors.RegressionFound, 3: errors.Inconclusive, 4: errors.NotComparable, 5: errors.MissingData}
    if judgement.exit_code in kinds:
        raise kinds[judgement.exit_code](judgement.headline())
    return 0
