"""One look at the pairs of a suite: arrays of ln(B/A) -> estimates, intervals, and which figures are worse or pass. Pure.

Everything is an array whose last axis is the figures, then the means of the suite, one a metric (`find_suites`); axes
before are independent decisions, so that a study decides thousands at once by the rule that `hvbench ab` ships.

A figure's error comes from its own spread moderated by those of the same metric's other points (`analysis.stats.moderated`), and
its own spread alone is held against it as well, at `OWN_SHARE` times the level: a point that is noisier than its
neighbours is not judged by theirs. The mean of the suite is taken pair by pair, so what is common to the points of a pair is in its error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from hvbench.analysis.stats.moderated import moderate
from hvbench.analysis.stats.ratios import adjust_holm_rows

POINT_LIMIT = 5 / 3  # margins: what no single point of several may reach, so 5 % at a margin of 3 %
OWN_SHARE = 2.0  # levels at which a figure's own spread, unmoderated, has to agree
NOISE_REACH = (
    10.0  # standard errors; a margin farther away is not reached by noise, and such a figure costs the others no level
)
LEAST_SPREAD = 1e-6  # of ln(B/A): values that are all the same are known this well, no better


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What is known of one metric of one point before any pair."""

    margin: float  # a change that is smaller is none; 0.03 is 3 %
    metric: str = ""  # figures of one metric have a mean of the suite, and spreads that may be pooled
    is_timing: bool = True  # a machine that moved explains it
    is_in_mean: bool = True  # an accepted change is left out of the mean of the suite
    resolution: float = LEAST_SPREAD  # of ln(B/A), below which values of the metric cannot differ


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """Arrays (…, figures and suites); `mean`, `low` and `high` are of ln(B/A), positive where B is worse."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray  # one-sided, corrected (Holm)
    is_worse: np.ndarray
    is_pass: np.ndarray


def find_suites(figures: Sequence[Figure]) -> dict[str, list[int]]:
    """Metric -> the figures that its mean over the suite is of, where they are two or more."""
    members: dict[str, list[int]] = {}
    for index, figure in enumerate(figures):
        if figure.is_in_mean:
            members.setdefault(figure.metric, []).append(index)
    return {metric: indices for metric, indices in members.items() if len(indices) > 1}


def look_at(figures: Sequence[Figure], worse_by: np.ndarray, *, level: float) -> Look:
    """Decide on `worse_by` (…, figures, pairs) at a one-sided `level`, that of this look."""
    pairs, suites = worse_by.shape[-1], find_suites(figures)
    margins, limits = bounds_of(figures)
    means = [worse_by[..., indices, :].mean(axis=-2, keepdims=True) for indices in suites.values()]
    rows = np.concatenate([worse_by, *means], axis=-2)
    floors = [figure.resolution for figure in figures]
    floors += [np.mean([figures[index].resolution for index in indices]) for indices in suites.values()]
    variances = np.maximum(rows.var(axis=-1, ddof=1), np.square(floors))
    moderated, freedom = variances.copy(), np.full(variances.shape, pairs - 1.0)
    for metric in dict.fromkeys(figure.metric for figure in figures):
        same = [index for index, figure in enumerate(figures) if figure.metric == metric]
        moderated[..., same], freedom[..., same] = moderate(variances[..., same], freedom=pairs - 1)
    mean = rows.mean(axis=-1)
    errors = [(np.sqrt(moderated / pairs), freedom, 1.0), (np.sqrt(variances / pairs), pairs - 1.0, OWN_SHARE)]
    p_value = np.max([special.stdtr(f, -mean / error) / share for error, f, share in errors], axis=0)
    width = np.max([error * special.stdtrit(f, 1 - min(0.5, level * share)) for error, f, share in errors], axis=0)
    within_reach = margins < NOISE_REACH * np.maximum(errors[0][0], errors[1][0])
    adjusted = adjust_holm_rows(p_value, within_reach)
    return Look(
        mean=mean,
        low=mean - width,
        high=mean + width,
        p_value=adjusted,
        is_worse=(adjusted <= level) & (mean >= margins),
        is_pass=mean + width < limits,
    )


def bounds_of(figures: Sequence[Figure]) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms (figures and suites): the change that counts, and the one that a pass has to exclude."""
    suites = find_suites(figures)
    in_suites = {index for indices in suites.values() for index in indices}
    margins = [figure.margin for figure in figures]
    limits = [margin * (POINT_LIMIT if index in in_suites else 1.0) for index, margin in enumerate(margins)]
    of_suites = [np.mean(np.log1p([margins[index] for index in indices])) for indices in suites.values()]
    return np.append(np.log1p(margins), of_suites), np.append(np.log1p(limits), of_suites)
