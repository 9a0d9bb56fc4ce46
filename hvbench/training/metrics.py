"""How good predictions of labels are: accuracy, precision, recall, F1, Matthews' correlation, perplexity, Pearson's correlation.

Everything follows from counts and moments that add up over batches and ranks, so every prediction counts once, whoever made it.

    precision of a class   hits / predictions of it       recall   hits / occurrences of it       F1   2 hits / (predictions + occurrences)

(van Rijsbergen, Information Retrieval, 1979, chapter 7.) A ratio without a denominator is 0, as scikit-learn has it by default. Macro: the mean over
classes that occur or are predicted; micro: the ratio of the sums over classes (Sokolova & Lapalme, doi:10.1016/j.ipm.2009.03.002, table 3), which
is the accuracy where every sample has one class and is given one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassCounts:
    """Of each class [classes], int64: predictions that were right, predictions of it, occurrences of it."""

    hits: np.ndarray
    predictions: np.ndarray
    occurrences: np.ndarray

    @property
    def accuracy(self) -> float:
        """Right predictions / all; NaN without any."""
        total = int(self.occurrences.sum())
        return float(self.hits.sum() / total) if total else math.nan

    @property
    def precisions(self) -> np.ndarray:
        """Precision of each class [classes]."""
        return _divide(self.hits, self.predictions)

    @property
    def recalls(self) -> np.ndarray:
        """Recall of each class [classes]."""
        return _divide(self.hits, self.occurrences)

    @property
    def f1s(self) -> np.ndarray:
        """F1 of each class [classes]."""
        return _divide(2 * self.hits, self.predictions + self.occurrences)

    @property
    def micro_precision(self) -> float:
        """All hits / all predictions; 0 without a prediction, as scikit-learn has it."""
        return float(_divide(self.hits.sum(keepdims=True), self.predictions.sum(keepdims=True))[0])

    @property
    def micro_recall(self) -> float:
        """All hits / all occurrences; 0 without an occurrence."""
        return float(_divide(self.hits.sum(keepdims=True), self.occurrences.sum(keepdims=True))[0])

    @property
    def micro_f1(self) -> float:
        """F1 of all classes' counts together: where each sample has one class, the accuracy."""
        total = self.predictions.sum() + self.occurrences.sum()
        return float(2 * self.hits.sum() / total) if total else math.nan

    def macro(self, of_classes: np.ndarray) -> float:
        """The mean of `precisions`, `recalls` or `f1s` over the classes that occur or are predicted."""
        is_there = (self.predictions + self.occurrences) > 0
        return float(of_classes[is_there].mean()) if is_there.any() else math.nan

    @property
    def matthews(self) -> float:
        """Matthews' correlation coefficient for any number of classes; 0 where either side names one class alone.

        (c s - Σ p t) / √((s² - Σ p²) (s² - Σ t²)) with c hits of s samples, p predictions and t occurrences of a class (Gorodkin,
        doi:10.1016/j.compbiolchem.2004.09.006); of two classes it is Matthews' own (doi:10.1016/0005-2795(75)90109-9).
        """
        p, t = self.predictions.astype(float), self.occurrences.astype(float)
        samples = t.sum()
        scale = math.sqrt((samples**2 - (p**2).sum()) * (samples**2 - (t**2).sum()))
        return float((self.hits.sum() * samples - (p * t).sum()) / scale) if scale else 0.0


def count_classes(predicted: np.ndarray, actual: np.ndarray, *, classes: int) -> ClassCounts:
    """The counts of predictions [n] of the classes [n] that are right."""
    return ClassCounts(
        hits=np.bincount(actual[predicted == actual], minlength=classes),
        predictions=np.bincount(predicted, minlength=classes),
        occurrences=np.bincount(actual, minlength=classes),
    )


def add_counts(parts: Iterable[ClassCounts]) -> ClassCounts:
    """The counts of all predictions of `parts`, which are of the same classes."""
    parts = list(parts)
    names = ("hits", "predictions", "occurrences")
    return ClassCounts(**{name: np.sum([getattr(part, name) for part in parts], axis=0) for name in names})


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Of predicted and actual numbers: how many, their means, the sums of squared and of multiplied distances from these."""

    count: int
    predicted_mean: float
    actual_mean: float
    predicted_squares: float
    actual_squares: float
    products: float

    @property
    def pearson(self) -> float:
        """Pearson's correlation coefficient, Σ xy / √(Σ x² Σ y²) of distances from the means; NaN where either side is constant."""
        scale = math.sqrt(self.predicted_squares * self.actual_squares)
        return self.products / scale if scale else math.nan

    @property
    def mean_squared_error(self) -> float:
        """Mean of (predicted - actual)²; NaN without any."""
        if not self.count:
            return math.nan
        spread = self.predicted_squares + self.actual_squares - 2 * self.products
        return spread / self.count + (self.predicted_mean - self.actual_mean) ** 2


def take_moments(predicted: np.ndarray, actual: np.ndarray) -> Moments:
    """The moments of predictions [n] of the numbers [n]."""
    x, y = predicted.astype(np.float64), actual.astype(np.float64)
    means = (float(x.mean()), float(y.mean())) if len(x) else (0.0, 0.0)
    x, y = x - means[0], y - means[1]
    return Moments(
        count=len(x),
        predicted_mean=means[0],
        actual_mean=means[1],
        predicted_squares=float(x @ x),
        actual_squares=float(y @ y),
        products=float(x @ y),
    )


def add_moments(parts: Sequence[Moments]) -> Moments:
    """The moments of all numbers of `parts` (Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115)."""
    total = Moments(
        count=0, predicted_mean=0.0, actual_mean=0.0, predicted_squares=0.0, actual_squares=0.0, products=0.0
    )
    for part in parts:
        count = total.count + part.count
        if not count:
            continue
        x, y = part.predicted_mean - total.predicted_mean, part.actual_mean - total.actual_mean
        weight = total.count * part.count / count
        total = Moments(
            count=count,
            predicted_mean=total.predicted_mean + x * part.count / count,
            actual_mean=total.actual_mean + y * part.count / count,
            predicted_squares=total.predicted_squares + part.predicted_squares + x * x * weight,
            actual_squares=total.actual_squares + part.actual_squares + y * y * weight,
            products=total.products + part.products + x * y * weight,
        )
    return total


def perplexity(loss: float) -> float:
    """exp of the mean cross-entropy in nats of a language model (Jelinek et al. 1977, doi:10.1121/1.2016299); infinite where that is too large."""
    return math.exp(loss) if loss < 700 else math.inf


def _divide(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    return np.divide(parts, wholes, out=np.zeros(len(parts)), where=wholes > 0)
