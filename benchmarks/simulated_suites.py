"""Pairs of a whole suite, simulated or drawn from recorded ones -> verdicts of the gate as it ships.

`count_verdicts` decides thousands of suites at once by `hvbench.comparison.gate.rule.follow`, which `hvbench ab` calls for one.
`judge_suite` makes one decision the long way: a comparison, the default policy, `judge_pairs` at each look, the exit code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from hvbench.analysis.frame.metrics import HUGE_PAGE_BYTES, METRICS, STEP
from hvbench.analysis.stats.estimates import Estimate
from hvbench.analysis.stats.ratios import ratio_of_pairs
from hvbench.comparison.gate.checks import Terms
from hvbench.comparison.gate.judge import judge_pairs, make_series
from hvbench.comparison.gate.judgement import Judgement
from hvbench.comparison.gate.policy import Policy
from hvbench.comparison.gate.rule import CALLS, LOOKS, OPEN, PASSED, WORSE, follow
from hvbench.comparison.result import Change, Comparison, PointComparison

MEMORY = "peak_rss_bytes"
CENTRES = {STEP: 0.01, MEMORY: 500e6}  # a step of 10 ms and a process of 500 MB: the gate looks at ratios alone
MEMORY_SPREADS = (0.0007, 0.0003)  # of ln(B/A), as recorded: common to the points of a pair, and of each point
SMALL_SPREAD_BYTES = 0.15 * 2**20  # of the peak of a process of 39 MiB, as recorded, launch by launch
HUGE_PAGE_SHARE = 0.25  # of launches, assumed: those that the kernel gives a page of 2 MiB where others have small ones
BY_NAME = {metric.name: metric for metric in METRICS}
TERMS = Terms(policy=Policy(), suite="study", against="arm a", today="2026-01-01")
Noise = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]

# (decisions, points, pairs) of standard deviation 1 where the points have one in common: what a suite may be made of.


def normal(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """What the rule assumes."""
    return random.standard_normal((*shape, LOOKS[-1]))


def heavy_tails(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Student's t with 4 degrees of freedom."""
    return random.standard_t(4, (*shape, LOOKS[-1])) / math.sqrt(2)


def two_spreads(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Every other point three times as noisy as its neighbours."""
    return normal(random, shape) * np.where(np.arange(shape[1]) % 2, 0.5, 1.5)[:, None]


def one_noisy(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """One point three times as noisy as all others."""
    return normal(random, shape) * np.where(np.arange(shape[1]), 1.0, 3.0)[:, None]


def one_noisier(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """One point 1.6 times as noisy as all others: too little to be seen in 18 pairs."""
    return normal(random, shape) * np.where(np.arange(shape[1]), 1.0, 1.6)[:, None]


def scattered_spreads(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Every point with a spread of its own, log-normal."""
    return normal(random, shape) * np.exp(random.normal(0, 0.4, (*shape, 1)))


def common_noise(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Half of the variance is common to the points of a pair."""
    return (normal(random, shape) + random.standard_normal((shape[0], 1, LOOKS[-1]))) / math.sqrt(2)


def drift(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """The machine drifts under both arms, as an autoregressive line (0.9); each pair's arms, drawn AB or BA, see two places of it."""
    line = np.empty((shape[0], 2 * LOOKS[-1]))
    line[:, 0] = random.standard_normal(shape[0])
    for place in range(1, line.shape[1]):
        line[:, place] = 0.9 * line[:, place - 1] + math.sqrt(1 - 0.9**2) * random.standard_normal(shape[0])
    signs = np.where(random.random((shape[0], LOOKS[-1])).argsort(axis=1) % 2, 1.0, -1.0)
    moved = (line[:, 1::2] - line[:, ::2]) * signs
    return normal(random, shape) * math.sqrt(0.8) + moved[:, None, :]


def quiet_and_noisy_pairs(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Some pairs are noisier than others, at all points."""
    return normal(random, shape) * np.exp(random.normal(0, 0.5, (shape[0], 1, LOOKS[-1])))


NOISES: dict[str, Noise] = {
    "normal": normal,
    "heavy tails (t, 4 degrees of freedom)": heavy_tails,
    "every other point three times as noisy": two_spreads,
    "one point three times as noisy": one_noisy,
    "one point 1.6 times as noisy": one_noisier,
    "every point with a spread of its own": scattered_spreads,
    "half of the noise common to a pair's points": common_noise,
    "a drift under both arms": drift,
    "some pairs noisier than others": quiet_and_noisy_pairs,
}


def draw_memory(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """ln(B/A) of peak memory of equal arms, (decisions, points, pairs)."""
    common, own = MEMORY_SPREADS
    return normal(random, (shape[0], 1)) * common + normal(random, shape) * own


def draw_small_memory(
    random: np.random.Generator, shape: tuple[int, int], *, peak_bytes: float, growth_bytes: float = 0.0
) -> np.ndarray:
    """ln(B/A) of the peak memory of processes of `peak_bytes`, B's larger by `growth_bytes`, (decisions, points, pairs)."""

    def draw(centre: float) -> np.ndarray:
        own = SMALL_SPREAD_BYTES * normal(random, shape)
        return centre + own + HUGE_PAGE_BYTES * (random.random(own.shape) < HUGE_PAGE_SHARE)

    return np.log(draw(peak_bytes + growth_bytes) / draw(peak_bytes))


def make_comparison(values: Mapping[str, np.ndarray], *, peak_bytes: float = CENTRES[MEMORY]) -> Comparison:
    """A comparison whose points have these pairs: metric -> (points, pairs) of ln(B/A). `peak_bytes`: of a process."""
    count = len(next(iter(values.values())))
    points = []
    for index in range(count):
        changes = []
        for name, rows in values.items():
            typical = (CENTRES | {MEMORY: peak_bytes})[name]
            centre = Estimate(centre=typical, low=None, high=None, n=rows.shape[1])
            pairs = tuple(map(float, rows[index]))
            change = Change(metric=BY_NAME[name], a=centre, b=centre, ratio=ratio_of_pairs(pairs), worse_by=pairs)
            changes.append(change)
        label = f"point {index}"
        points.append(
            PointComparison(
                label=label,
                arm_a="a",
                arm_b="b",
                point_ids=(label, label),
                changes=tuple(changes),
                loss=None,
                differences={},
            )
        )
    return Comparison(arms=("a", "b"), joined_over=(), points=tuple(points), missing=())


def judge_suite(
    values: Mapping[str, np.ndarray],
    *,
    controls: Mapping[str, Sequence[float]] | None = None,
    peak_bytes: float = CENTRES[MEMORY],
) -> Judgement:
    """The verdict of the gate on one suite, as `hvbench ab` comes to it: look by look, until it is final."""
    most = next(iter(values.values())).shape[1]
    for look in [look for look in LOOKS if look <= most]:
        comparison = make_comparison({name: rows[:, :look] for name, rows in values.items()}, peak_bytes=peak_bytes)
        seen = {name: each[:look] for name, each in (controls or {}).items()}
        judgement = judge_pairs(comparison, TERMS, pairs=look, controls=seen)
        if judgement.is_final:
            break
    return judgement


def count_verdicts(values: Mapping[str, np.ndarray], *, peak_bytes: float = CENTRES[MEMORY]) -> dict[str, Any]:
    """How often suites end in each verdict, with Wilson's 95 % intervals: metric -> (decisions, points, pairs) of ln(B/A)."""
    points = make_comparison({name: rows[0] for name, rows in values.items()}, peak_bytes=peak_bytes).points
    names = list(values)
    series = [make_series(point, point.changes[at], TERMS) for at in range(len(names)) for point in points]
    course = follow(series, np.concatenate([values[name] for name in names], axis=1))
    is_worse, is_pass = (course.calls == WORSE).any(axis=-1), (course.calls == PASSED).all(axis=-1)
    verdicts = np.where(is_worse, WORSE, np.where(is_pass, PASSED, OPEN))
    first_worse = np.where(course.calls == WORSE, course.pairs, LOOKS[-1]).min(axis=-1)
    used = np.where(is_worse, first_worse, np.where(is_pass, course.pairs.max(axis=-1), LOOKS[-1]))
    row: dict[str, Any] = {"decisions": len(verdicts), "mean_pairs": float(used.mean())}
    for place, call in enumerate(CALLS):
        hits = int((verdicts == place).sum())
        ends = scipy_stats.binomtest(hits, len(verdicts)).proportion_ci(0.95, method="wilson")
        row |= {call: hits / len(verdicts), f"{call}_low": float(ends.low), f"{call}_high": float(ends.high)}
    return row


def verdicts_one_by_one(
    values: Mapping[str, np.ndarray], *, count: int, peak_bytes: float = CENTRES[MEMORY]
) -> list[tuple[str, int]]:
    """Verdict and pairs of the first suites, each judged by `judge_suite`."""
    suites = [{name: rows[index] for name, rows in values.items()} for index in range(count)]
    judged = [judge_suite(suite, peak_bytes=peak_bytes) for suite in suites]
    return [(str(judgement.verdict), judgement.launches) for judgement in judged]
