"""What all pages have in common: the frame around them, what they are called, and how counts are said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from hvbench import __version__
from hvbench.site.atlas import Atlas, SuiteRuns
from hvbench.site.collect import name_file
from hvbench.site.render import render
from hvbench.site.summary import AbSummary, RunSummary

ROWS = 300  # of a table that has further pages
HOME = ("Overview", "index.html")
Page = tuple[str, str]  # path, text


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What all pages have in common."""

    atlas: Atlas
    results: str  # what the folder of all results is called
    today: date
    stale_days: int

    def render(
        self, path: str, template: str, *, title: str, trail: Sequence[tuple[str, str]] = (),
        pages: Sequence[tuple[str, str]] = (), **values: Any,
    ) -> Page:  # fmt: skip
        """One page, which knows the way to the folder of the site and where it is itself."""
        text = render(
            template,
            title=title,
            root="../" * path.count("/"),
            trail=[HOME, *trail, *([(title, path)] if path != HOME[1] else [])],
            pages=pages,
            version=__version__,
            results=self.results,
            **values,
        )
        return path, text


def name_suite_page(suite: SuiteRuns | str, number: int = 1) -> str:
    """A page of a suite."""
    name = suite if isinstance(suite, str) else suite.name
    return f"suites/{name_file(name)}{f'-{number}' if number > 1 else ''}.html"


def name_machine_page(machine: str, number: int = 1) -> str:
    """A page of a machine."""
    return f"machines/{name_file(machine)}{f'-{number}' if number > 1 else ''}.html"


def name_run_page(run: RunSummary | AbSummary) -> str:
    """The page of a run, or of an A/B comparison."""
    return f"runs/{run.id}.html"


def count(number: int, word: str) -> str:
    """`1 run`, `2 launches`."""
    ending = "" if number == 1 else "es" if word.endswith("h") else "s"
    return f"{number:,} {word}{ending}"


def paginate(number: int, pages: Sequence[str], *, size: int, total: int) -> list[tuple[str, str]]:
    """`1–300`, `301–600`, …, each with its page, and without for the page that it is on; nothing where there is one page."""
    if len(pages) < 2:
        return []
    spans = [f"{first + 1:,}–{min(first + size, total):,}" for first in range(0, total, size)]
    return [
        (span, "" if place == number else page) for place, (span, page) in enumerate(zip(spans, pages, strict=True))
    ]
