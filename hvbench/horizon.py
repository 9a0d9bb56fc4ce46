"""Over how many updates can two frameworks be held to the same work, where a training makes much of a last bit?

A training at a high rate may amplify rounding errors from step to step, until two runs that do the same differ in the
third digit. Nothing can be proven there, nor disproven. So where a pair is outside its tolerances, but not from the
start, one framework trains alone a second time, with every initial weight moved by its last bit. If that alone leaves
the tolerances, the pair is held to its tolerances over the updates before, and its stamp says over how many.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hvbench.launch.coordinator import Coordinator
from hvbench.parity import Deviation, Trace, kind_of, relative_error
from hvbench.spec import Point
from hvbench.tracing import NO_LIMITS, Limits, Pair, Parity, TracedPoint, check_pairs, find_deviations, forget, run_traces

HORIZONS = (15, 10, 7, 5, 3)  # in updates; few, for each that is needed is another launch
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
    horizons = find_horizons(coordinator, [parity.points[0] for parity in unsettled], steps=steps, limits=limits)
    yield from (parity for parity in unsettled if parity.points[0] not in horizons)
    for horizon in HORIZONS:
        again = [parity.points for parity in unsettled if horizons.get(parity.points[0]) == horizon]
        for parity in check_pairs(coordinator, again, steps=horizon, limits=limits, report=report):
            yield replace(parity, horizon=horizon)


def drifted_apart(parity: Parity) -> bool:
    """Whether the twins began alike: all that is outside its tolerance came with training."""
    outside = [each for each in parity.deviations if not each.is_within]
    return not parity.problem and all(kind_of(each) in LATER and not each.name.endswith("/step0") for each in outside)


def find_horizons(
    coordinator: Coordinator, points: Sequence[Point], *, steps: int, limits: Limits
) -> dict[Point, int]:
    """Those of `points` whose training makes so much of a last bit that it leaves the tolerances -> their horizon."""
    horizons = {}
    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as moved:
        sides = [
            {each.point: each for each in run_traces(coordinator, points, folder=folder, steps=steps, limits=limits, is_moved=is_moved)}
            for folder, is_moved in ((plain, False), (moved, True))
        ]
        for point in dict.fromkeys(points):
            horizon = find_horizon(*(side[point] for side in sides))
            if horizon:
                horizons[point] = horizon
            for side, folder in zip(sides, (plain, moved), strict=True):
                forget(side[point], folder=Path(folder))
    return horizons


def find_horizon(plain: TracedPoint, moved: TracedPoint) -> int | None:
    """The last of HORIZONS before `moved` has used up SHARE of a tolerance; None where it keeps within all of them."""
    if plain.failure or moved.failure:
        return None
    deviations = find_deviations(plain, moved)
    if all(each.is_within for each in deviations):
        return None
    early = [step_of(each) for each in deviations if kind_of(each) in BY_STEP and not each.relative_error <= SHARE * each.tolerance]
    first = min(early, default=len(next(iter(plain.ranks.values()))["loss"]))
    return next((horizon for horizon in HORIZONS if horizon <= first), None)


def step_of(deviation: Deviation) -> int:
    """The step that a deviation of a loss or a gradient norm is of, from 0: as many updates came before it."""
    return int(deviation.name.rpartition("/step")[2])
