"""The JSON Schema of a suite file, for editors: what `hvbench.spec.suite` accepts, written by pydantic from the same models."""

from __future__ import annotations

from typing import Any

from hvbench.spec.fields import TWINS_ONLY
from hvbench.spec.knob import Spec
from hvbench.spec.point import Point
from hvbench.spec.script import NAME, Script
from hvbench.spec.search import Search
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import MAX_EXCLUDES, MAX_QUESTION

TOGETHER = "axes whose values go together: the first of one with the first of the other"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def suite_schema() -> dict[str, Any]:
    """Schema of one suite file (TOML read as JSON): of hvbench's own training, or with a table `script` of anybody's."""
    own = describe_suite(describe_tables(), compares={"enum": list(Point.model_fields)})
    of_script = describe_suite(describe_script_tables(), compares={"type": "string"})
    script = {
        **table(describe_model(Script)),
        "required": ["command"],
        "description": "what is launched, one process a rank",
    }
    of_script["properties"] = {"script": script, **of_script["properties"]}
    return {
        "$schema": DIALECT,
        "title": "hvbench suite",
        "description": "One question, and the points that answer it.",
        "anyOf": [own, {**of_script, "required": ["script"]}],
    }


def describe_suite(tables: dict[str, Any], *, compares: dict[str, Any]) -> dict[str, Any]:
    """Schema of a suite whose points these tables make; `compares` is that of the name of an axis."""
    parts = {"type": "object", "additionalProperties": False, "properties": tables, "description": "what it changes"}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "question": {"type": "string", "maxLength": MAX_QUESTION, "description": "what the suite asks, one line"},
            "compares": {
                "type": "array",
                "items": compares,
                "description": "the axes that the question is about; the others are circumstances. None named: all of them",
            },
            **tables,
            "scale": {
                "type": "object",
                "additionalProperties": parts,
                "description": "other sizes of the same question: --scale NAME",
            },
        },
    }


def describe_script_tables() -> dict[str, Any]:
    """The same tables where the keys are the names in a script's command."""
    value = {"type": ["boolean", "integer", "number", "string"]}
    free = {"type": "object", "propertyNames": {"pattern": f"^{NAME.pattern}$"}}
    axis = {"type": "array", "minItems": 1, "uniqueItems": True, "items": value}
    measure = {name: one for name, one in describe_model(MeasureSettings).items() if name not in TWINS_ONLY}
    return {
        "point": {**free, "additionalProperties": value, "description": "values that all points have"},
        "axes": {**free, "additionalProperties": axis, "description": "the cartesian product, in this order"},
        "together": {
            "type": "array",
            "items": {
                **free,
                "additionalProperties": {"type": "array", "minItems": 1, "items": value},
                "minProperties": 2,
            },
            "description": TOGETHER,
        },
        "exclude": {
            "type": "array",
            "maxItems": MAX_EXCLUDES,
            "items": {**free, "additionalProperties": value, "minProperties": 1},
            "description": "combinations to drop",
        },
        "measure": {**table(measure), "description": "how each point is measured"},
    }


def describe_tables() -> dict[str, Any]:
    """Name -> schema of the tables that make points and say how they are measured."""
    fields = describe_model(Point)
    return {
        "point": {**table(fields), "description": "the base of every point"},
        "axes": {
            **table(
                {
                    name: {"type": "array", "minItems": 1, "uniqueItems": True, "items": one}
                    for name, one in fields.items()
                }
            ),
            "description": "the cartesian product, in this order",
        },
        "together": {
            "type": "array",
            "items": {
                **table({name: {"type": "array", "minItems": 1, "items": one} for name, one in fields.items()}),
                "minProperties": 2,
            },
            "description": TOGETHER,
        },
        "exclude": {
            "type": "array",
            "maxItems": MAX_EXCLUDES,
            "items": {**table(fields), "minProperties": 1},
            "description": "combinations to drop",
        },
        "search": {
            **table(describe_model(Search)),
            "required": ["largest"],
            "description": "what of each point is searched: its largest value whose launches do not run out of memory",
        },
        "measure": {**table(describe_model(MeasureSettings)), "description": "how each point is measured"},
    }


def describe_model(model: type[Spec]) -> dict[str, Any]:
    """Field -> its schema. A preset's sizes have no default of their own, and are not required.

    Patterns are left to hvbench: editors differ in the regular expressions that they know.
    """
    fields = model.model_json_schema()["properties"]
    return {name: drop_patterns(field) for name, field in fields.items()}


def drop_patterns(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` without its patterns, those of its alternatives included."""
    kept = {key: value for key, value in schema.items() if key != "pattern"}
    return kept | {key: [drop_patterns(each) for each in kept[key]] for key in ("anyOf",) if key in kept}


def table(properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of a TOML table with these keys and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}
