"""What one field of the configuration is: pydantic's type, bounds, default and description, and its `Knob`.

A field is declared once, in the part of a point (or in the settings of a measurement) that it belongs to:

    world_size: Annotated[Count | None, Knob(label="ranks", is_of_launch=True)] = Field(None, description="ranks that train")

Help, schema, documentation, labels, columns of tables, groups of workers and reasons to skip a point are read from there.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticKnownError

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Text = Annotated[
    str, Field(min_length=1, max_length=4096, pattern=r"^[^\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]+$")
]


def _refuse_numbers(value: Any) -> Any:
    """`value`, unless it is a number: 1 equals true in Python, so a Literal alone would take it for that."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise PydanticKnownError("literal_error", {"expected": "'auto', True or False"})
    return value


AutoSwitch = Annotated[Literal["auto", True, False], BeforeValidator(_refuse_numbers)]

AnyPoint = Any  # a Point: its parts cannot import what is made of them
AnySettings = Any  # MeasureSettings, likewise


@dataclass(frozen=True, kw_only=True)
class Site:
    """What the place offers at which a point should run."""

    world_size: int  # ranks that were launched
    frameworks: frozenset[str]  # those that can be imported
    no_mpi: str | None  # why ranks of MPI cannot be started; None: they can
    no_shaped_links: str | None  # why no link may be shaped; None: one may
    no_tf32: str | None = None  # why no GPU multiplies in TF32; None: they do
    no_cuda: Callable[[str], str | None] = lambda framework: None  # why a framework cannot train on a GPU; None: it can
    # What a framework lacks to compile for a device, after the name of what asks for it; None: nothing.
    no_compiler: Callable[[str, str], str | None] = lambda framework, device: None
    emulates: Callable[[str, str], bool] = lambda dtype, device: False  # whether a device does not multiply in a dtype


@dataclass(frozen=True, kw_only=True)
class Need:
    """What another field has to be for a field to have any effect."""

    field: str
    holds: Callable[[Any], bool]  # of the other field's value
    in_words: str


def needs_one_of(field: str, choices: Iterable[str]) -> Need:
    """A need of some of another field's choices."""
    allowed = tuple(choices)
    return Need(field=field, holds=lambda value: value in allowed, in_words=f"{field} {' or '.join(allowed)}")


def needs_set(field: str) -> Need:
    """A need of another field that is at more than 0, or not left out."""
    return Need(field=field, holds=bool, in_words=field)


@dataclass(frozen=True, kw_only=True)
class Knob:
    """What hvbench knows of a field and pydantic does not. A rule returns its reason as one line, or None."""

    label: str | None = None  # heads its column in tables for readers; None: the field's name
    in_words: Callable[[str], str] | None = None  # a value in titles and sentences; None: `NAME VALUE`
    unit: str = ""
    column: int | None = None  # its place among the columns that tables begin with; None: behind them, as fields stand
    is_of_launch: bool = False  # a set of workers cannot change it once it runs
    elsewhere: tuple[
        tuple[Any, Any], ...
    ] = ()  # (a value that one framework alone has, what the others have in its place)
    is_of_horovod: bool = False  # means something to Horovod's own strategy only
    variable: str | None = None  # environment variable of Horovod for a value that is not the default
    variable_scale: float = 1.0  # from the field's unit to the variable's
    impossible: Callable[[AnyPoint], str | None] | None = None  # why such a point makes no sense anywhere
    unavailable: Callable[[AnyPoint, Site], str | None] | None = None  # why it cannot run at a place
    needs: tuple[Need, ...] = ()  # without these its value changes nothing
    changes_samples: bool = True  # a setting's: what is measured depends on it; else a run may be resumed with another
    searched: tuple[
        Any, ...
    ] = ()  # the values that hvbench tune tries, the default among them; empty: it leaves the field alone
    # Where a point_id leaves the value out, if not where it is the default: ids from before the default was another.
    unnamed: Callable[[AnyPoint], bool] | None = None
    unmeasurable: Callable[[AnySettings, AnyPoint], str | None] | None = None  # a setting's: why a point cannot give it


class Kind(enum.Enum):
    """What values of a field are."""

    TEXT = enum.auto()
    CHOICE = enum.auto()  # one of a few names
    INTEGER = enum.auto()
    NUMBER = enum.auto()
    SWITCH = enum.auto()


KINDS = {str: Kind.TEXT, int: Kind.INTEGER, float: Kind.NUMBER, bool: Kind.SWITCH}


class Spec(BaseModel):
    """Base of all configuration: immutable, no unknown keys, no silent conversion, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Part(Spec):
    """Fields that belong together. A Point inherits from all parts, so its fields stay one flat table."""

    title: ClassVar[str]
    # Field -> its value -> what that sets of other fields, unless they are set by hand.
    presets: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _fill_from_presets(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        filled: dict[str, Any] = {}
        for name, presets in presets_of(cls).items():
            chosen = values.get(name, filled.get(name, cls.model_fields[name].default))
            filled |= {key: value for key, value in presets.get(str(chosen), {}).items() if key in cls.model_fields}
        return filled | dict(values)


@cache
def knobs_of(model: type[Spec]) -> dict[str, Knob]:
    """Field -> its knob, in the order of the fields; a field that declares none has a plain one."""
    return {
        name: next((item for item in field.metadata if isinstance(item, Knob)), Knob())
        for name, field in model.model_fields.items()
    }


def searched_values(model: type[Spec]) -> dict[str, tuple[Any, ...]]:
    """Field -> the values that are tried where its best one is searched, of the fields that declare any."""
    return {name: knob.searched for name, knob in knobs_of(model).items() if knob.searched}


@cache
def presets_of(model: type[Part]) -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """The presets of all parts that `model` is made of."""
    return {
        name: presets for part in reversed(model.__mro__) for name, presets in vars(part).get("presets", {}).items()
    }


@cache
def groups_of(model: type[Part]) -> dict[str, tuple[str, ...]]:
    """Title of a part -> the fields of `model` that it declares, both in the order of the fields."""
    groups: dict[str, tuple[str, ...]] = {}
    for name in model.model_fields:
        part = next(each for each in reversed(model.__mro__) if name in vars(each).get("__annotations__", {}))
        groups[part.title] = (*groups.get(part.title, ()), name)
    return groups


def kind_of(field: FieldInfo) -> Kind:
    """What values of `field` are, from its type without None."""
    (kind,) = {Kind.CHOICE if get_origin(each) is Literal else KINDS[each] for each in _plain_types(field.annotation)}
    return kind


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The names that a choice has, as declared; of any other field none."""
    return tuple(
        choice for each in _plain_types(field.annotation) if get_origin(each) is Literal for choice in get_args(each)
    )


def changed_fields(point: Part, *, among: Callable[[Knob], bool]) -> list[str]:
    """Names of the fields of `point` that are not at their default, of those whose knob satisfies `among`."""
    fields = type(point).model_fields
    knobs = knobs_of(type(point))
    return [name for name, knob in knobs.items() if among(knob) and getattr(point, name) != fields[name].default]


def _plain_types(annotation: Any) -> list[Any]:
    """The types of a union, without their metadata and without None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain_types(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [plain for each in get_args(annotation) for plain in _plain_types(each)]
    return [] if annotation is type(None) else [annotation]
