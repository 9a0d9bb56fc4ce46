"""Over how many updates two frameworks can be compared, where a training amplifies rounding errors.

At a high learning rate rounding errors may grow from step to step, until two correct runs differ in the third digit.
Beyond that a comparison can neither prove nor disprove anything. So where a pair exceeds its tolerances, but not from
the start, each framework repeats its own training a few times with every initial weight changed by one unit in the last
place. If that alone uses up a good part of the tolerances that the pair exceeds (EXPLAINS), in both, the pair is compared
over the updates before, its horizon, and its stamp says over how many.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from hvbench.launch.coordinator import Coordinator
from hvbench.parity.compare import Deviation, kind_of
from hvbench.parity.pairs import Parity, PointPair, check_pairs, find_deviations
from hvbench.parity.run import NO_LIMITS, Limits, TracedPoint, forget, run_traces
from hvbench.spec.labels import short_name
from hvbench.spec.point import Point

HORIZONS = (15, 10, 7, 5, 3)  # in updates; few, for each one that is needed is another launch
DRAWS = 2  # random perturbations of the weights: in a single one, amplification can look ten times weaker than it is
EXPLAINS = 0.25  # of a tolerance: rounding that uses up as much in one framework may exceed it between two
ONSET = 0.5  # of a tolerance: up to there it is what was measured without amplification, for twice that is allowed
BY_STEP = ("loss", "gradient_norm")  # kinds of which a trace has a value for every step
LATER = {*BY_STEP, "update", "update_length", "key_bias", "skipped"}  # kinds that amplification can reach


def prove_pairs(
    coordinator: Coordinator,
    pairs: Sequence[PointPair],
    *,
    steps: int,
    limits: Limits = NO_LIMITS,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[Parity]:
    """As `check_pairs`, but a pair whose training amplifies rounding errors is compared over fewer updates, and comes last."""
    unsettled = []
    for parity in check_pairs(coordinator, pairs, steps=steps, limits=limits, report=report):
        if parity.is_proven or not drifted_apart(parity):
            yield parity
        else:
            unsettled.append(parity)
    if not unsettled:
        return
    report(
        f"parity: outside the tolerances after the start in {len(unsettled)}; measuring what rounding alone does there"
    )
    exceeded = {parity.points: exceeded_kinds(parity) for parity in unsettled}
    horizons = find_horizons(coordinator, exceeded, steps=steps, limits=limits, report=report)
    yield from (parity for parity in unsettled if parity.points not in horizons)
    for horizon in HORIZONS:
        again = [pair for pair in horizons if horizons[pair] == horizon]
        for parity in check_pairs(coordinator, again, steps=horizon, limits=limits, report=report):
            yield replace(parity, horizon=horizon)


def drifted_apart(parity: Parity) -> bool:
    """Whether logits, gradients and first step agree, so that all that exceeds its tolerance came with training."""
    outside = [deviation for deviation in parity.deviations if not deviation.is_within]
    return not parity.problem and all(
        kind_of(deviation) in LATER and not deviation.name.endswith("/step0") for deviation in outside
    )


def exceeded_kinds(parity: Parity) -> set[str]:
    """Kinds of quantities that differ by more than is allowed, but for skipped steps: which steps follows from the rest."""
    kinds = {kind_of(deviation) for deviation in parity.deviations if not deviation.is_within}
    return kinds - {"skipped"} or kinds


def find_horizons(
    coordinator: Coordinator,
    exceeded: Mapping[PointPair, Set[str]],
    *,
    steps: int,
    limits: Limits,
    report: Callable[[str], None],
) -> dict[PointPair, int]:
    """Pairs of which rounding explains, in both points, why they exceed tolerances -> the earlier horizon of the two, in updates.

    `exceeded`: pair -> see `find_horizon`. A point of several pairs is traced once and judged for each pair by itself: what one
    pair exceeds for another reason is held against no other.
    """
    points = list(dict.fromkeys(itertools.chain.from_iterable(exceeded)))
    found: dict[PointPair, list[int | None]] = {pair: [] for pair in exceeded}
    draws = (None, *range(DRAWS))
    begun, total = itertools.count(1), len(points) * len(draws)

    def announce(point: Point) -> None:
        report(f"parity, rounding alone {next(begun)} of {total}: {short_name(point)}")

    with tempfile.TemporaryDirectory(prefix="hvbench-traces-") as folder:
        traces: dict[Point, list[TracedPoint]] = {}
        for new in run_traces(
            coordinator, points, folder=folder, steps=steps, limits=limits, announce=announce, draws=draws
        ):
            same_point = traces.setdefault(new.point, [])
            same_point.append(new)
            if len(same_point) == len(draws):
                plain, *moved = traces.pop(new.point)
                for pair in exceeded:
                    if new.point in pair:
                        found[pair].append(find_horizon(plain, moved, exceeded[pair]))
                for trace in same_point:
                    forget(trace, folder=Path(folder))
    return {pair: min(horizons) for pair, horizons in found.items() if len(horizons) == len(pair) and all(horizons)}


def find_horizon(plain: TracedPoint, moved: Sequence[TracedPoint], exceeded: Set[str]) -> int | None:
    """The last of HORIZONS before a perturbed training has used up ONSET of a tolerance; None where that explains nothing.

    `exceeded` are the kinds of quantities in which two frameworks differ by more than is allowed: rounding explains that
    where it uses up EXPLAINS of the tolerance of each of them in one framework alone. It need not exceed them, for two
    frameworks differ in every sum, and here only the initial weights do.
    """
    if any(trace.failure for trace in (plain, *moved)):
        return None
    deviations = [deviation for trace in moved for deviation in find_deviations(plain, trace)]
    if not exceeded <= {kind_of(each) for each in deviations if not each.relative_error <= EXPLAINS * each.tolerance}:
        return None
    amplified = [each for each in deviations if not each.relative_error <= ONSET * each.tolerance]
    steps = [step_of(deviation) for deviation in amplified if kind_of(deviation) in BY_STEP]
    first = min(steps, default=len(next(iter(plain.ranks.values()))["loss"]))
    return next((horizon for horizon in HORIZONS if horizon <= first), None)


def step_of(deviation: Deviation) -> int:
    """The step of a deviation of a loss or a gradient norm, counted from 0: as many updates came before it."""
    return int(deviation.name.rpartition("/step")[2])
