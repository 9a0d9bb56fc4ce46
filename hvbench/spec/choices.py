"""The words of `key=value,value` on a command line: commas separate values, but not within quotes.

    data=a,b            two values            data="a,b"      one, with a comma        data='a"b','c'      two

Quotes mean what they mean in TOML: within "…" a backslash begins an escape, within '…' everything stands for itself.
"""

from __future__ import annotations

import shlex
import tomllib

from hvbench.errors import UsageError
from hvbench.spec.messages import shorten

QUOTES = "\"'"


def split_choices(text: str, *, where: str) -> list[str]:
    """The values in `text`, quoted ones with their quotes; raises UsageError for a quote that is not closed."""
    found, rest = [], text
    while True:
        length = _length_of_quoted(rest, where=where) if rest[:1] in QUOTES and rest else len(rest.partition(",")[0])
        found.append(rest[:length])
        if length == len(rest):
            return found
        if rest[length] != ",":
            raise UsageError(f"{where}: after {shorten(rest[:length])} comes a comma or the end, not {rest[length]!r}")
        rest = rest[length + 1 :]


def unquote(choice: str, *, where: str) -> str:
    """The text that one value of `split_choices` stands for; raises UsageError where its escapes are not TOML's."""
    if choice[:1] not in QUOTES or not choice:
        return choice
    try:
        return tomllib.loads(f"value = {choice}")["value"]
    except ValueError:
        raise UsageError(
            f"{where}: {shorten(choice)}: a backslash begins an escape in double quotes; write it in single quotes"
        ) from None


def quote(value: str) -> str:
    """`value` in quotes that TOML and `split_choices` read back."""
    if "'" not in value:
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def quote_for_shell(key: str, *values: str) -> str:
    """`key=value,value` as it is typed in a shell, every value in quotes."""
    return shlex.quote(f"{key}={','.join(map(quote, values))}")


def _length_of_quoted(text: str, *, where: str) -> int:
    """Characters of the quoted value that `text` begins with."""
    mark, position = text[0], 1
    while position < len(text):
        if text[position] == "\\" and mark == '"':
            position += 1
        elif text[position] == mark:
            return position + 1
        position += 1
    raise UsageError(f"{where}: {shorten(text)}: the quote is not closed")
