"""What the pages need of a run, of an A/B comparison and of a pair of runs: JSON, kept between builds.

Texts are cleaned of control characters when a summary is made, and escaped where a page is.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hvbench.records.record import AnyPoint
from hvbench.spec.knob import Spec

Values = dict[str, list[float]]  # metric -> its value of each launch that ended in ok


class PointSummary(Spec):
    """One point in one run."""

    point: AnyPoint
    statuses: dict[str, int]
    values: Values


class Said(Spec):
    """A sentence of an answer as a page shows it: `hvbench.analysis.report.page.headlines.Headline`."""

    claim: str
    figures: str = ""
    more: list[str] = []
    command: str = ""


class Failed(Spec):
    """A launch that did not end in `ok`, or a point that was skipped (`launch` is None then)."""

    point_id: str
    launch: int | None
    status: str
    reason: str


class RunSummary(Spec):
    """One run."""

    id: str
    name: str = Field(description="its folder, below that of all results")
    suite: str
    question: str
    command: str
    created_at: str = Field(description="as its run.json says")
    began: str = Field(description="YYYY-MM-DD HH:MM, UTC")
    machine: str = Field(description="its hardware in words, the same for all runs on it")
    fingerprint: str = Field(description="of the newest launch: machine, software and settings")
    fingerprints: list[str] = Field(description="of all launches")
    facts: dict[str, Any] = Field(description="of that fingerprint")
    hosts: list[str]
    software: str = Field(description="versions in words")
    revision: str = Field(description="of the script, or else of hvbench")
    script_revision: str = Field(description="of the script alone")
    settings: list[str] = Field(description="of the measurement: those that are not at their defaults, as words")
    launches: int
    statuses: dict[str, int]
    missing: str | None = Field(description="planned launches without a record, in words")
    answer: list[Said]
    failures: list[Failed]
    more_failures: int = Field(description="that are not listed")
    problems: list[str] = Field(description="files that are no records")
    points: dict[str, PointSummary]


class RunTables(Spec):
    """The tables of a run's report, of the newest runs alone: they take longer than everything else."""

    id: str
    body: str = Field(description="HTML: tables of its topics, topic by topic")


class Counts(Spec):
    """How many figures of decisive metrics are called what."""

    worse: int = 0
    better: int = 0
    same: int = 0
    unclear: int = 0


class PairSummary(Spec):
    """Two runs as `hvbench compare` compares them."""

    a: str
    b: str
    is_comparable: bool
    counts: Counts
    called: dict[str, dict[str, str]] = Field(description="point -> metric -> what B is called there, in words")
    body: str = Field(description="HTML: the verdict and the figures")


class AbSummary(Spec):
    """One `hvbench ab`, judged by the default policy."""

    id: str
    name: str
    suite: str
    command: str
    began: str
    machine: str
    fingerprints: list[str]
    arms: dict[str, str] = Field(description="arm -> its description")
    revisions: dict[str, str] = Field(description="arm -> the revision that its launches state")
    pairs: int
    verdict: str
    headline: str
    problems: list[str]
    body: str


class Failure(Spec):
    """What could not be read or computed, in one line."""

    place: str
    reason: str
