"""Two sets of launches -> their ratio, with an interval and two p-values; and corrections for looking at many ratios.

Ratios of rates and durations are compared on the log scale, where A/B and B/A say the same. The unit of evidence is a
launch. Launches that were interleaved are compared pair by pair, others as two independent samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy import stats as scipy_stats

from hvbench.analysis.stats.confidence import CONFIDENCE

EXACT_FLIPS = 18  # pairs; 2^18 sign patterns are looked at one by one, more are sampled
SAMPLED_FLIPS = 9_999
MOST_VALUES = 1_000  # a side of a shift; of more, as many quantiles


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """B over A: geometric mean of the ratio, its interval and two-sided p-values where launches are enough."""

    ratio: float
    low: float | None
    high: float | None
    n_a: int
    n_b: int
    is_paired: bool
    p_value: float | None
    sign_flip_p_value: float | None = None
    confidence: float = CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Location:
    """Mean of a normal sample: estimate, standard error and degrees of freedom (0: unknown)."""

    mean: float
    error: float
    freedom: float

    def quantile(self, probability: float) -> float:
        """Bound below which the true mean lies with `probability` (Student's t)."""
        return self.mean + self.error * float(special.stdtrit(self.freedom, probability)) if self.error else self.mean

    def p_above(self, bound: float) -> float:
        """One-sided p-value of "the true mean is at most `bound`"."""
        if self.error == 0:
            return 0.0 if self.mean > bound else 1.0
        return float(special.stdtr(self.freedom, (bound - self.mean) / self.error))

    def p_other_than_zero(self) -> float:
        """Two-sided p-value of "the true mean is 0"."""
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return 2 * float(special.stdtr(self.freedom, -abs(self.mean) / self.error))


def locate(differences: Sequence[float]) -> Location:
    """Student's one-sample location of `differences`; ValueError on fewer than two."""
    sample = np.asarray(differences, dtype=float)
    if sample.size < 2:
        raise ValueError(f"a location needs two values, found {sample.size}")
    return Location(mean=_mean(sample), error=_error(sample), freedom=float(sample.size - 1))


def locate_difference(a: Sequence[float], b: Sequence[float]) -> Location:
    """mean(b) - mean(a) of independent samples of unequal variance (Welch 1947, Satterthwaite's freedom)."""
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if min(first.size, second.size) < 2:
        raise ValueError(f"a difference needs two values a side, found {first.size} and {second.size}")
    squares = [_error(sample) ** 2 for sample in (first, second)]
    total = sum(squares)
    parts = sum(square**2 / (sample.size - 1) for square, sample in zip(squares, (first, second), strict=True))
    freedom = total**2 / parts if parts else float(first.size + second.size - 2)
    return Location(mean=_mean(second) - _mean(first), error=math.sqrt(total), freedom=freedom)


def paired_ratio(a: Sequence[float], b: Sequence[float], *, confidence: float = CONFIDENCE) -> Ratio:
    """Interleaved launches, `a[i]` and `b[i]` being one pair: paired t on ln(b/a), exact sign-flip beside it."""
    return ratio_of_pairs(log_ratios(a, b), confidence=confidence)


def ratio_of_pairs(differences: Sequence[float], *, confidence: float = CONFIDENCE) -> Ratio:
    """The same from the pairs' ln(b/a)."""
    n = len(differences)
    if n == 1:
        return Ratio(ratio=math.exp(differences[0]), low=None, high=None, n_a=1, n_b=1, is_paired=True, p_value=None)
    found = _ratio(locate(differences), n_a=n, n_b=n, is_paired=True, confidence=confidence)
    return Ratio(**{**vars(found), "sign_flip_p_value": sign_flip_p_value(differences)})


def welch_ratio(a: Sequence[float], b: Sequence[float], *, confidence: float = CONFIDENCE) -> Ratio:
    """Ratio of launches that were not interleaved: Welch's t on the logarithms."""
    logs = [np.log(_require_positive(values)) for values in (a, b)]
    if min(len(a), len(b)) < 2:
        ratio = math.exp(logs[1].mean() - logs[0].mean())
        return Ratio(ratio=ratio, low=None, high=None, n_a=len(a), n_b=len(b), is_paired=False, p_value=None)
    return _ratio(locate_difference(*logs), n_a=len(a), n_b=len(b), is_paired=False, confidence=confidence)


def log_ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """ln(b/a) of every pair. ValueError on values <= 0 or lists of different length."""
    if len(a) != len(b) or not len(a):
        raise ValueError(f"pairs need two lists of the same length, found {len(a)} and {len(b)}")
    return (np.log(_require_positive(b)) - np.log(_require_positive(a))).tolist()


def log_shift(a: Sequence[float], b: Sequence[float]) -> float:
    """ln of the factor by which `b` is longer than `a`: the median over all i, j of ln(b[j] / a[i]) (Hodges & Lehmann 1963).

    Of samples that scatter to one side, as steps do, it is known better than the ratio of their medians. ValueError on values <= 0.
    """
    samples = [np.log(_require_positive(values)) for values in (a, b)]
    even = [np.quantile(each, np.linspace(0, 1, MOST_VALUES)) if each.size > MOST_VALUES else each for each in samples]
    return float(np.median(np.subtract.outer(even[1], even[0])))


def log_shift_of_pairs(a: Sequence[float], b: Sequence[float]) -> float:
    """The same of values measured in pairs: the median over all i <= j of the mean of ln(b[i] / a[i]) and ln(b[j] / a[j]).

    ValueError on values <= 0, or on sides of different lengths.
    """
    first, second = (np.log(_require_positive(values)) for values in (a, b))
    ratios = second - first
    if ratios.size > MOST_VALUES:
        ratios = np.quantile(ratios, np.linspace(0, 1, MOST_VALUES))
    return float(np.median((np.add.outer(ratios, ratios) / 2)[np.triu_indices(ratios.size)]))


def sign_flip_p_value(differences: Sequence[float]) -> float:
    """Two-sided p-value of the mean under random signs (Fisher's randomisation test), exact up to 18 pairs.

    It assumes nothing of the distribution but symmetry about 0, and with n pairs it cannot be less than 2^(1-n).
    """
    sample = np.asarray(differences, dtype=float)
    if sample.size > EXACT_FLIPS:
        result = scipy_stats.permutation_test(
            (sample,), np.mean, permutation_type="samples", n_resamples=SAMPLED_FLIPS, vectorized=True,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        return float(result.pvalue)
    sums = np.zeros(1)
    for value in np.abs(sample):
        sums = np.concatenate([sums + value, sums - value])
    observed = abs(float(sample.sum()))
    # Sums of the same numbers in another order differ by rounding.
    return float(np.mean(np.abs(sums) >= observed - 1e-12 * float(np.abs(sample).sum())))


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the order given (Holm 1979): one family in 20 has a wrong call at 5 %."""
    values = np.asarray(p_values, dtype=float)
    return adjust_holm_rows(values, np.ones(values.shape, dtype=bool)).tolist()


def adjust_holm_rows(p_values: np.ndarray, is_member: np.ndarray, unseen: np.ndarray | int = 0) -> np.ndarray:
    """The same row by row, arrays (…, p-values): only members count and are corrected; the others stay as they are.

    `unseen` (…, 1): how many more p-values belong to the family, of which nothing is known; none of them is taken for small.
    """
    order = np.argsort(np.where(is_member, p_values, np.inf), axis=-1, kind="stable")
    left = is_member.sum(axis=-1, keepdims=True) - np.arange(p_values.shape[-1])
    ranked = np.take_along_axis(p_values, order, axis=-1) * (np.maximum(left, 1) + unseen)
    ranked = np.maximum.accumulate(np.where(left > 0, np.minimum(ranked, 1.0), 0.0), axis=-1)
    adjusted = np.empty_like(p_values)
    np.put_along_axis(adjusted, order, ranked, axis=-1)
    return np.where(is_member, adjusted, p_values)


def _ratio(where: Location, *, n_a: int, n_b: int, is_paired: bool, confidence: float) -> Ratio:
    return Ratio(
        ratio=math.exp(where.mean),
        low=math.exp(where.quantile((1 - confidence) / 2)),
        high=math.exp(where.quantile((1 + confidence) / 2)),
        n_a=n_a,
        n_b=n_b,
        is_paired=is_paired,
        p_value=where.p_other_than_zero(),
        confidence=confidence,
    )


def _error(sample: np.ndarray) -> float:
    """Standard error of the mean; exactly 0 for values that are all the same."""
    return 0.0 if (sample == sample[0]).all() else float(sample.std(ddof=1) / math.sqrt(sample.size))


def _mean(sample: np.ndarray) -> float:
    """Mean; exactly the value where all are the same, whatever their number."""
    return float(sample[0]) if (sample == sample[0]).all() else float(sample.mean())


def _require_positive(values: Sequence[float]) -> np.ndarray:
    sample = np.asarray(values, dtype=float)
    if sample.size == 0 or not np.isfinite(sample).all() or (sample <= 0).any():
        raise ValueError(f"a ratio needs finite values above 0, found {sample.tolist()}")
    return sample
