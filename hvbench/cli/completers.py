"""What a shell completes: suites, runs, fields and their values. Only called while somebody presses the tab key."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem


def complete_suite(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of suites, or TOML files."""
    from hvbench.spec.suite import list_suites

    names = [path.stem for path in list_suites()]
    return _beginning(names, incomplete) or [CompletionItem(incomplete, type="file")]


def complete_space(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of spaces of `hvbench search`, or TOML files."""
    from hvbench.sweep.search.ask import list_spaces

    return _beginning(list(list_spaces()), incomplete) or [CompletionItem(incomplete, type="file")]


def complete_run(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`SUITE@latest` of the suites that have runs below `results`, or folders."""
    from hvbench.io.folders import RESULTS

    names = sorted({f"{path.parent.parent.name}@latest" for path in RESULTS.glob("*/*/run.json")})
    return [*_beginning(names, incomplete), CompletionItem(incomplete, type="dir")]


def complete_field(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`KEY=` of a point or of [measure], and behind it the values that it can have, also behind a comma."""
    from hvbench.spec.point import Point
    from hvbench.spec.settings import MeasureSettings

    fields = {**Point.model_fields, **MeasureSettings.model_fields}
    name, equals, value = incomplete.partition("=")
    if not equals:
        return [
            CompletionItem(f"{key}=", help=field.description)
            for key, field in fields.items()
            if key.startswith(incomplete)
        ]
    before, comma, last = value.rpartition(",")
    choices = _choices(fields[name].annotation) if name in fields else ()
    return [CompletionItem(f"{name}={before}{comma}{choice}") for choice in choices if choice.startswith(last)]


def complete_suite_or_field(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """A suite and then fields, as `plan` and `parity` take them."""
    if "=" in incomplete:
        return complete_field(context, parameter, incomplete)
    fields = complete_field(context, parameter, incomplete)
    return [
        item for item in complete_suite(context, parameter, incomplete) if item.type == "plain" or not fields
    ] + fields


def _choices(annotation: Any) -> Iterator[str]:
    """The strings and switches that a type allows, as they are written in a suite."""
    if annotation is bool:
        yield from ("true", "false")
    elif typing.get_origin(annotation) is typing.Literal:
        yield from (str(value) for value in typing.get_args(annotation))
    else:
        for part in typing.get_args(annotation):
            yield from _choices(part)


def _beginning(names: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
