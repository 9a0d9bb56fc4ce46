"""The command line is a contract: its commands, options, defaults and help are those of `command_line.txt` beside this.

A change on purpose rewrites that file: PYTHONPATH=. python tests/unit/test_command_line.py
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from hvbench.cli.group import hvbench

CONTRACT = Path(__file__).with_name("command_line.txt")


def test_the_command_line_is_the_one_that_is_promised() -> None:
    assert describe_command_line() == CONTRACT.read_text(encoding="utf-8")


def describe_command_line() -> str:
    """Every command with its help and its parameters as text, the same for every version of click."""
    lines = (line.replace("\b", r"\b").rstrip() for line in describe_command(hvbench, "hvbench"))
    return "\n".join(lines) + "\n"


def describe_command(command: click.Command, path: str) -> Iterator[str]:
    """The command at `path` and those below it."""
    yield f"== {path}"
    yield from inspect.cleandoc(command.help or "").splitlines()
    yield from (command.epilog or "").splitlines()
    yield from (describe_parameter(parameter) for parameter in command.params)
    yield ""
    for name, below in sorted(getattr(command, "commands", {}).items()):
        yield from describe_command(below, f"{path} {name}")


def describe_parameter(parameter: click.Parameter) -> str:
    """`-s --set KEY=VALUE[,VALUE] (text, several): what it means`."""
    facts = [describe_type(parameter.type)]
    if parameter.required:
        facts.append("required")
    if parameter.nargs != 1:
        facts.append(f"{parameter.nargs} values")
    if isinstance(parameter, click.Argument):
        return f"{parameter.metavar or parameter.name.upper()} ({', '.join([*facts, *describe_default(parameter)])})"
    assert isinstance(parameter, click.Option)
    facts += [
        *(["several"] if parameter.multiple else []),
        *([f"flag: {parameter.flag_value!r}"] if parameter.is_flag and isinstance(parameter.flag_value, str) else []),
        *([f"variable {parameter.envvar}"] if parameter.envvar else []),
        *describe_default(parameter),
    ]
    names = " ".join([*parameter.opts, *(f"or {name}" for name in parameter.secondary_opts)])
    return f"{names} {parameter.metavar or ''} ({', '.join(facts)}): {parameter.help or ''}"


def describe_default(parameter: click.Parameter) -> list[str]:
    """The default, where it is one that a person can give; versions of click mark "none" in different ways."""
    if not isinstance(parameter.default, str | int | float | tuple) or parameter.default in (False, ()):
        return []
    shown = ", shown" if getattr(parameter, "show_default", False) else ""
    return [f"default {parameter.default!r}{shown}"]


def describe_type(kind: click.ParamType) -> str:
    """A type with its bounds or choices."""
    if isinstance(kind, click.Choice):
        return f"one of {', '.join(kind.choices)}"
    if isinstance(kind, click.IntRange | click.FloatRange):
        return f"{kind.name} {kind.min} to {kind.max}"
    return f"{kind.name} of {', '.join(kind.allowed)}" if hasattr(kind, "allowed") else kind.name


if __name__ == "__main__":
    CONTRACT.write_text(describe_command_line(), encoding="utf-8")
