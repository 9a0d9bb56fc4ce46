"""The decision rule of the gate: pairs of launches of a whole suite -> regression, pass or inconclusive. Pure.

For each metric of each point, d = ln(B/A) of every pair, positive where B is worse; and for each metric the mean of d over
the points of the suite. Regression: the corrected p-value is below the level and the estimate reaches the margin. Pass: the
interval of the suite's mean lies below the margin, and that of every point below the limit of a single point, 5/3 of the margin; with one
point the two are the same. Neither: more pairs, up to three looks, which share the level. `hvbench.comparison.gate.look` is one
look; docs/ci.md has why it is so and how often it is wrong, by `benchmarks/gate_power.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hvbench.analysis.stats.ratios import locate, sign_flip_p_value
from hvbench.comparison.gate.look import Figure, bounds_of, find_suites, look_at

LOOKS = (6, 12, 18)  # pairs
# One-sided levels of the looks. Together they are wrong in at most 2.5 %: spent about as the power 2.5 of the pairs (Kim and
# DeMets 1987, Biometrika 74:149), so that what is decided early is clear, and the last look keeps most.
LEVELS = (0.0015, 0.0065, 0.0180)
CONTROL_MARGIN = 0.01  # a control that moved by less explains no change worth calling
CALLS = ("inconclusive", "regression", "pass")
OPEN, WORSE, PASSED = range(3)  # places in CALLS


@dataclass(frozen=True, kw_only=True)
class Series(Figure):
    """One metric of one point: ln(B/A) of every pair in order, positive where B is worse."""

    worse_by: Sequence[float]
    margin_in_words: str = "the margin"


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """All looks at the pairs, as arrays (…, figures and suites): the call, and the figures of the look that it comes from."""

    calls: np.ndarray  # places in CALLS
    pairs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray


def follow(figures: Sequence[Figure], worse_by: np.ndarray, *, moved: Sequence[np.ndarray | bool] = ()) -> Course:
    """Look at `worse_by` (…, figures, pairs) wherever a look is due: what one look has decided stays decided.

    `moved`: for each look, whether the machine moved (…), which leaves timings undecided.
    """
    count = len(figures) + len(find_suites(figures))
    shape = (*worse_by.shape[:-2], count)
    is_timing = np.array([figure.is_timing for figure in figures])
    is_timing = np.append(is_timing, [is_timing[indices[0]] for indices in find_suites(figures).values()]).astype(bool)
    found = {name: np.full(shape, np.nan) for name in ("mean", "low", "high", "p_value")}
    calls, used = np.full(shape, OPEN), np.zeros(shape, dtype=int)
    for number, (look, level) in enumerate(zip(LOOKS, LEVELS, strict=True)):
        if look > worse_by.shape[-1]:
            break
        seen, is_open = look_at(figures, worse_by[..., :look], level=level), calls == OPEN
        for name, values in found.items():
            values[is_open] = getattr(seen, name)[is_open]
        used[is_open] = look
        may_decide = is_open
        if moved:
            may_decide = is_open & ~(np.asarray(moved[number])[..., None] & is_timing)
        calls = np.where(may_decide & seen.is_worse, WORSE, calls)
        calls = np.where(may_decide & ~seen.is_worse & seen.is_pass, PASSED, calls)
    return Course(calls=calls, pairs=used, **found)


def decide(series: Sequence[Series], *, controls: Mapping[str, Sequence[float]] | None = None) -> list[Decision]:
    """A decision for every series, then one for the suite's mean of every metric that two or more series have.

    `controls`: ln(B/A) pair by pair of what only the machine can move; where one did, timings are not decided.
    """
    if not series:
        return []
    shortest = min(len(each.worse_by) for each in series)
    names = [*(None for _ in series), *find_suites(series).values()]
    if shortest < LOOKS[0]:
        return [Decision("inconclusive", f"{shortest} pairs; {LOOKS[0]} are needed") for _ in names]
    worse_by = np.array([each.worse_by[:shortest] for each in series])
    rows = [*worse_by, *(worse_by[indices].mean(axis=0) for indices in names[len(series) :])]
    reached = [(look, level) for look, level in zip(LOOKS, LEVELS, strict=True) if look <= shortest]
    moved = [find_moved(controls or {}, look=look, level=level) for look, level in reached]
    course = follow(series, worse_by, moved=[bool(each) for each in moved])
    margins, limits = bounds_of(series)
    decisions = []
    for index, row in enumerate(rows):
        call, pairs = CALLS[course.calls[index]], int(course.pairs[index])
        members = [series[place] for place in names[index] or [index]]
        limit = math.expm1(limits[index]) if limits[index] > margins[index] else None
        reason = describe_call(call, margin=join_margins(members), limit=limit)
        if call == "inconclusive" and members[0].is_timing and (why := moved[LOOKS.index(pairs)]):
            reason = f"the machine moved: {why}"
        ends = [math.expm1(values[index]) for values in (course.mean, course.low, course.high)]
        decisions.append(Decision(call, reason, tuple(row[:pairs].tolist()), *ends, float(course.p_value[index])))
    return decisions


def join_margins(series: Sequence[Series]) -> str:
    """The margin of a figure, or of the mean of several, in words."""
    words = {each.margin_in_words for each in series}
    return words.pop() if len(words) == 1 else "the mean of the points' margins"


def describe_call(call: str, *, margin: str, limit: float | None) -> str:
    """Why a figure is called so; `limit`: what a single point of several may not reach, None for any other."""
    bound = margin if limit is None else f"{limit:.1%}, the limit of a single point".replace("%", " %")
    return {
        "regression": f"the interval lies above 0, and the estimate reaches {margin}",
        "pass": f"the interval lies below {bound}",
        "inconclusive": f"the interval reaches beyond {bound}",
    }[call]


def find_moved(controls: Mapping[str, Sequence[float]], *, look: int, level: float) -> str | None:
    """The control that differs between the arms clearly (at the one-sided `level`) and by at least 1 %, in words; None when none does."""
    for name, values in controls.items():
        if len(values) < look:
            continue
        place = locate(values[:look])
        change = math.expm1(place.mean)
        if abs(change) >= CONTROL_MARGIN and place.p_other_than_zero() <= 2 * level:
            direction = "slower" if change > 0 else "faster"
            return f"{name} was {abs(change) * 100:.1f} % {direction} beside B's launches than beside A's"
    return None


def is_final(decisions: Sequence[Decision], *, pairs: int) -> bool:
    """Whether no further pair can change the verdict: a regression was found, all pass, or the last look was taken."""
    calls = {decision.call for decision in decisions}
    return "regression" in calls or calls <= {"pass"} or pairs >= LOOKS[-1]
