"""A suite: a TOML file that asks one question, expanded to an ordered list of Points.

Suites are data. Reading one runs nothing, and every mistake in it is one line that names the file, the key, what was
found and what is allowed.
"""

from __future__ import annotations

import itertools
import math
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hvbench.errors import UsageError
from hvbench.io.untrusted import read_regular_file, require_shallow
from hvbench.spec.axes import MAX_POINTS, check_axes, check_exclude, check_together, choose_rows, join_axes, list_rows
from hvbench.spec.choices import quote_for_shell, split_choices
from hvbench.spec.fields import NOT_A_SCRIPTS, Fields, PointFields, ScriptFields, parse_value
from hvbench.spec.knob import Kind, Spec, kind_of
from hvbench.spec.messages import did_you_mean, shorten, validate
from hvbench.spec.point import Point
from hvbench.spec.script import Script, ScriptPoint, check_script
from hvbench.spec.search import Search, check_search
from hvbench.spec.settings import MeasureSettings, check_measure, require_one_length

PATHS = ("data", "initial_checkpoint", "initial_weights")
KIND = "a suite is a short TOML file"
MAX_FILE_BYTES = 65_536  # a real suite has a hundredth of this
MAX_DOTS_IN_LINE = 200  # reading a dotted key takes time quadratic in its parts
MAX_DEPTH = 8  # a suite needs three
MAX_QUESTION = 1000
MAX_EXCLUDES = 100  # each is held against every point
MAX_LAUNCHES = 100_000
TABLES = ("question", "compares", "script", "point", "axes", "together", "exclude", "search", "measure", "scale")
SCALE_TABLES = ("point", "axes", "together", "exclude", "measure")
KINDS = {  # what a value must be, and the words for it
    "question": (str, "text"),
    "compares": (list, "a list of axes"),
    "script": (dict, "a table, [{name}]"),
    "point": (dict, "a table, [{name}]"),
    "axes": (dict, "a table, [{name}]"),
    "together": (list, "a list of tables, [[{name}]]"),
    "exclude": (list, "a list of tables, [[{name}]]"),
    "search": (dict, "a table, [{name}]"),
    "measure": (dict, "a table, [{name}]"),
    "scale": (dict, "a table, [{name}]"),
}


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A question and the points that answer it, in order."""

    name: str
    question: str
    base: Mapping[str, Any]
    axes: Mapping[str, list[Any]]
    compares: Sequence[str] = ()  # the axes that the question is about; none named: all of them
    together: Sequence[
        Mapping[str, list[Any]]
    ] = ()  # axes whose values go together: the first with the first, and so on
    exclude: list[Mapping[str, Any]] = field(default_factory=list)
    search: Search | None = None  # what of each point is searched, instead of being in it
    measure: MeasureSettings
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> what it changes, checked
    script: Script | None = None  # what is launched instead of hvbench's own training
    where: str

    @property
    def fields(self) -> Fields:
        """What its keys may be."""
        return fields_of(self.script)

    @property
    def folder(self) -> Path | None:
        """The folder that a script runs in."""
        return Path(self.where).parent / Path(self.script.repository).expanduser() if self.script else None

    @property
    def all_axes(self) -> dict[str, list[Any]]:
        """Axis -> its values, of those that go together, too."""
        return join_axes(self.axes, self.together)

    def list_choices(self) -> list[list[dict[str, Any]]]:
        """For each axis, and for axes that go together, what may be chosen: fields and their values."""
        return [
            *([{name: value} for value in values] for name, values in self.axes.items()),
            *map(list_rows, self.together),
        ]

    def points(self) -> list[Point] | list[ScriptPoint]:
        """The cartesian product of the axes, and of those that go together, over the base, without the excluded; raises UsageError."""
        choices = self.list_choices()
        if math.prod(map(len, choices)) > MAX_POINTS:
            raise UsageError(
                f"{self.where}: more than {MAX_POINTS} combinations; split the question into several suites"
            )
        if math.prod(map(len, choices)) * self.measure.repeats > MAX_LAUNCHES:
            raise UsageError(
                f"{self.where}: more than {MAX_LAUNCHES} launches; ask for fewer repeats, or split the question"
            )
        combinations = [
            {name: value for choice in chosen for name, value in choice.items()}
            for chosen in itertools.product(*choices)
        ]
        points = []
        for values in combinations:
            point = self.fields.make_point({**self.base, **values}, where=self.where)
            if not any(matches(self.fields, point, excluded) for excluded in self.exclude):
                points.append(point)
        require_unique(points, where=self.where)
        if not points:
            raise UsageError(f"{self.where}: no point is left; [[exclude]] drops all {len(combinations)} combinations")
        return points


def suite_folders() -> list[Path]:
    """Where suites are looked up by name: `suites/` here, then the ones shipped with hvbench."""
    package = Path(__file__).parents[1]
    shipped = package / "suites" if (package / "suites").is_dir() else package.parent / "suites"
    return [folder for folder in dict.fromkeys((Path("suites").resolve(), shipped.resolve())) if folder.is_dir()]


def list_suites() -> list[Path]:
    """The TOML files that a name can mean, a local one hiding a shipped one of the same name."""
    found: dict[str, Path] = {}
    for folder in suite_folders():
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return [found[name] for name in sorted(found)]


def find_suite(name: str) -> Path:
    """The file that `name` means: a path that ends in .toml, or the name of a listed suite; raises UsageError."""
    if name.endswith(".toml"):
        return Path(name)
    paths = {path.stem: path for path in list_suites()}
    if name not in paths:
        known = ", ".join(paths)
        raise UsageError(
            f"no suite named {shorten(name)}{did_you_mean(name, list(paths))}{hint_for_file(name)}; known: {known}, or a path ending in .toml"
        )
    return paths[name]


def hint_for_file(name: str) -> str:
    """What to do with a file that stands where no file can, as the rest of a line; nothing for another word."""
    if name.endswith(".toml"):
        return f"; a suite is launched by hvbench sweep {shorten(name)[1:-1]}"
    if name.endswith((".py", ".sh")):
        return "; your own training is launched by a suite, a TOML file with a [script] (docs/own-training.md)"
    return ""


def choose_suite(name: str, *, scale: str | None = None, overrides: Iterable[str] = ()) -> Suite:
    """The suite that `name` means (see `find_suite`), at `scale`, with `overrides` (`key=value`); raises UsageError."""
    suite = load_suite(find_suite(name))
    return apply_overrides(apply_scale(suite, scale) if scale else suite, overrides)


def suite_of_words(words: Iterable[str], *, where: str) -> Suite:
    """The suite without a file whose points are given as fields, `key=value[,value]`; raises UsageError."""
    return apply_overrides(parse_suite("", name="run", where=where), words, option="")


def load_suite(path: Path) -> Suite:
    """Read and validate a suite file; raises UsageError."""
    text = read_text(path)
    require_name(path)
    return parse_suite(text, name=path.stem, where=str(path))


def require_name(path: Path) -> None:
    """Raise UsageError where a file of that name cannot be a suite: its runs lie in a folder of that name."""
    if path.stem.startswith(".") or not path.stem.isprintable():
        raise UsageError(f"{path}: a suite's name is printable and starts with no dot")


def read_text(path: Path) -> str:
    """The file's text; raises UsageError when it cannot be a suite."""
    try:
        return read_regular_file(path, max_bytes=MAX_FILE_BYTES, kind=KIND).decode()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text; {KIND}") from None


def parse_suite(text: str, *, name: str, where: str, leave: Sequence[str] = ()) -> Suite:
    """Validate a suite's text, but for the tables `leave`; `where` names it in messages. Raises UsageError."""
    if len(text) > MAX_FILE_BYTES:
        raise UsageError(f"{where}: longer than {MAX_FILE_BYTES} characters; {KIND}")
    if any(line.count(".") > MAX_DOTS_IN_LINE for line in text.split("\n")):
        raise UsageError(f"{where}: has a line with more than {MAX_DOTS_IN_LINE} dots; {KIND}")
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError, or an integer of thousands of digits
        raise UsageError(f"{where}: not valid TOML: {shorten(str(error), limit=200)}") from None
    require_shallow(values, where=where, max_depth=MAX_DEPTH)
    values = {key: value for key, value in values.items() if key not in leave}
    check_tables(values, allowed=TABLES, where=where)
    question = values.get("question", "")
    if len(question) > MAX_QUESTION or not question.isprintable():
        raise UsageError(
            f"{where}: question = {shorten(question)}: must be one printable line of at most {MAX_QUESTION} characters"
        )
    script = check_script(values["script"], where=where) if "script" in values else None
    check_contents(values, fields_of(script), where=where)
    search = validate(Search, values["search"], where=f"{where}: [search]") if "search" in values else None
    if search and script:
        raise UsageError(f"{where}: [search]: {NOT_A_SCRIPTS}")
    axes = join_axes(values.get("axes", {}), values.get("together", []))
    suite = Suite(
        name=name,
        question=question,
        base=values.get("point", {}),
        axes=values.get("axes", {}),
        compares=check_compares(values.get("compares", []), axes=axes, where=where),
        together=values.get("together", []),
        search=search,
        exclude=values.get("exclude", []),
        measure=check_measure(values.get("measure", {}), where=f"{where}: [measure]"),
        scales=values.get("scale", {}),
        script=script,
        where=where,
    )
    check_search(search, suite.base, axes, suite.exclude, where=where)
    suite.fields.require_use(suite.base, axes, suite.measure, where=where, fields={*suite.base, *axes})
    for scale in suite.scales:  # a mistake in one shows when the file is read, not when somebody asks for it
        scaled = apply_scale(suite, scale)
        change = suite.scales[scale]
        fields = {*change.get("point", {}), *change.get("axes", {})}
        check_search(search, scaled.base, scaled.all_axes, scaled.exclude, where=f"{where}: [scale.{scale}]")
        where_scale = f"{where}: [scale.{scale}]"
        suite.fields.require_use(scaled.base, scaled.all_axes, scaled.measure, where=where_scale, fields=fields)
    return suite


def check_tables(values: Mapping[str, Any], *, allowed: Sequence[str], where: str, prefix: str = "") -> None:
    """Raise UsageError for a key that is not `allowed`, or that is no text, table or list of tables as it should be."""
    for key in values:
        if key not in allowed:
            raise UsageError(
                f"{where}: unknown key {shorten(key)}{did_you_mean(key, list(allowed))}; allowed: {', '.join(allowed)}"
            )
        kind, words = KINDS[key]
        if not isinstance(values[key], kind):
            wanted = words.format(name=f"{prefix}{key}")
            raise UsageError(f"{where}: {key} = {shorten(values[key])}: must be {wanted}")


def fields_of(script: Script | None) -> Fields:
    """What the keys of a suite may be."""
    return ScriptFields(script) if script else PointFields()


def check_contents(values: Mapping[str, Any], fields: Fields, *, where: str, prefix: str = "") -> None:
    """Raise UsageError where `point`, `axes` or `exclude` hold what no point can have."""
    base, axes, exclude = values.get("point", {}), values.get("axes", {}), values.get("exclude", [])
    if len(exclude) > MAX_EXCLUDES:
        raise UsageError(
            f"{where}: more than {MAX_EXCLUDES} tables [[{prefix}exclude]]; split the question into several suites"
        )
    own = {key: value for key, value in base.items() if key not in axes}
    fields.check(own, where=f"{where}: [{prefix}point]")
    check_axes(axes, fields, where=f"{where}: [{prefix}axes]")
    check_together(values.get("together", []), axes, base, fields, where=where, prefix=prefix)
    for index, excluded in enumerate(exclude):
        check_exclude(excluded, fields, where=f"{where}: [[{prefix}exclude]] number {index + 1}")


def check_compares(names: list[Any], *, axes: Mapping[str, Any], where: str) -> list[str]:
    """The axes that the question compares, as they are named in a suite; raises UsageError for what is no axis of it."""
    for name in names:
        if not isinstance(name, str) or name not in axes:
            hint = did_you_mean(name, list(axes)) if isinstance(name, str) else ""
            raise UsageError(
                f"{where}: compares = {shorten(names)}: {shorten(name)} is no axis of this suite{hint}; "
                f"its axes: {', '.join(axes) or 'none'}"
            )
    return names


def apply_scale(suite: Suite, name: str) -> Suite:
    """The suite with what its table [scale.NAME] changes: fields, axes and settings, and all of [[exclude]] if it has its own.

    A field that it fixes is no axis any more. Raises UsageError.
    """
    if name not in suite.scales:
        known = f"it has {', '.join(suite.scales)}" if suite.scales else "it has none"
        raise UsageError(f"{suite.where}: no scale {shorten(name)}{did_you_mean(name, list(suite.scales))}: {known}")
    change, prefix = suite.scales[name], f"scale.{name}."
    if not isinstance(change, Mapping):
        raise UsageError(f"{suite.where}: scale.{name} = {shorten(change)}: must hold tables such as [{prefix}point]")
    check_tables(change, allowed=SCALE_TABLES, where=f"{suite.where}: [scale.{name}]", prefix=prefix)
    check_contents(change, suite.fields, where=suite.where, prefix=prefix)
    base, axes = change.get("point", {}), change.get("axes", {})
    require_one_length(change.get("measure", {}), where=f"{suite.where}: [{prefix}measure]")
    measured = suite.measure.changed_by(change.get("measure", {}))
    return replace(
        suite,
        base={**suite.base, **base},
        axes={key: choices for key, choices in {**suite.axes, **axes}.items() if key in axes or key not in base},
        together=change.get("together", [group for group in suite.together if not {*base, *axes} & {*group}]),
        exclude=change.get("exclude", suite.exclude),
        measure=check_measure(measured, where=f"{suite.where}: [{prefix}measure]"),
    )


def matches(fields: Fields, point: Point | ScriptPoint, excluded: Mapping[str, Any]) -> bool:
    """Whether every key of `excluded` has its value in `point`."""
    return all(fields.value_of(point, key) == value for key, value in excluded.items())


def require_unique(points: Iterable[Point], *, where: str) -> None:
    """Raise UsageError when two points are the same training."""
    seen: set[str] = set()
    for point in points:
        if point.point_id in seen:
            raise UsageError(f"{where}: the point {point.point_id} comes up twice")
        seen.add(point.point_id)


def apply_overrides(suite: Suite, overrides: Iterable[str], *, option: str = "-s ") -> Suite:
    """`key=value[,value]`: one value fixes a field (or a [measure] setting), several make it an axis; raises UsageError.

    A value in quotes may contain commas (`hvbench.spec.choices`).

    `option` is what the user typed before it, for messages.
    """
    keys, settings = [], {}
    for text in overrides:
        key, equals, choices = text.partition("=")
        where = f"{option}{shorten(text)}"
        if not equals or not choices:
            raise UsageError(f"{where}: must be key=value or key=value,value{hint_for_file(text)}")
        words = split_choices(choices, where=where)
        refuse_ambiguous_path(key, choices, words, where=where)
        names = suite.fields.names
        if key not in names and key in (tables := setting_tables(suite)):
            changed = override_setting(suite, tables[key], key, words, where=where)
            suite = replace(suite, **{tables[key]: changed})
            settings[key] = getattr(changed, key)
            continue
        if key not in names:
            allowed = [*names, *setting_tables(suite)]
            raise UsageError(
                f"{where}: unknown key {shorten(key)}{did_you_mean(key, allowed)}; allowed: {', '.join(allowed)}"
            )
        values = [suite.fields.parse(key, word, where=where) for word in words]
        check_axes({key: values}, suite.fields, where=where)
        if any(key in group for group in suite.together):
            fixed, together = choose_rows(suite.together, key, values, where=where)
            suite = replace(suite, base={**suite.base, **fixed}, together=together)
            continue
        axes = {name: choices for name, choices in suite.axes.items() if name != key}
        if len(values) == 1:
            suite = replace(suite, base={**suite.base, key: values[0]}, axes=axes)
        else:
            suite = replace(suite, axes={**suite.axes, key: values})
        keys.append(key)
    where = option.strip() or suite.where
    require_one_length(settings, where=where)
    suite.fields.require_use(suite.base, suite.all_axes, suite.measure, where=where, fields=keys)
    check_search(suite.search, suite.base, suite.all_axes, suite.exclude, where=where)
    return suite


def setting_tables(suite: Suite) -> dict[str, str]:
    """Key -> the attribute of the suite that it belongs to, of those that are no field of a point."""
    settings = dict.fromkeys(MeasureSettings.model_fields, "measure")
    settings |= dict.fromkeys(Search.model_fields, "search") if suite.search else {}
    return settings | ({"repository": "script"} if suite.script else {})


def override_setting(suite: Suite, table: str, key: str, words: Sequence[str], *, where: str) -> Spec:
    """The table of the suite with another value of one key; raises UsageError."""
    if len(words) > 1:
        what = f"a setting of the {'measurement' if table == 'measure' else table}"
        raise UsageError(f"{where}: {key} is {what}, not an axis: give one value")
    current = getattr(suite, table)
    is_text = kind_of(type(current).model_fields[key]) is Kind.TEXT
    value = parse_value(key, words[0], is_text=is_text, where=where)
    if isinstance(current, MeasureSettings):
        return check_measure(current.changed_by({key: value}), where=where)
    return validate(type(current), current.model_dump() | {key: value}, where=where)


def refuse_ambiguous_path(key: str, choices: str, words: Sequence[str], *, where: str) -> None:
    """Raise UsageError where `x,y` means two values, and is the name of a file, too."""
    if key in PATHS and len(words) > 1 and os.path.lexists(os.path.expanduser(choices)):
        one, several = quote_for_shell(key, choices), quote_for_shell(key, *words)
        raise UsageError(
            f"{where}: there is a file {shorten(choices)}, and a comma separates values; for it: {one}, for "
            f"{len(words)} values: {several}"
        )
