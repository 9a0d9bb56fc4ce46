"""The parity stamp: before a sweep compares frameworks, both train a few updates of every configuration and must agree.

A configuration is everything of a point but its framework. What the check found goes into every record of it; what it
could not find out, and why, goes there too, for a check that fails costs no measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from hvbench.launch.coordinator import Coordinator
from hvbench.parity.compare import Deviation, worst, worst_by_kind
from hvbench.parity.horizon import prove_pairs
from hvbench.parity.pairs import Parity, PointPair
from hvbench.parity.run import Limits
from hvbench.parity.tolerances import check_updates
from hvbench.plan.jobs import Plan
from hvbench.records.record import ParityStamp, finite_or_none
from hvbench.registry import FRAMEWORKS
from hvbench.spec.labels import configuration_name, distinguish
from hvbench.spec.point import Point, in_framework

MAX_PROBLEM = 500  # characters


def find_pairs(plan: Plan) -> list[PointPair]:
    """Pairs of points, one configuration in two frameworks each, of which at least one is still to be run.

    The first framework is paired with each of the others. Points whose runs cannot be repeated (updates of an
    asynchronous parameter server depend on which rank comes first) are left out.
    """
    running = {job.point for job in plan.jobs if job.point.is_repeatable}
    known = running | {job.point for job in plan.done}
    pairs: list[PointPair] = []
    for point in (job.point for job in [*plan.jobs, *plan.done]):
        found = list(dict.fromkeys(each for name in FRAMEWORKS if (each := in_framework(point, name)) in known))
        pairs += [(found[0], other) for other in found[1:]]
    return [pair for pair in dict.fromkeys(pairs) if running.intersection(pair)]


def stamp_plan(
    coordinator: Coordinator, plan: Plan, *, limits: Limits, report: Callable[[str], None]
) -> dict[Point, ParityStamp]:
    """Check every pair that `find_pairs` names, and return the stamp of each of their points.

    `report` is called with a line as the check goes on, and at its end with the result. Raises LaunchError when ranks
    are lost.
    """
    pairs = find_pairs(plan)
    if not pairs:
        return {}
    checked = share_checks(pairs)
    parities: list[Parity] = []
    for updates in dict.fromkeys(check_updates(pair[0]) for pair in pairs):
        same = [pair for pair in dict.fromkeys(checked.values()) if check_updates(pair[0]) == updates]
        parities += prove_pairs(coordinator, same, steps=updates, limits=limits, report=report)
    report(describe_parities(parities))
    stamps = make_stamps(parities)
    return {point: stamps[tested] for pair in pairs for point, tested in zip(pair, checked[pair], strict=True)}


def share_checks(pairs: Sequence[PointPair]) -> dict[PointPair, PointPair]:
    """Pair -> the pair that is checked in its place: of those that differ only in the link's speed, the fastest.

    A slower link changes no value.
    """

    def without_link(pair: PointPair) -> PointPair:
        return tuple(point.model_copy(update={"link_bits_per_second": None}) for point in pair)

    by_link = sorted(pairs, key=lambda pair: pair[0].link_bits_per_second or math.inf)
    fastest = {without_link(pair): pair for pair in by_link}
    return {pair: fastest[without_link(pair)] for pair in pairs}


def make_stamps(parities: Iterable[Parity]) -> dict[Point, ParityStamp]:
    """Point -> its stamp; of a point that was compared more than once, the one that is not proven."""
    stamps: dict[Point, ParityStamp] = {}
    for parity in parities:
        for point, counterpart, overflows in zip(parity.points, parity.points[::-1], parity.overflows, strict=True):
            if point not in stamps or stamps[point].is_proven:
                stamps[point] = make_stamp(parity, counterpart=counterpart.framework, overflows=overflows)
    return stamps


def make_stamp(parity: Parity, *, counterpart: str, overflows: int) -> ParityStamp:
    """The figures of one comparison as a record keeps them; a figure that is not finite becomes None."""
    closest = worst(parity.deviations) if parity.deviations else None
    kinds = worst_by_kind(parity.deviations)
    figures: dict[str, float | None] = {}
    for kind in ("logits", "loss", "gradient", "update"):
        figures[f"{kind}_relative_error"] = finite_or_none(kinds[kind].relative_error) if kind in kinds else None
        figures[f"{kind}_tolerance"] = kinds[kind].tolerance if kind in kinds else None
    return ParityStamp(
        is_proven=parity.is_proven,
        counterpart=counterpart,
        updates=parity.updates,
        **figures,
        overflows=overflows,
        worst=closest.name if closest else None,
        worst_relative_error=finite_or_none(closest.relative_error) if closest else None,
        worst_tolerance=closest.tolerance if closest else None,
        problem=parity.problem[:MAX_PROBLEM] if parity.problem else None,
    )


def describe_parities(parities: Sequence[Parity]) -> str:
    """One line for all configurations."""
    red = [parity for parity in parities if not parity.is_proven]
    if not red:
        closest = worst([each for parity in parities for each in parity.deviations])
        return (
            f"parity done: {name_all(parities)} do the same work in {count(parities)}, over "
            f"{describe_updates(parities)}; closest to its tolerance: {describe_deviation(closest)}"
        )
    different = [parity for parity in red if parity.is_compared]
    said = [f"NOT proven for {len(different)} of {count(parities)}"] if different else []
    if left := len(red) - len(different):
        said.append(f"{left} of {count(parities)} could not be compared")
    worst_one = (different or red)[0]
    first = describe_deviation(worst(worst_one.deviations)) if different else worst_one.problem or "nothing was left"
    point = worst_one.points[0]
    name = configuration_name(point) + distinguish(parity.points[0] for parity in parities)[point]
    return f"parity done: {', '.join(said)}; {name}: {first}"


def describe_updates(parities: Sequence[Parity]) -> str:
    """`20 updates`; beside that, how many were compared over fewer, and why."""
    usual = [parity.updates for parity in parities if not parity.horizon]
    fewer = [parity.updates for parity in parities if parity.horizon]
    because = (
        f"{min(fewer)} updates at least in {len(fewer)}, where a last bit becomes more than rounding after them"
        if fewer
        else ""
    )
    return ", ".join([*([f"{min(usual)} updates"] if usual else []), *([because] if fewer else [])])


def describe_deviation(deviation: Deviation) -> str:
    """`NAME 1.2e-07 (allowed 5e-07)`."""
    return f"{deviation.name} {deviation.relative_error:.1e} (allowed {deviation.tolerance:.0e})"


def count(parities: Sequence[Parity]) -> str:
    """`1 configuration`, `8 configurations`; `8 comparisons` where some configuration was compared more than once."""
    thing = "configuration" if len({parity.points[0] for parity in parities}) == len(parities) else "comparison"
    return f"{len(parities)} {thing}{'s' * (len(parities) != 1)}"


def name_all(parities: Sequence[Parity]) -> str:
    """`both frameworks`, or how many."""
    number = len({point.framework for parity in parities for point in parity.points})
    return "both frameworks" if number == 2 else f"all {number} frameworks"
