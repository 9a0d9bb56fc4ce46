"""A verdict as `ab` and `gate` end with it: printed, written to every file that was asked for, and as an exit code."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from socket import gethostname

import click

from hvbench import errors
from hvbench.cli.options import VerdictFiles, write_output
from hvbench.comparison.gate.judgement import Judgement
from hvbench.comparison.outputs import verdict
from hvbench.io.atomic import explaining_write_errors

MAX_SUMMARY_CHARACTERS = 900_000  # a step of GitHub Actions may write 1 MiB
ERRORS = {1: errors.RegressionFound, 3: errors.Inconclusive, 4: errors.NotComparable, 5: errors.MissingData}


def deliver(judgement: Judgement, files: VerdictFiles) -> int:
    """Print the verdict, and write it to the files that were asked for and to GitHub's summary of the step.

    Returns:
        The exit code 0: the verdict is a pass.

    Raises:
        HvbenchError: the verdict is another one; its exit code says which.
        StorageError: a file cannot be written.
    """
    click.echo(verdict.render_text(judgement), nl=False)
    timestamp = datetime.now(UTC).isoformat(timespec="seconds").partition("+")[0]
    for path, render in (
        (files.junit, partial(verdict.render_junit, timestamp=timestamp, hostname=gethostname())),
        (files.markdown, verdict.render_markdown),
        (files.json, verdict.render_json),
    ):
        if path is not None:
            write_output(render(judgement), path)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        annotate(judgement)
    if judgement.exit_code in ERRORS:
        raise ERRORS[judgement.exit_code](judgement.headline())
    return 0


def annotate(judgement: Judgement) -> None:
    """Print GitHub's annotations, and append the verdict to the summary of the step."""
    for line in verdict.render_annotations(judgement):
        click.echo(line)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with explaining_write_errors(Path(summary)), Path(summary).open("a", encoding="utf-8") as file:
            file.write(verdict.render_markdown(judgement)[:MAX_SUMMARY_CHARACTERS])
