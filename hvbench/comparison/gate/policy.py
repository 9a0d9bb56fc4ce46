"""What a gate lets pass: metrics, margins, exceptions with an end. A TOML file, read once and validated.

margin = 0.03                              # a change that is smaller is none

[metrics.peak_rss_bytes]
margin = 0.05

[suites.smoke.metrics.step_seconds_median] # steps of a millisecond are noisier
margin = 0.08

[[accepted]]
point = "tensorflow-*-bf16-*"
metric = "step_seconds_median"
up_to = 0.10
reason = "oneDNN 3.8 has a slower bf16 path; reported"
expires = 2027-03-31
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hvbench.analysis.frame.metrics import METRICS
from hvbench.errors import UsageError
from hvbench.io.untrusted import require_shallow
from hvbench.spec.knob import Spec, Text
from hvbench.spec.messages import did_you_mean, shorten, validate
from hvbench.spec.suite import MAX_DEPTH, read_text

DEFAULT_MARGIN = 0.03
DEFAULT_BUDGET_SECONDS = 1800.0
BY_NAME = {metric.name: metric for metric in METRICS}
Margin = Annotated[float, Field(gt=0.0, lt=1.0)]


class MetricPolicy(Spec):
    """How one metric is judged."""

    margin: Margin | None = Field(None, description="a change that is smaller is none; left out: the general one")
    direction: Literal["lower", "higher"] | None = Field(None, description="which is better; left out: as is usual")
    gate: bool = Field(True, description="false: only show it")


class SuitePolicy(Spec):
    """What is different for one suite."""

    margin: Margin | None = Field(None, description="for all metrics of the suite that have none of their own")
    metrics: dict[str, MetricPolicy] = Field(default_factory=dict)


class Accepted(Spec):
    """A regression that is known and let pass until a date."""

    point: Text = Field(description="pattern of a point's id, such as tensorflow-*-bf16-*")
    metric: Text = Field(description="name of the metric, or loss")
    reason: Text = Field(description="why it is let pass: a link, a decision")
    expires: date = Field(description="the last day on which it is")
    suite: Text | None = Field(None, description="left out: any")
    up_to: Margin | None = Field(None, description="the largest change that is let pass; left out: any")


class Policy(Spec):
    """What a gate needs beside the launches: margins, judged metrics, accepted regressions."""

    margin: Margin = Field(DEFAULT_MARGIN, description="of every metric that has none of its own")
    budget_seconds: Annotated[float, Field(gt=0.0)] = Field(DEFAULT_BUDGET_SECONDS, description="of hvbench ab")
    fail_on_baseline: bool = Field(False, description="let a stored baseline alone call a regression")
    check_loss: bool = Field(True, description="call a loss that moved a regression")
    metrics: dict[str, MetricPolicy] = Field(default_factory=dict)
    suites: dict[str, SuitePolicy] = Field(default_factory=dict)
    accepted: list[Accepted] = Field(default_factory=list)

    def judges(self, metric: str, *, suite: str) -> bool:
        """Whether the verdict rests on `metric`."""
        own = self._of_metric(metric, suite=suite)
        return own[0].gate if own else BY_NAME[metric].is_decisive

    def names(self, metric: str, *, suite: str) -> bool:
        """Whether the file says something of `metric`."""
        return bool(self._of_metric(metric, suite=suite))

    def margin_of(self, metric: str, *, suite: str, typical: float = math.inf) -> float:
        """The margin of `metric`, the most particular one that is given.

        One that is not given for this very metric is at least the metric's `least_change`, as a share of the value that is
        `typical` (in its stored unit), and none is below its `resolution`.
        """
        of_suite = self.suites.get(suite, SuitePolicy())
        given = (
            (of_suite.metrics.get(metric, MetricPolicy()).margin, True),
            (of_suite.margin, False),
            (self.metrics.get(metric, MetricPolicy()).margin, True),
            (self.margin, False),
        )
        margin, is_own = next((margin, is_own) for margin, is_own in given if margin is not None)
        known = BY_NAME[metric]
        least = known.resolution if is_own else max(known.least_change, known.resolution)
        return max(margin, least / typical)

    def is_lower_better(self, metric: str, *, suite: str) -> bool:
        """Whether a lower value of `metric` is better."""
        given = [one.direction for one in self._of_metric(metric, suite=suite) if one.direction]
        return given[0] == "lower" if given else BY_NAME[metric].is_lower_better

    def find_accepted(self, *, point_id: str, metric: str, suite: str, change: float, today: str) -> Accepted | None:
        """The exception in force (`today`: ISO 8601) that covers a change by `change` (0.05: 5 % worse), if any."""
        for one in self.accepted:
            in_force = today <= one.expires.isoformat() and one.suite in (None, suite)
            covers = one.up_to is None or change <= one.up_to
            if in_force and covers and one.metric == metric and fnmatchcase(point_id, one.point):
                return one
        return None

    def expired(self, *, today: str) -> list[Accepted]:
        """Exceptions whose day has passed: to be removed."""
        return [one for one in self.accepted if today > one.expires.isoformat()]

    def _of_metric(self, metric: str, *, suite: str) -> list[MetricPolicy]:
        tables: list[Mapping[str, MetricPolicy]] = [self.suites[suite].metrics] if suite in self.suites else []
        return [table[metric] for table in [*tables, self.metrics] if metric in table]


def load_policy(path: Path | None) -> Policy:
    """Read a policy; the default one without a path. Raises UsageError."""
    return Policy() if path is None else parse_policy(read_text(path), where=str(path))


def parse_policy(text: str, *, where: str) -> Policy:
    """Validate a policy's text; raises UsageError with one line."""
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not valid TOML: {shorten(str(error), limit=200)}") from None
    require_shallow(values, where=where, max_depth=MAX_DEPTH)
    policy = validate(Policy, values, where=where)
    named = [*policy.metrics, *(name for suite in policy.suites.values() for name in suite.metrics)]
    named += [one.metric for one in policy.accepted if one.metric != "loss"]
    for name in named:
        if name not in BY_NAME:
            raise UsageError(
                f"{where}: unknown metric {shorten(name)}{did_you_mean(name, list(BY_NAME))}; allowed: {', '.join(BY_NAME)}"
            )
    return policy
