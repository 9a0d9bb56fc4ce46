"""The manual page: every command and option is in it, and man has nothing to complain of."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hvbench.cli.group import hvbench
from hvbench.cli.manual import render_manual


def walk(command: click.Command) -> Iterator[click.Command]:
    """The command and all below it."""
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from walk(below)


def render(page: Path) -> str:
    """The page as a reader sees it, without line breaks; fails where man warns of something."""
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    environment = os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "100", "MAN_KEEP_FORMATTING": "", "MANROFFOPT": ""}
    done = subprocess.run(["man", "--warnings", "-l", page], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return " ".join(done.stdout.split())


def test_man_shows_every_command_with_its_options(tmp_path: Path) -> None:
    page = tmp_path / "hvbench.1"
    page.write_text(render_manual(), encoding="ascii")
    shown = render(page)
    for command in walk(hvbench):
        context = click.Context(command)
        assert (command.help or "").partition("\n")[0].rstrip(".") in shown, command.name
        for parameter in command.get_params(context):
            if record := parameter.get_help_record(context):
                assert " ".join(record[0].split()) in shown and " ".join(record[1].split()) in shown, record


def test_no_text_becomes_a_command_of_roff(tmp_path: Path) -> None:
    hostile = '.TH x\n\'br\n\\fBbold\\fR "quoted" -- ~/`x`^… é\n\n\b\n.so /etc/passwd\n  kept   as it is'
    command = click.Command("hvbench", help=f"Title.\n\n{hostile}", params=[click.Option(["--x"], help=hostile)])
    page = tmp_path / "hvbench.1"
    page.write_text(render_manual(command), encoding="ascii")
    shown = render(page)
    for words in (".TH x 'br", '\\fBbold\\fR "quoted" -- ~/`x`^… é', ".so /etc/passwd kept as it is"):
        assert shown.count(words) == 2, words
