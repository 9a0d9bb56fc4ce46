"""A suite as the text of a suite file: what `parse_suite` makes of it are the same points, measured in the same way. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hvbench.spec.suite import Suite


def write_suite(suite: Suite) -> str:
    """TOML of a suite without its scales; text in it has no control characters, as every suite's."""
    top = {"question": suite.question, "compares": list(suite.compares)}
    script = suite.script.model_dump(exclude_defaults=True) if suite.script else {}
    tables = {
        "script": {name: value for name, value in script.items() if name != "environment"},
        "script.environment": script.get("environment", {}),
        "point": suite.base,
        "axes": suite.axes,
        "search": suite.search.model_dump(exclude_defaults=True) if suite.search else {},
        "measure": suite.measure.model_dump(exclude_defaults=True),
    }
    blocks = [_lines(top), *(f"[{name}]\n{_lines(table)}" for name, table in tables.items() if table)]
    blocks += [f"[[together]]\n{_lines(group)}" for group in suite.together]
    blocks += [f"[[exclude]]\n{_lines(excluded)}" for excluded in suite.exclude]
    return "\n".join(block for block in blocks if block)


def _lines(values: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in values.items() if value not in (None, "", []))


def _value(value: Any) -> str:
    """A list has a line for each value: a line of a suite must not have hundreds of dots."""
    if isinstance(value, list):
        return "[\n" + "".join(f"    {_value(each)},\n" for each in value) + "]"
    return write_scalar(value)


def write_scalar(value: bool | str | int | float) -> str:
    """A value as TOML writes it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else repr(value)
