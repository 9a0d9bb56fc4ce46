"""Find Horovod's knobs for one point within a budget, and say what they gain against the default, with an interval.

An optimiser (optuna's tree of Parzen estimators, Bergstra et al., NeurIPS 2011) proposes values, and one launch with
fresh workers measures them. The minimum of few noisy launches is biased, so what was found is then launched alternately
with the default, and the gain comes from those pairs alone. Every launch leaves a record like any other: a session that
continues asks the optimiser again, which proposes the same values for as long as recorded launches answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hvbench.analysis.stats.contrasts import EQUAL_WITHIN, Call, Contrast, judge_family
from hvbench.analysis.stats.ratios import log_ratios
from hvbench.errors import UsageError
from hvbench.plan.jobs import Job
from hvbench.plan.skip import reason_to_skip
from hvbench.records.record import Record, finite_or_none
from hvbench.spec.knob import searched_values
from hvbench.spec.labels import describe_values
from hvbench.spec.point import Point
from hvbench.sweep.search.confirm import launch_pairs
from hvbench.sweep.search.goals import median_step_seconds
from hvbench.sweep.search.proposals import Proposal, Proposals, make_sampler
from hvbench.sweep.search.space import Choices, Space
from hvbench.sweep.search.trials import OnRecord

SEARCH_SHARE = 0.6  # of the budget at most; the rest is for the pairs
LEAST_TRIALS = 4
STARTUP = 6  # random proposals
NO_SPREAD = 0.01  # per cent: an interval that is narrower has one value at the digits that are shown
CHOICES = searched_values(Point)  # the values of each knob; None is Horovod's own default
DEFAULT_KNOBS = ("fusion_threshold_bytes", "cycle_time_seconds")

SEARCH = "tune"  # its field of run.json


class Search(BaseModel):
    """What run.json keeps of a search: the knobs, and after how many trials it ended; None: it has not."""

    model_config = ConfigDict(frozen=True)
    knobs: tuple[str, ...]
    trials: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What was found, and what it gains: `ratio` is tuned over default step seconds, of pairs of launches."""

    point: Point
    knobs: Mapping[str, Any]
    trials: int
    ratio: Contrast | None  # None where the default was the best, or where the evidence is missing
    missing: str | None = None  # why nothing can be said; None: something can


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What is asked: which knobs of which point, and how long the answer may take."""

    base: Point  # with the default of every knob
    knobs: Sequence[str]
    budget_seconds: float  # for all launches of this session
    pairs: int  # launches of the best and of the default, at least
    seed: int = 0


class Launches:
    """Launches of one session, counted and timed; those that an earlier session has recorded are not repeated."""

    def __init__(
        self,
        launch: Callable[[Job], Record],
        *,
        recorded: Mapping[str, Record] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: `launch` runs a job and returns its record; `recorded` holds earlier records by the keys of their jobs."""
        self.recorded = recorded
        self.count = 0
        self._launch = launch
        self._clock = clock
        self._begun = clock()
        self._repeats: dict[Point, int] = {}

    @property
    def seconds(self) -> float:
        """Time since the session began."""
        return self._clock() - self._begun

    def next_job(self, point: Point) -> Job:
        """The next repeat of a point."""
        self._repeats[point] = self._repeats.get(point, -1) + 1
        return Job(point=point, repeat=self._repeats[point])

    def run(self, job: Job) -> float:
        """The job's step time in seconds, from its record if it has one, else from a launch; raises HvbenchError."""
        if job.key in self.recorded:
            return step_seconds(self.recorded[job.key])
        self.count += 1
        return step_seconds(self._launch(job))

    def list_pairs(self, first: Point, second: Point) -> Iterator[tuple[Job, Job]]:
        """The next repeats of both points."""
        while True:
            yield self.next_job(first), self.next_job(second)

    def run_pair(self, jobs: Sequence[Job], on_record: OnRecord) -> None:
        """Launch both jobs of a pair, of which no record is known; raises HvbenchError."""
        for job in jobs:
            self.count += 1
            on_record(job, self._launch(job))


def tune(
    tuning: Tuning,
    launches: Launches,
    *,
    say: Callable[[str], None],
    settled: int | None = None,
    settle: Callable[[int], None] = lambda trials: None,
) -> Tuned:
    """Search for the knobs with the shortest step, then compare them with the default in pairs of launches.

    Args:
        tuning: the question.
        launches: what answers it.
        say: receives one line when the search has ended.
        settled: after how many trials an earlier session ended the search; None: it did not.
        settle: is called with the number of trials when the search ends.

    Raises:
        HvbenchError: a launch could not be made.
    """
    seen = search(tuning, launches, settled=settled)
    trials = sum(map(len, seen.values()))
    settle(trials)
    best = min(seen, key=lambda point: float(np.median(seen[point])))
    chosen = {name: getattr(best, name) for name in tuning.knobs}
    say(f"{trials} launches tried; best: {describe_values(chosen)}")
    if not math.isfinite(min(seen[best])):
        missing = f"none of the {trials} launches ended in ok"
        return Tuned(point=tuning.base, knobs=chosen, trials=trials, ratio=None, missing=missing)
    if best == tuning.base:
        return Tuned(point=tuning.base, knobs=chosen, trials=trials, ratio=None)
    ratio = compare_in_pairs(tuning, launches, best)
    missing = None if ratio else "no pair of launches of the best and of the default ended in ok"
    return Tuned(point=best, knobs=chosen, trials=trials, ratio=ratio, missing=missing)


def search(tuning: Tuning, launches: Launches, *, settled: int | None) -> dict[Point, list[float]]:
    """Point -> step times in seconds of its launches: what the optimiser proposes, until the search's time is up.

    The search ends after `settled` trials if that is given, else when its share of the budget is spent or only the time
    for the pairs is left.
    """
    seen: dict[Point, list[float]] = {}
    proposals = propose(tuning.base, knobs=tuning.knobs, seed=tuning.seed)
    for trials, (point, tell) in enumerate(proposals, start=1):
        seconds = launches.run(launches.next_job(point))
        tell(seconds)
        seen.setdefault(point, []).append(seconds)
        if trials == settled or (settled is None and is_searched(tuning, launches, trials=trials)):
            break
    return seen


def is_searched(tuning: Tuning, launches: Launches, *, trials: int) -> bool:
    """Whether the search has to end after `trials`: the rest of the budget belongs to the pairs."""
    spent = launches.seconds
    pairs_seconds = 2 * tuning.pairs * spent / max(1, launches.count)
    is_spent = spent >= SEARCH_SHARE * tuning.budget_seconds or tuning.budget_seconds - spent <= pairs_seconds
    return trials >= LEAST_TRIALS and is_spent


def compare_in_pairs(tuning: Tuning, launches: Launches, best: Point) -> Contrast | None:
    """Step time of `best` over that of the default, from pairs of launches in random order; None without a whole pair."""
    pairs = launch_pairs(
        launches.list_pairs(tuning.base, best),
        launches.run_pair,
        value_of=lambda record: finite_or_none(step_seconds(record)),
        recorded=launches.recorded,
        pairs=tuning.pairs,
        rest_seconds=tuning.budget_seconds - launches.seconds,
        seed=tuning.seed,
        clock=lambda: launches.seconds,
    )
    kept = [(pair.default, pair.found) for pair in pairs if pair.default is not None and pair.found is not None]
    return judge_family([log_ratios(*map(list, zip(*kept, strict=True)))]).contrasts[0] if kept else None


def read_search(run: Mapping[str, Any], *, where: Path) -> Search | None:
    """The search of a run that goes on, None of one that begins; raises UsageError when it cannot be read."""
    try:
        return Search.model_validate(run[SEARCH]) if SEARCH in run else None
    except ValidationError as error:
        raise UsageError(f"{where}: run.json: {SEARCH}: {error.errors()[0]['msg']}; start a new run") from None


def propose(base: Point, *, knobs: Sequence[str], seed: int) -> Iterator[tuple[Point, Callable[[float], None]]]:
    """Points to launch, the default first, each with the function that takes its step time in seconds, without end.

    Combinations that cannot run are left out.
    """
    space = Space(dimensions={name: Choices(values=CHOICES[name]) for name in knobs})
    proposals = Proposals(space, goals=1, sampler=make_sampler("tpe", seed=seed, startup=STARTUP))
    default = {name: getattr(base, name) for name in knobs}

    def learn(seconds: float) -> None:
        if math.isfinite(seconds) and all(space.dimensions[name].holds(value) for name, value in default.items()):
            proposals.learn(default, [seconds])

    yield base, learn
    while True:
        proposal = proposals.ask()
        point = base.model_copy(update=proposal.values)
        if reason_to_skip(point, world_size=point.world_size or 1):
            proposals.tell(proposal, None)
            continue

        def tell(seconds: float, proposal: Proposal = proposal) -> None:
            proposals.tell(proposal, [seconds] if math.isfinite(seconds) else None)

        yield point, tell


def step_seconds(record: Record) -> float:
    """Median of the slowest rank's timed steps; infinite for a launch that did not end in `ok`."""
    return median_step_seconds(record) if record.outcome.status == "ok" else math.inf


def describe_gain(tuned: Tuned) -> str:
    """What the knobs gain, or why nothing can be said of it."""
    if tuned.ratio is None:
        return "nothing was found that beats the default"
    gain, n = 100 * (1 - tuned.ratio.ratio), tuned.ratio.rounds
    interval = "no interval"
    if tuned.ratio.low is not None and tuned.ratio.high is not None:
        low, high = (100 * (1 - end) for end in (tuned.ratio.high, tuned.ratio.low))
        interval = f"95 % interval of the gain {low:+.1f} to {high:+.1f} %" if high - low > NO_SPREAD else "no spread"
    which = "shorter" if gain >= 0 else "longer"
    called = {
        Call.EQUAL: f": within {100 * EQUAL_WITHIN:g} % of each other",
        Call.OPEN: f": {n} pair{'s' * (n != 1)} cannot say which is faster",
    }.get(tuned.ratio.call, "")
    return f"steps {abs(gain):.1f} % {which} than by default ({interval}, n = {n} pairs){called}"
