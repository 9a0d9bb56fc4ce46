"""Types of option values that are more than a number or a word: sizes, bandwidths, lengths of time, lists of words."""

from __future__ import annotations

import re
from typing import Any, get_args

import click

from hvbench.spec.sizes import UNITS, parse_memory


class Memory(click.ParamType):
    """A size in bytes, as people write it: 2GiB, 512M, 1.5GB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_memory(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}")


class Size(click.ParamType):
    """A message's size in bytes, as people write it: 1KiB, 64M, 256MiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d{1,12})\s*([kmg]?i?)b?", str(value).strip().lower())
        size = int(match[1]) * UNITS[match[2]] if match and match[2] != "i" else 0
        if not 4 <= size < 2**36 or size % 4:
            self.fail(f"{value!r} is not the size of float32 values, at most 64GiB; write for example 1KiB or 64MiB")
        return size


class Counts(click.ParamType):
    """Whole numbers above 0, separated by commas."""

    name = "counts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        words = str(value).split(",")
        if not all(re.fullmatch(r"[1-9]\d{0,5}", word.strip()) for word in words) or len(set(words)) < len(words):
            self.fail(f"{value!r} are not different whole numbers; write for example 2,4,8")
        return tuple(int(word) for word in words)


class Bandwidths(click.ParamType):
    """Bandwidths in bits per second, separated by commas, as people write them: 200Mbit,10Gbit."""

    name = "bandwidths"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        found = []
        for word in str(value).split(","):
            match = re.fullmatch(r"(\d{1,13}(?:\.\d{1,6})?)\s*([kmgt]?)(?:bit|bps)?(?:/s)?", word.strip().lower())
            bits = int(float(match[1]) * UNITS[match[2]]) if match else 0
            if not 10_000 <= bits < 2**40:
                self.fail(f"{word!r} is no bandwidth from 10kbit to 1Tbit; write for example 200Mbit or 10Gbit")
            found.append(bits)
        return tuple(dict.fromkeys(found))


class Choices(click.ParamType):
    """Some of a few words, separated by commas."""

    name = "choices"

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        words = tuple(word.strip() for word in str(value).split(","))
        if unknown := [word for word in words if word not in self.allowed]:
            self.fail(f"{unknown[0]!r} is not one of {', '.join(self.allowed)}")
        return tuple(dict.fromkeys(words))


class SearchedKnobs(Choices):
    """Some of the fields of a point that declare values to search, separated by commas."""

    def __init__(self) -> None:
        """Unlike those of other choices, its words are looked up when they are needed: `--help` loads no Point."""

    @property
    def allowed(self) -> tuple[str, ...]:
        """The names of these fields."""
        from hvbench.spec.knob import searched_values
        from hvbench.spec.point import Point

        return tuple(searched_values(Point))


class Share(click.ParamType):
    """A fraction between 0 and 1, as people write it: 2% or 0.02."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d{0,6}(?:\.\d{1,6})?)\s*(%?)", str(value).strip())
        share = float(match[1]) / (100 if match[2] else 1) if match and match[1] else 0.0
        if not 0 < share < 1:
            self.fail(f"{value!r} is not a share above 0 % and below 100 %; write for example 2% or 0.02")
        return share


class Duration(click.ParamType):
    """Seconds, as people write them: 90, 90s, 10m, 1.5h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smh]?)", str(value).strip().lower())
        seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
        if not seconds > 0:
            self.fail(f"{value!r} is not a length of time; write for example 90s, 10m or 1.5h")
        return seconds


class Outcomes(click.ParamType):
    """Outcomes that are no answer, separated by commas."""

    name = "outcomes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[str]:
        from hvbench.records.record import Status

        allowed = [status for status in get_args(Status) if status not in ("ok", "stopped", "skipped")]
        chosen = {word.strip() for word in str(value).split(",") if word.strip()}
        if unknown := sorted(chosen - set(allowed)):
            self.fail(f"{unknown[0]!r} is no outcome that can be retried; allowed: {', '.join(allowed)}")
        return frozenset(chosen)


class Trackers(click.ParamType):
    """Experiment trackers, separated by commas; each must be installed."""

    name = "trackers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        from hvbench.tracking.trackers import LIBRARIES, require_trackers

        chosen = tuple(dict.fromkeys(word.strip() for word in str(value).split(",") if word.strip()))
        if unknown := [name for name in chosen if name not in LIBRARIES]:
            self.fail(f"{unknown[0]!r} is no tracker; allowed: {', '.join(LIBRARIES)}")
        require_trackers(chosen)
        return chosen
