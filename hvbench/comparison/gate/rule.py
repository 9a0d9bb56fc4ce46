"""The decision rule: pairs of launches -> regression, pass or inconclusive. Pure.

For each metric of each point, d = ln(B/A) of every pair, positive where B is worse, and Student's t interval of its
mean. Regression: the interval lies above 0 and the estimate reaches the margin. Pass: the interval lies below the
margin. Neither: more pairs, up to three looks. Looking three times at 5 % would be wrong in 11 % of all cases, so each
look has a constant, lower level (Pocock 1977, Biometrika 64:191: 2.21 % for three looks, of a known variance). With the
t interval of so few pairs that is wrong in 2.64 % on the side that matters instead of 2.5 %, by a million simulations
(`benchmarks/gate_power.py`); 2.05 % is wrong in 2.46 %. Several metrics and points: the regressions are corrected by
Holm; a pass needs every one of them to pass, and no correction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hvbench.analysis.stats.ratios import adjust_holm, locate, sign_flip_p_value

LOOKS = (6, 12, 18)  # pairs
LEVEL = 0.0205  # two-sided, of each look
CONTROL_MARGIN = 0.01  # a control that moved by less explains no change worth calling


@dataclass(frozen=True, kw_only=True)
class Series:
    """One metric of one point: ln(B/A) of every pair in order, positive where B is worse."""

    worse_by: Sequence[float]
    margin: float
    is_timing: bool = True  # a machine that moved explains it


@dataclass(frozen=True)
class Decision:
    """What the pairs say of one series. `estimate`, `low` and `high` are fractions: 0.05 is 5 % worse."""

    call: str  # regression, pass, inconclusive
    reason: str
    worse_by: tuple[float, ...] = ()  # the pairs that it rests on
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None  # one-sided

    @property
    def pairs(self) -> int:
        """How many pairs it rests on."""
        return len(self.worse_by)

    @cached_property
    def sign_flip_p_value(self) -> float | None:
        """Two-sided, of the same pairs, without the assumption of a normal distribution."""
        return sign_flip_p_value(self.worse_by) if self.worse_by else None


def decide(
    series: Sequence[Series],
    *,
    controls: Mapping[str, Sequence[float]] | None = None,
    looks: Sequence[int] = LOOKS,
    level: float = LEVEL,
) -> list[Decision]:
    """A decision for every series, look by look: what one look has decided stays decided.

    `controls`: ln(B/A) pair by pair of what only the machine can move; where one did, timings are not decided.
    """
    decisions: list[Decision | None] = [None] * len(series)
    shortest = min((len(each.worse_by) for each in series), default=0)
    reached = [look for look in looks if look <= shortest]
    last = [Decision("inconclusive", f"{len(each.worse_by)} pairs; {looks[0]} are needed") for each in series]
    for look in reached:
        moved = find_moved(controls or {}, look=look, level=level)
        places = [locate(each.worse_by[:look]) for each in series]
        adjusted = adjust_holm([place.p_above(0.0) for place in places])
        for index, (each, place) in enumerate(zip(series, places, strict=True)):
            if decisions[index]:
                continue
            estimate, low, high = (
                math.expm1(x) for x in (place.mean, place.quantile(level / 2), place.quantile(1 - level / 2))
            )
            is_worse = adjusted[index] <= level / 2 and estimate >= each.margin
            call = "regression" if is_worse else "pass" if high < each.margin else "inconclusive"
            reason = {
                "regression": "the interval lies above 0, and the estimate reaches the margin",
                "pass": "the interval lies below the margin",
                "inconclusive": "the interval reaches beyond the margin",
            }[call]
            if moved and each.is_timing:
                call, reason = "inconclusive", f"the machine moved: {moved}"
            last[index] = Decision(call, reason, tuple(each.worse_by[:look]), estimate, low, high, adjusted[index])
            if call != "inconclusive":
                decisions[index] = last[index]
    return [decision or last[index] for index, decision in enumerate(decisions)]


def find_moved(controls: Mapping[str, Sequence[float]], *, look: int, level: float = LEVEL) -> str | None:
    """The control that differs between the arms clearly and by at least 1 %, in words; None when none does."""
    for name, values in controls.items():
        if len(values) < look:
            continue
        place = locate(values[:look])
        change = math.expm1(place.mean)
        if abs(change) >= CONTROL_MARGIN and place.p_other_than_zero() <= level:
            direction = "slower" if change > 0 else "faster"
            return f"{name} was {abs(change) * 100:.1f} % {direction} beside B's launches than beside A's"
    return None


def is_final(decisions: Sequence[Decision], *, pairs: int, looks: Sequence[int] = LOOKS) -> bool:
    """Whether no further pair can change the verdict: a regression was found, all pass, or the last look was taken."""
    calls = {decision.call for decision in decisions}
    return "regression" in calls or calls <= {"pass"} or pairs >= looks[-1]
