"""The manual page hvbench(1): the commands with their help and options, as roff. setup.py writes it into the wheel, where click is all there is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from hvbench import __version__
from hvbench.cli.group import hvbench

AS_IT_IS = "\b"  # click's mark before a paragraph whose lines stay lines
NAME = "hvbench"


def render_manual(command: click.Command = hvbench) -> str:
    """The page of a command and of those below it: ASCII, which every roff reads alike."""
    context = click.Context(command, info_name=NAME)
    first, *more = _paragraphs(command.help)
    lines = [
        f'.TH {NAME.upper()} 1 "" "{NAME} {__version__}" "User Commands"',
        ".nh",  # no hyphens within words that are typed
        ".ad l",
        ".SH NAME",
        f"{NAME} \\- {_escape(' '.join(first).rstrip('.'))}",
        ".SH SYNOPSIS",
        *_usage(command, context),
        ".SH DESCRIPTION",
        *_show(more),
        *_show(_paragraphs(command.epilog)),
        ".SH OPTIONS",
        *_options(command, context),
        ".SH COMMANDS",
        *_commands(command, context),
    ]
    return "\n".join(lines) + "\n"


def _commands(command: click.Command, context: click.Context) -> Iterator[str]:
    """A section for each command below this one."""
    for name, below in sorted(getattr(command, "commands", {}).items()):
        inner = click.Context(below, info_name=name, parent=context)
        yield f'.SS "{_escape(inner.command_path.removeprefix(f"{NAME} "))}"'
        yield from _usage(below, inner)
        yield from _show(_paragraphs(below.help))
        yield from _options(below, inner)
        yield from _commands(below, inner)


def _usage(command: click.Command, context: click.Context) -> Iterator[str]:
    """The command as it is typed."""
    yield ".P"
    yield f"\\fB{_escape(context.command_path)}\\fR {_escape(' '.join(command.collect_usage_pieces(context)))}"


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """Each option with its help."""
    for parameter in command.get_params(context):
        if record := parameter.get_help_record(context):
            yield ".TP"
            yield f"\\fB{_escape(record[0])}\\fR"
            yield _escape(" ".join(record[1].split()))


def _paragraphs(text: str | None) -> list[list[str]]:
    """The lines of each paragraph of a help text."""
    return [part.splitlines() for part in re.split(r"\n[ \t]*\n", inspect.cleandoc(text or "")) if part.strip()]


def _show(paragraphs: list[list[str]]) -> Iterator[str]:
    """Paragraphs whose lines are filled, or are kept where click keeps them."""
    for lines in paragraphs:
        yield ".P"
        if lines[0].strip() == AS_IT_IS:
            yield from (".nf", *map(_escape, lines[1:]), ".fi")
        else:
            yield from map(_escape, lines)


def _escape(text: str) -> str:
    """`text` as roff prints it: no command, no hyphen for a dash that is typed, no letter beyond ASCII."""
    for letter, name in (
        ("\\", "\\e"),
        ("-", "\\-"),
        ('"', "\\(dq"),
        ("'", "\\(aq"),
        ("`", "\\(ga"),
        ("^", "\\(ha"),
        ("~", "\\(ti"),
    ):
        text = text.replace(letter, name)
    text = re.sub(r"[\x00-\x1f\x7f]", "", text)
    text = re.sub(r"[^\x00-\x7f]", lambda match: f"\\[u{ord(match[0]):04X}]", text)
    return f"\\&{text}" if text.startswith(".") else text
