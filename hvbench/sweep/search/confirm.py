"""What a search has found against the default: pairs of launches, each pair with a seed that the search has not seen.

The best of many trials is partly the luckiest, so its own trial says nothing of its gain. Where the machine decides, too (seconds,
joules), the two launches of a pair live at the same time and take turns, step by step; of steps, tokens and losses they follow each other.
How many pairs there are follows from the budget and not from what they say.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hvbench.analysis.stats.contrasts import Contrast, judge_family
from hvbench.analysis.stats.losses import LossContrast, judge_losses
from hvbench.plan.estimates import estimate_rank_bytes
from hvbench.plan.jobs import Job
from hvbench.plan.turns import MEMORY_SHARE, Side, Site, Turns, find_obstacle
from hvbench.records.record import Record
from hvbench.spec.point import Point
from hvbench.sweep.search.found import Pair
from hvbench.sweep.search.goals import Goal
from hvbench.sweep.search.trials import Launch

MOST_PAIRS = 18
DEFAULT, FOUND = "default", "found"


@dataclass(frozen=True, kw_only=True)
class PairTurns(Turns):
    """The two launches of a pair live at the same time and take turns, whatever framework they are of."""

    arms: Mapping[str, str]  # point_id -> name

    def side_of(self, point: Point) -> Side | None:
        """All that is launched is beside each other."""
        return (DEFAULT, FOUND)

    def arm_of(self, point: Point) -> str | None:
        """Whether it is the default or what was found."""
        return self.arms[point.point_id]

    def unit_of(self, point: Point) -> Point:
        """Itself."""
        return point

    def arrange(self, jobs: Sequence[Job]) -> list[Job]:
        """As they are."""
        return list(jobs)

    def number_places(self, jobs: Sequence[Job]) -> dict[str, int]:
        """The pairs find each other by their number."""
        return {job.key: job.repeat for job in jobs}


def choose_turns(goal: Goal, default: Point, found: Point, site: Site) -> Turns:
    """How the launches of a pair run: in turns where the machine decides and where that is possible, else one after the other."""
    points = [default, found]
    needed = sum((point.world_size or 1) * estimate_rank_bytes(point) for point in points)
    obstacle = find_obstacle(points, is_single_host=site.is_single_host, has_gpu=site.has_gpu)
    if (
        not goal.is_of_machine
        or obstacle
        or any(point.needs_mpirun for point in points)
        or needed > MEMORY_SHARE * site.memory_bytes
    ):
        return Turns()
    return PairTurns(arms={default.point_id: DEFAULT, found.point_id: FOUND})


def list_pairs(default: Point, found: Point) -> Iterator[tuple[Job, Job]]:
    """Launches of both points with the same seeds, none of which a search has seen: it has launched repeat 0."""
    for repeat in itertools.count(1):
        yield Job(point=default, repeat=repeat), Job(point=found, repeat=repeat)


def launch_pairs(
    offered: Iterable[tuple[Job, Job]],
    launch: Launch,
    *,
    value_of: Callable[[Record], float | None],
    recorded: Mapping[str, Record],
    pairs: int,
    rest_seconds: float,
    seed: int = 0,
    on_pair: Callable[[Pair], None] = lambda pair: None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Pair]:
    """Launch pairs, at least so many and then as many as fit into the rest of the budget. Raises HvbenchError.

    Args:
        offered: launches of the default and of what was found, without end.
        launch: runs the two jobs of a pair.
        value_of: what a launch came to; None: it says nothing.
        recorded: of earlier sessions, by key; a pair of which only one launch is recorded is left out, and the next one takes its place.
        pairs: the least number.
        rest_seconds: of the budget.
        seed: of which launch of a pair goes first.
        on_pair: is called with each pair.
        clock: of the budget.
    """
    begun = clock()
    kept: list[Pair] = []
    launched = 0
    random = np.random.default_rng(seed)
    orders = [is_found_first for _ in range(MOST_PAIRS // 2) for is_found_first in random.permutation([False, True])]
    for jobs in offered:
        known = {job.key: recorded[job.key] for job in jobs if job.key in recorded}
        if len(known) == 1:
            continue
        if not known:
            spent = clock() - begun
            if len(kept) >= pairs and spent + spent / max(1, launched) > rest_seconds:
                break
            order = jobs[::-1] if orders[launched] else jobs
            launch(order, lambda job, record, known=known: known.__setitem__(job.key, record))
            launched += 1
        values = [value_of(known[job.key]) if job.key in known else None for job in jobs]
        kept.append(Pair(default=values[0], found=values[1]))
        on_pair(kept[-1])
        if len(kept) == MOST_PAIRS:
            break
    return kept


def judge(pairs: Sequence[Pair], goal: Goal) -> Contrast | LossContrast | None:
    """Found over default, or the difference of losses, by the one rule; None where a launch did not get there."""
    values = [(pair.default, pair.found) for pair in pairs]
    if not values or any(None in each for each in values):
        return None
    if goal.name != "loss":
        logs = [math.log(found / default) for default, found in values]
        return judge_family([logs]).contrasts[0]
    sides = (dict(enumerate(found for _, found in values)), dict(enumerate(default for default, _ in values)))
    return judge_losses([sides]).contrasts[0]
