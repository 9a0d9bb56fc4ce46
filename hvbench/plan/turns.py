"""Which points are measured side by side: the workers of all frameworks live at the same time and take turns, step by step.

Launches that follow each other see two machines where a machine is shared: they differ by 10 to 30 %, in turns by 2 to 5 %.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hvbench.errors import UsageError
from hvbench.launch.turns import VARIABLE
from hvbench.plan.estimates import estimate_rank_bytes
from hvbench.plan.jobs import Job, worker_group
from hvbench.plan.skip import has_gpu
from hvbench.records.environment import usable_memory_bytes
from hvbench.registry import FIRST, describe_framework
from hvbench.spec.point import Point, in_framework
from hvbench.spec.settings import MeasureSettings

MEMORY_SHARE = 0.9  # of the host's, that the workers of all frameworks may need: the estimate is right within 10 %

Side = tuple[Any, ...]  # what points share that could share workers but for their framework


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a sweep runs, as far as turns depend on it."""

    is_single_host: bool
    memory_bytes: int  # for all processes of the host
    has_gpu: bool
    is_arm: bool = False  # of `hvbench ab`, which lets its arms take turns, or none


@dataclass(frozen=True, kw_only=True)
class Turns:
    """What of a sweep takes turns."""

    sides: frozenset[Side] = frozenset()
    line: str | None = None  # how the frameworks are measured, for a person; None: there is one framework

    def side_of(self, point: Point) -> Side | None:
        """What points whose workers live at the same time as this one's share; None: its workers live alone."""
        side = side_of(point)
        return side if side in self.sides else None

    def arm_of(self, point: Point) -> str | None:
        """The name by which its workers take turns; None: their framework's."""
        return None

    def unit_of(self, point: Point) -> Point:
        """The same for points that are only launched together: those of all frameworks that take turns at one configuration."""
        return point if self.side_of(point) is None else configuration_of(point)

    def arrange(self, jobs: Sequence[Job]) -> list[Job]:
        """`jobs` in running order: those whose workers live at the same time together, one configuration after the other."""
        stretches: dict[tuple[Any, ...], dict[Point, list[Job]]] = {}
        for job in jobs:
            side = self.side_of(job.point)
            stretch = (job.repeat, worker_group(job.point)) if side is None else (job.repeat, None, side)
            stretches.setdefault(stretch, {}).setdefault(self.unit_of(job.point), []).append(job)
        return [job for stretch in stretches.values() for same in stretch.values() for job in same]

    def number_places(self, jobs: Sequence[Job]) -> dict[str, int]:
        """Key of each job that takes turns -> a number by which frameworks find each other, rising in running order."""
        numbers: dict[tuple[int, Point], int] = {}
        return {
            job.key: numbers.setdefault((job.repeat, configuration_of(job.point)), len(numbers))
            for job in jobs
            if self.side_of(job.point) is not None
        }


def describe_site(*, is_single_host: bool) -> Site:
    """This host, on which all ranks run or not."""
    return Site(
        is_single_host=is_single_host,
        memory_bytes=usable_memory_bytes(),
        has_gpu=has_gpu(),
        is_arm=VARIABLE in os.environ,
    )


def takes_turns_with_other_arm() -> bool:
    """Whether this sweep is an arm of `hvbench ab` that takes turns with the other; the variable is empty for arms that do not."""
    return bool(os.environ.get(VARIABLE))


def decide_turns(points: Sequence[Point], settings: MeasureSettings, site: Site, *, where: str) -> Turns:
    """Which of `points` (with a resolved world size) are measured side by side, as `settings.turns` asks for and `site` allows.

    `where` names the suite. Raises UsageError where turns are asked for and cannot be taken.
    """
    by_side: dict[Side, list[Point]] = {}
    for point in dict.fromkeys(points):
        by_side.setdefault(side_of(point), []).append(point)
    several = {side: same for side, same in by_side.items() if len({point.framework for point in same}) > 1}
    if not several or site.is_arm:
        return Turns()
    obstacles = {side: obstacle for side, same in several.items() if (obstacle := find_obstacle_to_turns(same, site))}
    if settings.turns is False:
        obstacles = dict.fromkeys(several, "turns = false")
    elif settings.turns is True and obstacles:
        reason = next(iter(obstacles.values()))
        raise UsageError(f"{where}: turns = true, but {reason}; with turns = auto such points run one after the other")
    together = frozenset(several.keys() - obstacles.keys())
    alone = Counter({reason: 0 for reason in obstacles.values()})
    for side, reason in obstacles.items():
        alone[reason] += len(several[side])
    names = [describe_framework(name).title for name in dict.fromkeys(point.framework for point in points)]
    return Turns(sides=together, line=describe_turns(names, has_turns=bool(together), alone=alone))


def side_of(point: Point) -> Side:
    """What points share that could share workers but for their framework."""
    return worker_group(point.model_copy(update={"framework": FIRST}))


def configuration_of(point: Point) -> Point:
    """The same for the points of all frameworks at one configuration."""
    return in_framework(point, FIRST)


def find_obstacle_to_turns(points: Sequence[Point], site: Site) -> str | None:
    """Why the workers of `points`, of several frameworks, cannot take turns in a sweep; None when they can."""
    if reason := find_obstacle(points, is_single_host=site.is_single_host, has_gpu=site.has_gpu):
        return reason
    if any(point.needs_mpirun for point in points):
        return "workers that mpirun starts take no turns"
    needed = sum(
        max((point.world_size or 1) * estimate_rank_bytes(point) for point in points if point.framework == framework)
        for framework in dict.fromkeys(point.framework for point in points)
    )
    if needed > MEMORY_SHARE * site.memory_bytes:
        sizes = f"about {needed / 2**30:.1f} GiB of this host's {site.memory_bytes / 2**30:.1f} GiB"
        return f"the workers of all frameworks at the same time should need {sizes}"
    return None


def find_obstacle(points: Sequence[Point], *, is_single_host: bool, has_gpu: bool) -> str | None:
    """Why launches of `points` cannot take turns, whoever starts them; None when they can."""
    if not is_single_host:
        return "their ranks are on several hosts"
    if any(point.is_served for point in points):
        return "a parameter server takes no turns"
    if has_gpu and any(point.device != "cpu" for point in points):
        return "both would need the GPU's memory at the same time"
    return None


def describe_turns(names: Sequence[str], *, has_turns: bool, alone: Counter[str]) -> str:
    """How the frameworks `names` are measured, in one line; `alone`: reason -> points that run one after the other."""
    reasons = "; ".join(f"{count} points: {reason}" if has_turns else reason for reason, count in alone.items())
    if not has_turns:
        return f"the frameworks are measured one after the other: {reasons}"
    but = f", but for {reasons}" if reasons else ""
    return (
        f"{' and '.join(names)} are measured side by side: they live at the same time and take turns, step by step{but}"
    )
