"""What a gate says: checks, each of one figure of one point, and the verdict that they add up to. Pure: values only."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hvbench.comparison.gate.rule import Decision
from hvbench.comparison.result import Change, Comparison


class Kind(enum.StrEnum):
    """How a check ended, the gravest first; a verdict is the gravest of its checks."""

    NOT_COMPARABLE = "not comparable"
    REGRESSION = "regression"
    CRASH = "crash"
    MISSING = "missing"
    INCONCLUSIVE = "inconclusive"
    ACCEPTED = "accepted"
    PASS = "pass"


EXIT_CODES = {
    Kind.NOT_COMPARABLE: 4,
    Kind.REGRESSION: 1,
    Kind.CRASH: 5,
    Kind.MISSING: 5,
    Kind.INCONCLUSIVE: 3,
    Kind.ACCEPTED: 0,
    Kind.PASS: 0,
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """What the gate has to say of one figure of one point (or of all points: an empty label)."""

    kind: Kind
    label: str
    metric: str  # name of a metric, `loss`, or what is missing
    text: str
    point_id: str = ""
    change: Change | None = None
    decision: Decision | None = None

    @property
    def exit_code(self) -> int:
        """The exit code that it asks for."""
        return EXIT_CODES[self.kind]

    @property
    def place(self) -> str:
        """The point, as the beginning of a sentence; nothing for a check of all points."""
        return f"{self.label}: " if self.label else ""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict and all that it rests on."""

    suite: str
    against: str  # what b was compared with
    checks: tuple[Check, ...]
    comparison: Comparison | None
    launches: int  # pairs, or launches of the run
    notes: tuple[str, ...] = ()
    is_final: bool = True  # no further pair would change it

    @property
    def verdict(self) -> Kind:
        """The gravest kind among the checks; no check at all is missing data."""
        kinds = {check.kind for check in self.checks}
        gravest = next((kind for kind in Kind if kind in kinds and kind is not Kind.ACCEPTED), None)
        return gravest or (Kind.PASS if kinds else Kind.MISSING)

    @property
    def exit_code(self) -> int:
        """0 pass, 1 regression, 3 inconclusive, 4 not comparable, 5 missing data or a crash."""
        return EXIT_CODES[self.verdict]

    def of(self, kind: Kind) -> list[Check]:
        """Checks of that kind."""
        return [check for check in self.checks if check.kind == kind]

    @property
    def unit(self) -> str:
        """What `launches` counts."""
        points = self.comparison.points if self.comparison else ()
        is_paired = any(change.worse_by for point in points for change in point.changes)
        return "pairs" if is_paired else "launches"

    def headline(self) -> str:
        """The verdict in one line."""
        found = self.of(self.verdict)
        start = f"{self.verdict.upper()} ({self.suite}, {self.launches} {self.unit} against {self.against})"
        if self.verdict is Kind.PASS:
            accepted = len(self.of(Kind.ACCEPTED))
            extra = f", {accepted} accepted" if accepted else ""
            return f"{start}: {len(found)} checks passed{extra}"
        if not found:
            return f"{start}: nothing to judge"
        more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
        return f"{start}: {found[0].place}{found[0].text}{more}"
