"""Find Horovod's knobs for one point within a budget, and say what they gain against the default, with an interval.

A maintained optimiser (optuna's tree of Parzen estimators, Bergstra et al., NeurIPS 2011) proposes, one launch with fresh
workers answers. The best of few noisy launches flatters itself, so what it found is then launched in turn with the
default, in pairs, and the gain comes from those pairs alone. Every launch leaves a record like any other: a session that
goes on asks the optimiser again, and it proposes the same as long as the recorded launches answer.
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

from hvbench.analysis.stats.ratios import Ratio, paired_ratio
from hvbench.errors import UsageError
from hvbench.plan.jobs import Job
from hvbench.plan.skip import reason_to_skip
from hvbench.records.record import Record
from hvbench.spec.labels import describe_values
from hvbench.spec.point import Point

SEARCH_SHARE = 0.6  # of the budget at most; the rest is for the pairs
LEAST_TRIALS = 4
MOST_PAIRS = 18
# What each knob may be; None is Horovod's own default.
CHOICES: dict[str, tuple[Any, ...]] = {
    "fusion_threshold_bytes": (None, 0, 2**20, 2**22, 2**24, 2**26, 2**28),
    "cycle_time_seconds": (None, 2e-4, 5e-4, 2e-3, 5e-3, 1e-2),
    "controller": ("gloo", "mpi"),
    "compression": ("none", "fp16", "bf16"),
}
DEFAULT_KNOBS = ("fusion_threshold_bytes", "cycle_time_seconds")

SEARCH = "tune"  # its field of run.json

Launch = Callable[[Job], Record]
Say = Callable[[str], None]
Settle = Callable[[int], None]


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
    ratio: Ratio | None  # None where the default was the best, or where no pair was left time


def tune(
    base: Point,
    *,
    knobs: Sequence[str],
    launch: Launch,
    budget_seconds: float,
    pairs: int,
    say: Say,
    recorded: Mapping[str, Record] = MappingProxyType({}),
    settled: int | None = None,
    settle: Settle = lambda trials: None,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Tuned:
    """Search, then compare in pairs; `launch` runs a job and returns its record. Raises HvbenchError when it cannot.

    `settle` is told after how many trials the search ends. What an earlier session left: `recorded` holds its launches
    by their keys, which answer in place of new ones, and `settled` is what `settle` was told, if the search had ended.
    """
    begun = clock()
    repeats: dict[Point, int] = {}
    launched: list[Job] = []

    def next_job(point: Point) -> Job:
        repeats[point] = repeats.get(point, -1) + 1
        return Job(point=point, repeat=repeats[point])

    def run(job: Job) -> float:
        if job.key in recorded:
            return step_seconds(recorded[job.key])
        launched.append(job)
        return step_seconds(launch(job))

    def rest(share: float = 1.0) -> float:
        return share * budget_seconds - (clock() - begun)

    def is_searched(trials: int) -> bool:
        pairs_seconds = 2 * pairs * (clock() - begun) / max(1, len(launched))
        return trials >= LEAST_TRIALS and (rest(SEARCH_SHARE) <= 0 or rest() <= pairs_seconds)

    seen: dict[Point, list[float]] = {}
    for trials, (point, tell) in enumerate(propose(base, knobs=knobs, seed=seed), start=1):
        seconds = run(next_job(point))
        tell(seconds)
        seen.setdefault(point, []).append(seconds)
        if trials == settled or settled is None and is_searched(trials):
            break
    settle(trials)
    best = min(seen, key=lambda point: float(np.median(seen[point])))
    chosen = {name: getattr(best, name) for name in knobs}
    say(f"{trials} launches tried; best: {describe_values(chosen)}")
    if best == base or not math.isfinite(min(seen[best])):
        return Tuned(point=base, knobs=chosen, trials=trials, ratio=None)
    kept: list[tuple[float, float]] = []
    order = np.random.default_rng(seed).permuted([False, True] * (MOST_PAIRS // 2))
    for number, is_best_first in enumerate(order):
        jobs = next_job(base), next_job(best)
        while sum(job.key in recorded for job in jobs) == 1:  # the session ended within this pair
            jobs = next_job(base), next_job(best)
        if number >= pairs and rest() <= 0 and jobs[0].key not in recorded:
            break
        seconds = {job: run(job) for job in (reversed(jobs) if is_best_first else jobs)}
        if all(map(math.isfinite, seconds.values())):
            kept.append((seconds[jobs[0]], seconds[jobs[1]]))
    ratio = paired_ratio(*map(list, zip(*kept, strict=True))) if kept else None
    return Tuned(point=best, knobs=chosen, trials=trials, ratio=ratio)


def read_search(run: Mapping[str, Any], *, where: Path) -> Search | None:
    """The search of a run that goes on, None of one that begins; raises UsageError when it cannot be read."""
    try:
        return Search.model_validate(run[SEARCH]) if SEARCH in run else None
    except ValidationError as error:
        raise UsageError(f"{where}: run.json: {SEARCH}: {error.errors()[0]['msg']}; start a new run") from None


def propose(base: Point, *, knobs: Sequence[str], seed: int) -> Iterator[tuple[Point, Callable[[float], None]]]:
    """Points to launch, the default first, each with what is to be told of it; those that make no sense are left out."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=6))
    # Categories are told apart by their place in CHOICES: optuna keeps None and numbers apart by their text otherwise.
    space = {name: optuna.distributions.CategoricalDistribution(range(len(CHOICES[name]))) for name in knobs}
    study.enqueue_trial(
        {name: list(CHOICES[name]).index(getattr(base, name)) for name in knobs if getattr(base, name) in CHOICES[name]}
    )
    while True:
        trial = study.ask(space)
        point = base.model_copy(update={name: CHOICES[name][trial.params[name]] for name in knobs})
        if reason_to_skip(point, world_size=point.world_size or 1):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue

        def tell(seconds: float, trial: Any = trial) -> None:
            if math.isfinite(seconds):
                study.tell(trial, seconds)
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)

        yield point, tell


def step_seconds(record: Record) -> float:
    """Median of the slowest rank's timed steps; infinite for a launch that did not end in `ok`."""
    if record.outcome.status != "ok":
        return math.inf
    slowest = np.array([rank.step_seconds[record.warmup_steps :] for rank in record.ranks]).max(axis=0)
    return float(np.median(slowest))


def describe_gain(tuned: Tuned) -> str:
    """What the knobs gain, or why nothing can be said of it."""
    if tuned.ratio is None:
        return "nothing was found that beats the default"
    gain, n = 100 * (1 - tuned.ratio.ratio), tuned.ratio.n_a
    interval = "no interval"
    if tuned.ratio.low is not None and tuned.ratio.high is not None:
        interval = (
            f"95 % interval of the gain {100 * (1 - tuned.ratio.high):+.1f} to {100 * (1 - tuned.ratio.low):+.1f} %"
        )
    sure = tuned.ratio.high is not None and tuned.ratio.high < 1
    which = "shorter" if gain >= 0 else "longer"
    return f"steps {abs(gain):.1f} % {which} than by default ({interval}, n = {n} pairs){'' if sure else ': not told from noise'}"
