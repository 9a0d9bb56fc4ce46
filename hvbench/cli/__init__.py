"""The command line: arguments in, text and an exit code out; the only package that prints or exits.

What a command needs is imported when the command runs, so that `hvbench --help` stays fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from hvbench.cli.group import hvbench
from hvbench.errors import HvbenchError, UsageError
from hvbench.io.surroundings import settle
from hvbench.io.untrusted import make_printable
from hvbench.launch.context import detect_context


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script: run, turn errors into one line and an exit code, exit."""
    try:
        settle()
    except HvbenchError as error:
        print_error(f"hvbench: {error}", is_first=True)
        sys.exit(error.exit_code)
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; only rank 0 of a launch prints errors."""
    is_first = detect_context().is_first
    try:
        code = hvbench.main(args=arguments, prog_name="hvbench", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except HvbenchError as error:
        print_error(f"hvbench: {error}", is_first=is_first)
        return error.exit_code
    except click.ClickException as error:
        print_error(f"hvbench: {error.format_message().rstrip('.')}; see hvbench --help", is_first=is_first)
        return UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left (`hvbench suites | head`)
        return 0


def print_error(message: str, *, is_first: bool) -> None:
    """One line on standard error, from rank 0 only; a path or a value in it cannot break or colour the line."""
    if is_first:
        click.echo(make_printable(message), err=True)
