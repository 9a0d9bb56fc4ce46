"""What is wrong with a value of the configuration, in one line: the key, what was found and what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from hvbench.errors import UsageError
from hvbench.spec.knob import Spec

POINT_KINDS = ("twin", "script")  # of a record's point: no key, though pydantic names it in an error
SpecT = TypeVar("SpecT", bound=Spec)


def validate(cls: type[SpecT], values: Mapping[str, Any], *, where: str) -> SpecT:
    """Build `cls` from `values`; raise UsageError with one line that names the place, the key, what was found and what is allowed."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"{where}: {describe_validation_error(first, allowed=list(cls.model_fields))}") from None


def describe_validation_error(error: Mapping[str, Any], *, allowed: list[str]) -> str:
    """One line for one pydantic error: key, what was found, what is allowed."""
    key = ".".join(str(part) for part in error["loc"] if part not in POINT_KINDS) or "value"
    if error["type"] == "extra_forbidden":
        return f"unknown key {shorten(key)}{did_you_mean(key, allowed)}; allowed: {', '.join(allowed)}"
    name = key if re.fullmatch(r"[\w.]{1,100}", key) else shorten(key)
    if error["type"] == "missing":
        return f"{name} is missing"
    message = re.sub(r"^(Input|String) should ", "must ", error["msg"]).removeprefix("Value error, ")
    if error["type"] == "string_pattern_mismatch":
        message = "must be text without control characters"
    if error["type"] == "literal_error":  # in TOML's words
        message = message.replace("True", "true").replace("False", "false")
    return f"{name} = {shorten(error['input'])}: {message}"


def did_you_mean(word: str, choices: list[str]) -> str:
    """A hint such as ` (did you mean "steps"?)`, or nothing when no choice is close."""
    import difflib

    close = difflib.get_close_matches(word[:100], choices, n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


def shorten(value: Any, *, limit: int = 60) -> str:
    """`value` as it may appear in an error message: one line, printable, at most `limit` characters."""
    text = value[: limit * 2] if isinstance(value, str) else value
    try:
        text = (
            repr(text)
            if isinstance(text, (list, dict))
            else json.dumps(text, default=lambda other: type(other).__name__)
        )
    except ValueError:  # Python writes out no integer of more than 4300 digits
        text = "a number with thousands of digits"
    return text if len(text) <= limit else text[: limit - 1] + "…"
