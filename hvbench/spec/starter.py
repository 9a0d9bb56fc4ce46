"""A new suite: the text of its file, in which every line says what it means, and values to begin with. Pure.

All that is said of a field comes from its declaration: meaning, what it accepts, unit, default.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from hvbench.spec.knob import Kind, Spec, choices_of, kind_of, knobs_of
from hvbench.spec.point import Point
from hvbench.spec.reference import describe_accepted, describe_default
from hvbench.spec.schema import describe_model
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite
from hvbench.spec.suite_text import write_scalar

WIDTH = 110  # of a comment
FACTORS = (1, 2, 4)  # of a number's value, where nothing says which others are worth a comparison
MAX_WORDS = 6  # values that a question names

HEADER = """A suite of hvbench: one question, and the trainings that answer it. A key that is left out has its default.
  hvbench plan {path} --np {ranks}      what it would run, and for how long
  hvbench sweep {path} --np {ranks}     runs it on {ranks} ranks of this host, and writes a report
  hvbench plan --fields      what else [point], [axes] and [measure] may hold"""
QUESTION = "What is asked: the title of the report, whose first sentence answers it."
COMPARES = (
    "The axes that the question is about; any other axis is a circumstance, and the answer holds over its values."
)
POINT = "What all points have in common."
AXES = "Each combination of these values is a point, which is trained by itself. [[exclude]] tables with some of them drop points."
MEASURE = "How each point is measured. More repeats find smaller differences: hvbench plan says which."


def propose_values(name: str, base: Point) -> list[Any]:
    """Values of a field to begin a comparison with: those that a search tries, the names of a choice, or multiples of what it is.

    Args:
        name: of a field of a point.
        base: what the field is multiplied from.

    Returns:
        Values that the field may have, each for itself; none where it says too little.
    """
    field, knob = Point.model_fields[name], knobs_of(Point)[name]
    kind, value = kind_of(field), getattr(base, name)
    if knob.searched:
        return [each for each in knob.searched if each is not None]
    if kind is Kind.CHOICE:
        return list(choices_of(field))
    if kind is Kind.SWITCH:
        return [False, True]
    if kind is Kind.INTEGER and value:
        return [factor * value for factor in FACTORS]
    if kind is Kind.NUMBER and value:
        return [float(f"{factor * value:.3g}") for factor in FACTORS]
    return []


def propose_question(axes: Mapping[str, Iterable[Any]]) -> str:
    """A question in the words of the fields that are compared and of their values."""
    knobs = knobs_of(Point)
    parts = []
    for name, values in axes.items():
        knob = knobs[name]
        words = [knob.in_words(str(value)) if knob.in_words else str(value) for value in values]
        parts.append(f"{knob.label or name} ({', '.join(words)})" if len(words) <= MAX_WORDS else knob.label or name)
    return f"What do these cost and buy: {' and '.join(parts)}?"


def render_suite(suite: Suite, *, path: str, ranks: int) -> str:
    """The TOML text of a suite without tables but [point], [axes] and [measure], each line explained.

    Args:
        suite: what it says; its `compares` names axes.
        path: of the file, for the commands in its head.
        ranks: to launch it on.
    """
    lines = [*_comment(HEADER.format(path=path, ranks=ranks)), ""]
    lines += [*_comment(QUESTION), f"question = {_toml(suite.question)}"]
    lines += ["", *_comment(COMPARES), f"compares = {_toml(list(suite.compares))}"]
    for title, words, model, values in (
        ("point", POINT, Point, suite.base),
        ("axes", AXES, Point, suite.axes),
        ("measure", MEASURE, MeasureSettings, suite.measure.model_dump(exclude_unset=True)),
    ):
        lines += ["", *_comment(words), f"[{title}]", *_explain(model, values)] if values else []
    return "\n".join(lines) + "\n"


def _explain(model: type[Spec], values: Mapping[str, Any]) -> list[str]:
    """Each value behind what its field means and accepts."""
    fields, knobs, lines = describe_model(model), knobs_of(model), []
    for name, value in values.items():
        facts = [f"accepts {describe_accepted(fields[name])}"]
        facts += [f"in {knobs[name].unit}"] if knobs[name].unit else []
        default = describe_default(fields[name], missing="from the model")
        facts += [f"default {default}"] if default else []
        about = "; ".join([fields[name]["description"], *facts]).replace("`", "")
        lines += ["", *_comment(about), f"{name} = {_toml(value)}"]
    return lines[1:]


def _comment(text: str) -> list[str]:
    """Lines that begin with `#`, words wrapped but for lines that are indented."""
    lines = [
        part
        for line in text.split("\n")
        for part in ([line] if line.startswith(" ") else textwrap.wrap(line, WIDTH, break_on_hyphens=False))
    ]
    return [f"# {line}" for line in lines]


def _toml(value: Any) -> str:
    """A value, or a list of values on one line, as TOML writes it."""
    return f"[{', '.join(map(write_scalar, value))}]" if isinstance(value, list) else write_scalar(value)
