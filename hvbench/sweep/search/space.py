"""What a search may vary: fields of a point, each within a range or among a few values. Pure.

    learning_rate = "log:1e-4..1e-1"        a number, evenly on a logarithmic scale
    dropout = "0..0.3"                      a number; of a field of whole numbers, a whole one
    optimizer = ["adamw", "lamb"]           one of these
    global_batch = "16..512"                samples a step over all ranks, doubling from the first; sets micro_batch_size

On the command line, `-s learning_rate=log:1e-4..1e-1 -s optimizer=adamw,lamb`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hvbench.errors import UsageError
from hvbench.spec.axes import check_axes
from hvbench.spec.choices import split_choices
from hvbench.spec.effect import find_idle, find_missing
from hvbench.spec.fields import PointFields
from hvbench.spec.knob import Kind, kind_of, knobs_of
from hvbench.spec.messages import did_you_mean, shorten
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings

GLOBAL_BATCH, MICRO_BATCH = "global_batch", "micro_batch_size"
LOG, DOTS = "log:", ".."
MAX_DIMENSIONS = 20
FIELDS = PointFields()
NOT_COMPARABLE = "losses of different values cannot be compared"
# Fields of a point that no search varies -> why.
REFUSED = {
    "framework": "the frameworks share one search: fix it, or give -s framework=A,B",
    "seed": "what is found has to hold for other seeds: they are what confirms it",
    "world_size": "a search has as many ranks as were launched",
    **dict.fromkeys(("objective", "num_classes", "vocab_size", "sequence_length", "split_seed"), NOT_COMPARABLE),
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers between two, both included."""

    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False

    def holds(self, value: Any) -> bool:
        """Whether it is one of them."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high and (not self.is_whole or value == int(value))


@dataclass(frozen=True, kw_only=True)
class Choices:
    """A few values, in their order."""

    values: tuple[Any, ...]

    @property
    def is_scale(self) -> bool:
        """Whether they are numbers that rise or fall, so that neighbours are alike."""
        numbers = [each for each in self.values if isinstance(each, int | float) and not isinstance(each, bool)]
        return len(numbers) == len(self.values) and numbers in (sorted(numbers), sorted(numbers, reverse=True))

    def holds(self, value: Any) -> bool:
        """Whether it is one of them."""
        return value in self.values


Dimension = Range | Choices
Values = dict[str, Any]  # dimension -> value


@dataclass(frozen=True, kw_only=True)
class Space:
    """Dimensions by their names, which are fields of a point or GLOBAL_BATCH."""

    dimensions: Mapping[str, Dimension]

    def make_point(self, base: Point, given: Values, values: Values) -> Point | None:
        """The point with these values; None where they make none, such as a global batch that no micro-batch makes.

        Args:
            base: the point without them, on its ranks.
            given: the fields of `base` that were set by hand: what else a chosen optimizer or model sets replaces the others.
            values: dimension -> value.

        Fields without effect, such as `plateau_factor` beside another schedule, are at their defaults: what differs in them is one training.
        """
        fields = {name: value for name, value in values.items() if name != GLOBAL_BATCH}
        fixed = {**given, "framework": base.framework, "world_size": base.world_size}
        try:
            point = FIELDS.make_point({**fixed, **fields}, where="")
        except UsageError:  # values that do not go together
            return None
        if GLOBAL_BATCH in values:
            share, rest = divmod(values[GLOBAL_BATCH], (point.world_size or 1) * point.gradient_accumulation_steps)
            if rest or not share:
                return None
            point = point.model_copy(update={MICRO_BATCH: share})
        return without_idle(point)

    def values_of(self, point: Point) -> Values | None:
        """The values by which the space has a point, None where it lies outside; whatever a field without effect has."""
        values = {}
        idle = find_idle_names(point)
        for name, dimension in self.dimensions.items():
            value = point.global_batch_size if name == GLOBAL_BATCH else getattr(point, name)
            if name in idle and not dimension.holds(value):
                value = dimension.values[0] if isinstance(dimension, Choices) else dimension.low
            if not dimension.holds(value):
                return None
            values[name] = value
        return values

    def describe(self) -> dict[str, Any]:
        """The dimensions as they would stand in a file."""
        return {name: describe_dimension(dimension) for name, dimension in self.dimensions.items()}


def without_idle(point: Point) -> Point:
    """`point` with the default of every field that has no effect."""
    return point.model_copy(update={name: Point.model_fields[name].default for name in find_idle(point)})


def find_idle_names(point: Point) -> set[str]:
    """Fields that have no effect at a point, at their defaults or not."""
    knobs = knobs_of(Point)
    return {name for name, knob in knobs.items() if find_missing(knob, lambda field: getattr(point, field))}


def describe_dimension(dimension: Dimension) -> Any:
    """`log:0.0001..0.1`, or a list."""
    if isinstance(dimension, Choices):
        return list(dimension.values)
    ends = (int(end) if dimension.is_whole else end for end in (dimension.low, dimension.high))
    return (LOG if dimension.is_log else "") + DOTS.join(map(repr, ends))


def read_space(given: Mapping[str, Any], *, world_size: int, where: str) -> Space:
    """The space of a table [search]; raises UsageError, one line that begins with `where`."""
    if not given:
        raise UsageError(f"{where}: nothing to search: give -s FIELD=A..B, or a file with a table [search]")
    if len(given) > MAX_DIMENSIONS:
        raise UsageError(f"{where}: {len(given)} fields; a search varies at most {MAX_DIMENSIONS}")
    if GLOBAL_BATCH in given and MICRO_BATCH in given:
        raise UsageError(f"{where}: {GLOBAL_BATCH} sets {MICRO_BATCH}: search one of them")
    dimensions = {
        name: read_dimension(name, value, world_size=world_size, where=where) for name, value in given.items()
    }
    return Space(dimensions=dimensions)


def read_dimension(name: str, given: Any, *, world_size: int, where: str) -> Dimension:
    """The range or the choices of one field; raises UsageError."""
    require_searchable(name, where=where)
    here = f"{where}: {name} = {shorten(given)}"
    field = MICRO_BATCH if name == GLOBAL_BATCH else name
    if isinstance(given, list):
        check_axes({field: given}, FIELDS, where=where)
        if len(given) < 2:
            raise UsageError(f"{here}: one value is no search: set {field} in [point]")
        return Choices(values=tuple(given))
    if not isinstance(given, str) or not is_range(given):
        raise UsageError(f'{here}: must be a range, "A..B" or "log:A..B", or a list of values')
    found = read_range(field, given, here=here)
    return double(found, world_size=world_size, here=here) if name == GLOBAL_BATCH else found


def is_range(text: str) -> bool:
    """Whether a word is meant as a range."""
    return text.startswith(LOG) or DOTS in text


def read_range(field: str, text: str, *, here: str) -> Range:
    """`A..B` or `log:A..B` of a field of numbers; raises UsageError."""
    kind = kind_of(Point.model_fields[field])
    if kind not in (Kind.INTEGER, Kind.NUMBER):
        raise UsageError(f"{here}: a range is of numbers; give a list of values")
    ends = text.removeprefix(LOG).split(DOTS)
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        raise UsageError(f"{here}: must be two numbers with two dots between them, such as log:1e-4..1e-1") from None
    is_log, is_whole = text.startswith(LOG), kind is Kind.INTEGER
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"{here}: its ends must be finite")
    if low >= high:
        why = "its begin is above its end" if low > high else "one value is no search: set it in [point]"
        raise UsageError(f"{here}: {why}")
    if is_log and low <= 0:
        raise UsageError(f"{here}: {low:g} has no logarithm: begin above 0")
    if is_whole and not (low.is_integer() and high.is_integer()):
        raise UsageError(f"{here}: must be whole numbers")
    for end in (low, high):
        FIELDS.check({field: int(end) if is_whole else end}, where=here)
    return Range(low=low, high=high, is_log=is_log, is_whole=is_whole)


def double(found: Range, *, world_size: int, here: str) -> Choices:
    """The global batches from the low end on, each twice the one before, that the ranks can share; raises UsageError."""
    sizes, size = [], int(found.low)
    while size <= found.high:
        sizes += [size] if size % world_size == 0 else []
        size *= 2
    if len(sizes) < 2:
        raise UsageError(
            f"{here}: fewer than two of its sizes, doubling from the first, are multiples of {world_size} ranks"
        )
    return Choices(values=tuple(sizes))


def require_searchable(name: str, *, where: str) -> None:
    """Raise UsageError for what is no field of a point, or one that no search varies."""
    if name == GLOBAL_BATCH:
        return
    if name in MeasureSettings.model_fields:
        raise UsageError(f"{where}: {name} is how launches are measured, which all share: set it to one value")
    if name not in Point.model_fields:
        names = [*FIELDS.names, GLOBAL_BATCH]
        raise UsageError(
            f"{where}: unknown field {shorten(name)}{did_you_mean(name, names)}; allowed: {', '.join(names)}"
        )
    if name in REFUSED:
        raise UsageError(f"{where}: {name} cannot be searched: {REFUSED[name]}")
    if kind_of(Point.model_fields[name]) is Kind.TEXT:
        raise UsageError(f"{where}: {name} cannot be searched: it is text, and {NOT_COMPARABLE}")


def split_words(words: Sequence[str]) -> tuple[dict[str, Any], list[str], list[str]]:
    """`-s` words: what they search, what they fix (for `apply_overrides`), and the names that they fix. Raises UsageError.

    Several values, or a range, are searched, but for `framework`, of which several share the search.
    """
    searched: dict[str, Any] = {}
    fixed, names = [], []
    for word in words:
        name, _, text = word.partition("=")
        where = f"-s {shorten(word)}"
        is_text = name in Point.model_fields and kind_of(Point.model_fields[name]) is Kind.TEXT
        values = split_choices(text, where=where) if text else []
        if is_text or name == "framework" or not (is_range(text) or len(values) > 1 or name == GLOBAL_BATCH):
            fixed.append(word)
            names.append(name)
        elif is_range(text):
            searched[name] = text
        else:
            require_searchable(name, where=where)
            field = MICRO_BATCH if name == GLOBAL_BATCH else name
            searched[name] = [FIELDS.parse(field, value, where=where) for value in values]
    return searched, fixed, names
