"""Over how many updates can two frameworks be held to the same work, where a training makes much of a last bit?

A training at a high rate may amplify rounding errors from step to step, until two runs that do the same differ in the
third digit. Nothing can be proven there, nor disproven. So where a pair is outside its tolerances, but not from the
start, each framework trains alone a few times more, with every initial weight moved by its last bit. If that alone makes
each of them leave the tolerances, the pair is held to them over the updates before, and its stamp says over how many.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hvbench.launch.coordinator import Coordinator
from hvbench.parity.run import (
    NO_LIMITS,
    Limits,
    Pair,
    Parity,
    TracedPoint,
    check_pairs,
    find_deviations,
    forget,
    run_traces,
)
from hvbench.parity.trace import Deviation, kind_of
from hvbench.spec.labels import short_name
from hvbench.spec.point import Point

HORIZONS = (15, 10, 7, 5, 3)  # in updates; few, for each that is needed is another launch
DRAWS = 2  # of the bits that are moved up or down: by one alone, amplification can look ten times weaker than it is
SHARE = 0.25  # of a tolerance: what a moved last bit may use up of it before the horizon
BY_STEP = {"loss": "loss", "gradient_norm": "gradients"}  # what a trace has of every step -> its tolerance
LATER = {*BY_STEP, "update", "update_length", "key_bias", "skipped"}  # kinds that only training makes much of


def prove_pairs(
    coordinator: Coordinator,
    pairs: Sequence[Pair],
    *,
    steps: int,
    limits: Limits = NO_LIMITS,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[Parity]:
    """As `check_pairs`, but pairs whose training amplifies rounding errors are compared over fewer updates, and come last."""
    unsettled = []
    for parity in check_pairs(coordinator, pairs, steps=steps, limits=limits, report=report):
        if parity.is_proven or not drifted_apart(parity):
            yield parity
        else:
            unsettled.append(parity)
    if not unsettled:
        return
    report(f"parity: outside the tolerances after the start in {len(unsettled)}; asking what a last bit does there")
    points = [point for parity in unsettled for point in parity.points]
    horizons = find_horizons(coordinator, points, steps=steps, limits=limits, report=report)
    wild = [parity.points for parity in unsettled if horizons.keys() >= set(parity.points)]
    yield from (parity for parity in unsettled if parity.points not in wild)
    for horizon in HORIZONS:
        again = [pair for pair in wild if min(horizons[point] for point in pair) == horizon]
        for parity in check_pairs(coordinator, again, steps=horizon, limits=limits, report=report):
            yield replace(parity, horizon=horizon)


def drifted_apart(parity: Parity) -> bool:
    """Whether the twins began alike: all that is outside its tolerance came with training."""
    outside = [each for each in parity.deviations if not each.is_within]
    return not parity.problem and all(kind_of(each) in LATER and not each.name.endswith("/step0") for each in outside)


def find_horizons(
    coordinator: Coordinator, points: Sequence[Point], *, steps: int, limits: Limits, report: Callable[[str], None]
) -> dict[Point, int]:
    """Those of `points` whose training makes so much of a last bit that it leaves the tolerances -> their horizon."""
    horizons = {}
    draws = (None, *range(DRAWS))
    begun, total = itertools.count(1), len(set(points)) * len(draws)

    def announce(point: Point) -> None:
        report(f"parity, last bits {next(begun)} of {total}: {short_name(point)}")

    with tempfile.TemporaryDirectory(prefix="hvbench-traces-") as folder:
        traces: dict[Point, list[TracedPoint]] = {}
        for new in run_traces(
            coordinator, points, folder=folder, steps=steps, limits=limits, announce=announce, draws=draws
        ):
            alike = traces.setdefault(new.point, [])
            alike.append(new)
            if len(alike) == len(draws):
                plain, *moved = traces.pop(new.point)
                horizon = find_horizon(plain, moved)
                if horizon:
                    horizons[new.point] = horizon
                for each in alike:
                    forget(each, folder=Path(folder))
    return horizons


def find_horizon(plain: TracedPoint, moved: Sequence[TracedPoint]) -> int | None:
    """The last of HORIZONS before one of `moved` has used up SHARE of a tolerance; None where all keep within all of them."""
    if any(each.failure for each in (plain, *moved)):
        return None
    deviations = [deviation for each in moved for deviation in find_deviations(plain, each)]
    if all(each.is_within for each in deviations):
        return None
    early = [
        step_of(each)
        for each in deviations
        if kind_of(each) in BY_STEP and not each.relative_error <= SHARE * each.tolerance
    ]
    first = min(early, default=len(next(iter(plain.ranks.values()))["loss"]))
    return next((horizon for horizon in HORIZONS if horizon <= first), None)


def step_of(deviation: Deviation) -> int:
    """The step that a deviation of a loss or a gradient norm is of, from 0: as many updates came before it."""
    return int(deviation.name.rpartition("/step")[2])
