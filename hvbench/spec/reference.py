"""The reference of the suite file as Markdown, for the documentation: every field of a point, part by part, and every setting."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from hvbench.spec.knob import Spec, groups_of, knobs_of
from hvbench.spec.point import Point
from hvbench.spec.schema import describe_model
from hvbench.spec.script import Script
from hvbench.spec.search import Search
from hvbench.spec.settings import MeasureSettings

HEADER = ["| field | accepts | default | unit | meaning |", "| :--- | :--- | :--- | :--- | :--- |"]
OF_SCRIPTS = (
    "With it, `[point]`, `[axes]` and `[[exclude]]` have the names in braces of the command and of `[script.environment]`, "
    "`world_size` and `seed`."
)
OF_SEARCHES = (
    "With it, no other table has the field that is searched. It needs `memory_limit_bytes` in `[measure]`, or `--memory-limit`; on a GPU "
    "its memory is the limit."
)
TYPES = {"object": "table"}  # in TOML's words
LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}


def render_reference() -> str:
    """Tables of what `[point]` and what makes points may hold, one a part of the point, of `[search]`, `[measure]` and `[script]`."""
    lines = ["", "## `[point]`, `[axes]`, `[[together]]` and `[[exclude]]`"]
    for title, names in groups_of(Point).items():
        lines += ["", f"### {title}", "", *_table(Point, names)]
    lines += ["", "## `[search]`", "", *_table(Search, Search.model_fields, missing="required"), "", OF_SEARCHES]
    lines += ["", "## `[measure]`", "", *_table(MeasureSettings, MeasureSettings.model_fields)]
    lines += ["", "## `[script]`", "", *_table(Script, Script.model_fields, missing="required"), "", OF_SCRIPTS]
    return "\n".join(lines) + "\n"


def describe_accepted(schema: Mapping[str, Any]) -> str:
    """What a field accepts, in words: `"fp32", "bf16"`, `integer from 1`, `number above 0, or left out`."""
    words = []
    for one in schema.get("anyOf", [schema]):
        if one.get("type") == "null":
            words.append("left out")
        elif "enum" in one or "const" in one:
            words.append(", ".join(f"`{json.dumps(value)}`" for value in one.get("enum", [one.get("const")])))
        else:
            bounds = " ".join(f"{word} {one[key]:g}" for key, word in LIMITS.items() if key in one)
            words.append(f"{TYPES.get(one['type'], one['type'])} {bounds}".strip())
    return ", or ".join(words)


def describe_default(schema: Mapping[str, Any], *, missing: str) -> str:
    """The default of a field as TOML writes it; empty where it is left out, `missing` where there is none."""
    if "default" not in schema:
        return missing
    return "" if schema["default"] is None else f"`{json.dumps(schema['default'])}`"


def _table(model: type[Spec], names: Iterable[str], *, missing: str = "from the model") -> list[str]:
    fields, knobs = describe_model(model), knobs_of(model)
    rows = [
        [
            f"`{name}`",
            describe_accepted(fields[name]),
            describe_default(fields[name], missing=missing),
            knobs[name].unit,
        ]
        + [fields[name].get("description", "")]
        for name in names
    ]
    return [*HEADER, *(f"| {' | '.join(row)} |" for row in rows)]
