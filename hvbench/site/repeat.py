"""A point, or a run -> the command that does it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from hvbench.analysis.show.text import clean_text
from hvbench.records.record import AnyPoint
from hvbench.spec.knob import changed_fields, presets_of
from hvbench.spec.point import Point
from hvbench.spec.script import ScriptPoint
from hvbench.spec.settings import MeasureSettings


def repeat_point(point: AnyPoint, *, settings: Sequence[str] = ()) -> str:
    """`hvbench run framework=tensorflow precision=bf16 steps=20 --np 2`; of a script the command that each rank runs, filled in."""
    if isinstance(point, ScriptPoint):
        return clean_text(show_script(point), limit=2000)
    fields = ["framework", *(name for name in list_chosen(point) if name not in ("framework", "world_size"))]
    words = [f"{name}={show_setting(getattr(point, name))}" for name in fields]
    ranks = ["--np", str(point.world_size)] if point.world_size else []
    return clean_text(shlex.join(["hvbench", "run", *words, *settings, *ranks]), limit=2000)


def show_script(point: ScriptPoint) -> str:
    """The command of a script with its values, or with their names where no shell could read it."""
    try:
        words = [f"{name}={shlex.quote(value)}" for name, value in point.variables().items()]
        return " ".join([*words, shlex.join(point.arguments())])
    except ValueError:
        return point.full_command


def list_settings(settings: MeasureSettings) -> list[str]:
    """`steps=20` of each setting that is not at its default."""
    changed = changed_fields(settings, among=lambda knob: True)
    return [f"{name}={show_setting(getattr(settings, name))}" for name in changed]


def list_chosen(point: Point) -> list[str]:
    """The fields that have to be given: those that are neither at their default nor what another one presets."""
    implied = {name: field.default for name, field in Point.model_fields.items()}
    for field, choices in presets_of(Point).items():
        implied |= choices.get(str(getattr(point, field)), {})
    return [name for name, value in implied.items() if getattr(point, name) != value]


def show_setting(value: Any) -> str:
    """A value as the command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
