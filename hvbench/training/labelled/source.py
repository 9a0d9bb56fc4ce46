"""Where labelled texts come from: what of a point says it, and what messages call it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hvbench.spec.messages import shorten
from hvbench.spec.objective import OBJECTIVES
from hvbench.spec.point import Point

USUAL_FIELDS = {"text_field": "tokens", "label_field": "tags"}  # of sentences
LISTED = 8  # fields or classes that a message names


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where labelled texts come from: fields of a point."""

    data: str
    text_field: str
    second_text_field: str
    label_field: str
    encoding: str
    split_seed: int
    labels: str  # "class", "number" or "tags": of `hvbench.spec.objective.Objective`

    @property
    def needs_second_text(self) -> bool:
        """Whether a second text was asked for; under its usual name it is read where the file has one."""
        return self.second_text_field != Point.model_fields["second_text_field"].default


def source_of(point: Point) -> Source:
    """The labelled texts of a point that reads a file of them."""
    names = ("data", "text_field", "second_text_field", "label_field", "encoding", "split_seed")
    values = {name: getattr(point, name) for name in names}
    if point.is_tagger:
        for name, usual in USUAL_FIELDS.items():
            is_set = values[name] != Point.model_fields[name].default
            values[name] = values[name] if is_set else usual
    return Source(**values, labels=OBJECTIVES[point.objective].labels)


def describe_source(source: Source) -> str:
    """What messages call the data."""
    return f"data = {source.data!r}"


def list_names(names: Iterable[str]) -> str:
    """The first few names, and how many there are."""
    names = list(names)
    listed = ", ".join(shorten(name, limit=40) for name in names[:LISTED])
    return (listed or "none") + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
