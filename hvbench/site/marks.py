"""The change points of a line -> what stands beside them: between which commits, and what `hvbench ab` said of these two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvbench.comparison.history import Line
from hvbench.site.summary import AbSummary, RunSummary

LETTERS = 12  # of a commit


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A new level, which begins at `run`."""

    place: int  # of the run on the line
    before: RunSummary
    run: RunSummary
    change: float  # this level over the one before, 0.05 is 5 % more
    commits: str  # the range, empty where nothing says it
    ab: AbSummary | None  # that launched both revisions in turns

    @property
    def text(self) -> str:
        """`+5.1 %`."""
        return f"{self.change * 100:+.1f} %"


def find_marks(line: Line, runs: Mapping[str, RunSummary], abs_: Sequence[AbSummary]) -> list[Mark]:
    """The change points of a line, oldest first. `runs`: by id; `abs_`: of the same suite."""
    marks = []
    for place, entry in enumerate(line.entries):
        if entry.change is not None and place:
            before, run = runs[line.entries[place - 1].run], runs[entry.run]
            marks.append(
                Mark(
                    place=place,
                    before=before,
                    run=run,
                    change=entry.change,
                    commits=name_range(before.revision, run.revision),
                    ab=find_ab(before, run, abs_),
                )
            )
    return marks


def name_range(before: str, now: str) -> str:
    """`4f2c…..93ab…` as git takes it; the one commit where it did not change, and nothing where one is not known."""
    if not before or not now:
        return ""
    return f"{before[:LETTERS]}..{now[:LETTERS]}" if before != now else f"the same commit, {now[:LETTERS]}"


def find_ab(before: RunSummary, run: RunSummary, abs_: Sequence[AbSummary]) -> AbSummary | None:
    """The newest A/B comparison on that machine whose arms are the revisions of the two runs."""
    wanted = {"a": before.revision, "b": run.revision}
    if not all(wanted.values()) or wanted["a"] == wanted["b"]:
        return None
    return next((ab for ab in reversed(abs_) if ab.revisions == wanted and ab.machine == run.machine), None)
