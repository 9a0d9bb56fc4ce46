"""What keys [point], [axes] and [[exclude]] of a suite may have: the fields of a Point, or the names in a script's command."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from hvbench.errors import UsageError
from hvbench.spec.choices import unquote
from hvbench.spec.effect import describe_idle, find_idle, require_effect
from hvbench.spec.knob import Kind, kind_of
from hvbench.spec.messages import did_you_mean, shorten, validate
from hvbench.spec.point import Point
from hvbench.spec.script import (
    OWN_FIELDS,
    Script,
    ScriptPoint,
    check_name,
    check_value,
    make_script_point,
    require_names,
    require_one_type,
)
from hvbench.spec.settings import EVALUATIONS, MeasureSettings

Values = Mapping[str, Any]


class Fields(Protocol):
    """The keys of one kind of suite. Every method but `value_of` raises UsageError with one line that begins with `where`."""

    def check_names(self, names: Iterable[str], *, where: str) -> None:
        """Each of them is allowed."""

    def check(self, values: Values, *, where: str) -> None:
        """Each key is allowed, and its value possible."""

    def check_choices(self, name: str, choices: Sequence[Any], *, where: str) -> None:
        """The values of an axis go together."""

    def require_use(
        self, base: Values, axes: Values, settings: MeasureSettings, *, where: str, fields: Collection[str]
    ) -> None:
        """Nothing that is set is without effect; `fields` are those set by hand."""

    def make_point(self, values: Values, *, where: str) -> Point | ScriptPoint:
        """The point of one combination of values."""

    def value_of(self, point: Any, name: str) -> Any:
        """The value of one key in a point."""

    def parse(self, key: str, text: str, *, where: str) -> Any:
        """A word of the command line as the TOML value that it looks like, or as text."""

    @property
    def names(self) -> list[str]:
        """The keys, for messages."""


class PointFields:
    """A suite of the twins."""

    @property
    def names(self) -> list[str]:
        """The fields of Point."""
        return list(Point.model_fields)

    def check_names(self, names: Iterable[str], *, where: str) -> None:
        """Each of them is a field of Point."""
        for key in names:
            if key not in Point.model_fields:
                raise UsageError(f"{where}: unknown key {shorten(key)}{self._hint(key)}")

    def check(self, values: Values, *, where: str) -> None:
        """Each key is a field of Point, and its value one that it may have."""
        self.check_names(values, where=where)
        validate(Point, values, where=where)

    def check_choices(self, name: str, choices: Sequence[Any], *, where: str) -> None:
        """Each of them has been checked by itself."""

    def require_use(
        self, base: Values, axes: Values, settings: MeasureSettings, *, where: str, fields: Collection[str]
    ) -> None:
        """See `hvbench.spec.effect.require_effect`."""
        refuse_settings(settings, SCRIPTS_ONLY, where=where)
        require_effect(base, axes, settings, where=where, fields=fields)

    def make_point(self, values: Values, *, where: str) -> Point:
        """A Point."""
        return validate(Point, values, where=where)

    def value_of(self, point: Point, name: str) -> Any:
        """The field."""
        return getattr(point, name)

    def parse(self, key: str, text: str, *, where: str) -> Any:
        """Text where the field is text."""
        return parse_value(key, text, is_text=kind_of(Point.model_fields[key]) is Kind.TEXT, where=where)

    def _hint(self, key: str) -> str:
        return f"{did_you_mean(key, self.names)}; allowed: {', '.join(self.names)}"


class ScriptFields:
    """A suite of people's own training."""

    def __init__(self, script: Script) -> None:
        self.script = script

    @property
    def names(self) -> list[str]:
        """The names in braces, and what every script has."""
        return list(dict.fromkeys([*self.script.names, *OWN_FIELDS]))

    def check_names(self, names: Iterable[str], *, where: str) -> None:
        """Each of them may name an axis, and stands in the command."""
        names = list(names)
        for name in names:
            check_name(name, where=where)
        require_names(self.script, [*self.script.names, *names], where=where)

    def check(self, values: Values, *, where: str) -> None:
        """Each key may name an axis, and its value may stand in a command."""
        self.check_names(values, where=where)
        for key, value in values.items():
            check_value(key, value, where=where)

    def check_choices(self, name: str, choices: Sequence[Any], *, where: str) -> None:
        """They are of one type."""
        require_one_type(name, choices, where=where)

    def require_use(
        self, base: Values, axes: Values, settings: MeasureSettings, *, where: str, fields: Collection[str]
    ) -> None:
        """Every name in braces has values, and no setting needs what hvbench does not know of a script."""
        require_names(self.script, {**base, **axes}, where=where)
        for name, words in find_idle(settings).items():
            if words != EVALUATIONS.in_words:  # a script evaluates when it likes
                raise UsageError(f"{where}: {describe_idle(name, getattr(settings, name), words)}")
        refuse_settings(settings, dict.fromkeys(TWINS_ONLY, NOT_A_SCRIPTS), where=where)

    def make_point(self, values: Values, *, where: str) -> ScriptPoint:
        """A ScriptPoint."""
        return make_script_point(self.script, values, where=where)

    def value_of(self, point: ScriptPoint, name: str) -> Any:
        """What the name stands for."""
        return point.value_of(name)

    def parse(self, key: str, text: str, *, where: str) -> Any:
        """What it looks like: `8` is a number, `"8"` text."""
        return parse_value(key, text, is_text=text[:1] in ("'", '"'), where=where)


# Settings of a measurement that need a script -> what is said where there is none.
SCRIPTS_ONLY = {
    "profile_rounds": "only a suite with a [script] has it; hvbench's own trainings have ablation_rounds",
}
NOT_A_SCRIPTS = "only hvbench's own trainings have it, not a [script]"
# Settings of a measurement that need hvbench's own training loop.
TWINS_ONLY = (
    "epochs",
    "evaluate_every",
    "evaluate_samples",
    "checkpoint_every",
    "keep_best",
    "noise_every",
    "ablation_rounds",
    "force_emulated",
    "fresh_ceilings",
)


def refuse_settings(settings: MeasureSettings, reasons: Mapping[str, str], *, where: str) -> None:
    """Raise UsageError for a setting that is not at its default, of those that are named with the reason."""
    for name, reason in reasons.items():
        if (value := getattr(settings, name)) != MeasureSettings.model_fields[name].default:
            raise UsageError(f"{where}: {name} = {shorten(value)}: {reason}")


def parse_value(key: str, text: str, *, is_text: bool, where: str) -> Any:
    """A command line value as the TOML value it looks like, or as text; raises UsageError."""
    if is_text:
        return unquote(text, where=where)
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text
