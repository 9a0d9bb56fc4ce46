"""`hvbench comment`: a verdict where a change is discussed."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--subject", default="gate", show_default=True, help="What it is about: one comment each, written over.")
def comment(file: Path, subject: str) -> None:
    """Write FILE, such as the --markdown of `hvbench ab`, as a comment of the pull or merge request that this job is for.

    \b
    hvbench ab bench/own.toml --np 2 --a rev=main --b rev=HEAD --markdown gate.md
    hvbench comment gate.md --subject bench/own.toml

    In a job of GitHub Actions with a GITHUB_TOKEN that may write to pull requests, or of GitLab with a GITLAB_TOKEN (of scope api).
    """
    from hvbench.comparison.comment import MAX_BYTES, find_request, write_comment
    from hvbench.errors import UsageError
    from hvbench.io.untrusted import read_regular_file

    try:
        text = read_regular_file(file, max_bytes=MAX_BYTES, kind="a comment is a short text").decode()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: not UTF-8 text") from None
    state = write_comment(find_request(os.environ), text, subject=subject)
    click.echo(f"{file}: {'a new comment' if state == 'new' else 'written over the earlier comment'}")
