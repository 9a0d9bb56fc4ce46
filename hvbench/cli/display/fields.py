"""What can be said in a suite: the text of `hvbench plan --fields`."""

from __future__ import annotations

from hvbench.spec.knob import presets_of
from hvbench.spec.point import Point
from hvbench.spec.search import Search
from hvbench.spec.settings import MeasureSettings


def describe_fields() -> str:
    """Every field of a point and every measurement setting: name, default, meaning."""
    lines = []
    for title, model in (
        ("[point], [axes] and [[together]]", Point),
        ("[search]", Search),
        ("[measure]", MeasureSettings),
    ):
        lines.append(title)
        for name, field in model.model_fields.items():
            needed = "from model" if model is Point else "needed"
            default = needed if field.is_required() else str(field.default)
            lines.append(f"  {name:28} {default:12} {field.description}")
        if model is Point:
            for optimizer, preset in presets_of(Point)["optimizer"].items():
                values = ", ".join(f"{name} {value:g}" for name, value in preset.items())
                lines += [f"  with optimizer = {optimizer}: {values}"] if values else []
    return "\n".join(lines)
