"""Fields that are set and change nothing, because another field is not what they need. Pure.

A setting of the measurement without effect is a mistake. A field of a point may have an effect at some points of a suite and
at others none: set by hand it is a mistake where it has none at any.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from hvbench.errors import UsageError
from hvbench.spec.knob import Knob, Need, Spec, knobs_of, presets_of
from hvbench.spec.messages import shorten
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings


def find_idle(values: Spec) -> dict[str, str]:
    """Field -> what it needs, of those fields of a point or of settings that are set to another value than their default in vain."""
    fields = type(values).model_fields
    changed = {
        name: knob for name, knob in knobs_of(type(values)).items() if getattr(values, name) != fields[name].default
    }
    missing = {name: find_missing(knob, lambda field: getattr(values, field)) for name, knob in changed.items()}
    return {name: need.in_words for name, need in missing.items() if need}


def find_missing(knob: Knob, value_of: Callable[[str], Any]) -> Need | None:
    """The first need of a field that the values of other fields do not meet; None: it has an effect."""
    return next((need for need in knob.needs if not need.holds(value_of(need.field))), None)


def require_effect(
    base: Mapping[str, Any],
    axes: Mapping[str, Sequence[Any]],
    settings: MeasureSettings,
    *,
    where: str,
    fields: Collection[str],
) -> None:
    """Raise UsageError for a setting without effect, or one of `fields` that has none at any point of a suite.

    Args:
        base: what all points have in common.
        axes: field -> the values that points have.
        settings: of the measurement.
        where: begins the message.
        fields: those that were set by hand.
    """
    for name, words in find_idle(settings).items():
        raise UsageError(f"{where}: {describe_idle(name, getattr(settings, name), words)}")
    defaults = {name: field.default for name, field in Point.model_fields.items()}

    def choices(name: str) -> Sequence[Any]:
        if name in axes or name in base:
            return axes.get(name) or [base[name]]
        preset = [
            presets.get(str(value), {}).get(name, defaults[name])
            for field, presets in presets_of(Point).items()
            if any(name in values for values in presets.values())
            for value in choices(field)
        ]
        return preset or [defaults[name]]

    for name in fields:
        values = [value for value in choices(name) if value != defaults[name]]
        for need in knobs_of(Point)[name].needs:
            if values and not any(map(need.holds, choices(need.field))):
                raise UsageError(f"{where}: {describe_idle(name, values[0], need.in_words)}")


def describe_idle(name: str, value: Any, needed: str) -> str:
    """`target_loss = 5.0 has no effect without evaluate_every; …`."""
    return f"{name} = {shorten(value)} has no effect without {needed}: set that too, or leave {name} out"


def describe_idle_points(points: Iterable[Point]) -> list[str]:
    """A line for each field that is set at some points where it has no effect."""
    counts: dict[tuple[str, str], int] = {}
    for point in points:
        for name, words in find_idle(point).items():
            counts[name, words] = counts.get((name, words), 0) + 1
    return [
        f"{name} has no effect at {count} point{'s' * (count > 1)}: it needs {words}"
        for (name, words), count in counts.items()
    ]
