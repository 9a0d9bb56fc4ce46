"""What a suite searches: of each configuration the largest number of one kind that does not run out of memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from hvbench.errors import UsageError
from hvbench.spec.knob import Spec

FITS, DOES_NOT_FIT = "ok", "oom"  # outcomes that say something; whatever else ends a launch does not


class Search(Spec):
    """The table [search] of a suite."""

    largest: Literal["micro_batch_size", "sequence_length", "num_layers"] = Field(
        description="the field that is searched: its largest value whose launches do not end in oom"
    )
    at_most: Annotated[int, Field(ge=1, le=1_000_000)] = Field(4096, description="no larger value is tried")
    within: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.03,
        description="the search ends where the next larger value that was tried is no further away than this share; 0: exactly",
    )


def check_search(
    search: Search | None, base: Mapping[str, Any], axes: Mapping[str, Any], excluded: Iterable[Mapping[str, Any]], *, where: str,
) -> None:  # fmt: skip
    """Raise UsageError where a suite sets what it searches."""
    if search is None:
        return
    name = search.largest
    for table, values in (("[point]", base), ("[axes]", axes), *(("[[exclude]]", one) for one in excluded)):
        if name in values:
            raise UsageError(f"{where}: {name} is what [search] looks for: leave it out of {table}")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the launches of one configuration say: value -> how its launches ended, of those that say something."""

    outcomes: Mapping[int, Sequence[str]] = field(default_factory=dict)

    @property
    def too_large(self) -> int | None:
        """The smallest value that ran out of memory, None if none did; a value that did once does."""
        return min((value for value, ends in self.outcomes.items() if DOES_NOT_FIT in ends), default=None)

    @property
    def largest(self) -> int | None:
        """The largest value below it of which every launch ended in `ok`, None if there is none."""
        limit = self.too_large
        fits = [value for value, ends in self.outcomes.items() if DOES_NOT_FIT not in ends]
        return max((value for value in fits if limit is None or value < limit), default=None)
