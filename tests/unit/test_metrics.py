"""Metrics of labels, against scikit-learn, values worked out by hand, and themselves on parts that are added up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvbench.training.metrics import (
    ClassCounts,
    add_counts,
    add_moments,
    count_classes,
    perplexity,
    take_moments,
)


def draw(seed: int, *, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Actual and predicted classes of 200 samples, of which the last class is never predicted, and the one before it never occurs."""
    random = np.random.default_rng(seed)
    actual = random.integers(classes - 1, size=200)
    predicted = np.where(random.random(200) < 0.6, actual, random.integers(classes - 1, size=200))
    actual[actual == classes - 2] = classes - 1
    predicted[predicted == classes - 1] = classes - 2
    return actual, predicted


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_the_metrics_of_classes_are_those_of_scikit_learn(seed: int, classes: int) -> None:
    """Of random predictions: of all classes, with some that never occur or are never named, and of one class alone."""
    from sklearn import metrics

    random = np.random.default_rng(seed)
    drawn = random.integers(classes, size=(2, 100))
    alone = np.full(100, classes - 1)
    for actual, predicted in (drawn, draw(seed, classes=max(classes, 4)), (alone, drawn[0]), (drawn[0], alone)):
        count = max(classes, 4)
        found = count_classes(predicted, actual, classes=count)
        every = {"labels": range(count), "zero_division": 0}
        each = metrics.precision_recall_fscore_support(actual, predicted, **every)
        for mine, theirs in zip((found.precisions, found.recalls, found.f1s, found.occurrences), each, strict=True):
            assert mine.tolist() == pytest.approx(theirs.tolist(), rel=1e-12)
        for average, mine in (
            ("macro", [found.macro(values) for values in (found.precisions, found.recalls, found.f1s)]),
            ("micro", [found.micro_precision, found.micro_recall, found.micro_f1]),
        ):
            theirs = metrics.precision_recall_fscore_support(actual, predicted, average=average, zero_division=0)
            assert mine == pytest.approx(theirs[:3], rel=1e-12)
        assert found.accuracy == pytest.approx(metrics.accuracy_score(actual, predicted), rel=1e-12)
        assert found.matthews == pytest.approx(metrics.matthews_corrcoef(actual, predicted), rel=1e-12)


@pytest.mark.parametrize("center", [0.0, 1000.0])
def test_the_metrics_of_numbers_are_those_of_scikit_learn(center: float) -> None:
    from sklearn.feature_selection import r_regression
    from sklearn.metrics import mean_squared_error

    for seed in range(5):
        random = np.random.default_rng(seed)
        numbers = random.standard_normal(100) * 3 + center
        guesses = numbers + random.standard_normal(100) * (1 + seed)
        moments = take_moments(guesses, numbers)
        assert moments.mean_squared_error == pytest.approx(mean_squared_error(numbers, guesses), rel=1e-9)
        assert moments.pearson == pytest.approx(r_regression(guesses[:, None], numbers)[0], rel=1e-9)


def test_values_worked_out_by_hand() -> None:
    """Six samples of two classes: a is named 4 times, 3 of them right, and occurs 4 times."""
    actual, predicted = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 0, 1])
    found = count_classes(predicted, actual, classes=2)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.precisions.tolist() == pytest.approx([3 / 4, 1 / 2])
    assert found.recalls.tolist() == pytest.approx([3 / 4, 1 / 2])
    assert found.f1s.tolist() == pytest.approx([3 / 4, 1 / 2])
    assert found.macro(found.f1s) == pytest.approx(5 / 8) and found.micro_f1 == pytest.approx(4 / 6)
    # (tp tn - fp fn) / √((tp + fp)(tp + fn)(tn + fp)(tn + fn)) = (3 · 1 - 1 · 1) / √(4 · 4 · 2 · 2)
    assert found.matthews == pytest.approx(2 / 8)


def test_a_class_that_is_never_named_or_never_occurs_counts_as_scikit_learn_has_it() -> None:
    never_named = count_classes(np.array([0, 0, 0]), np.array([0, 0, 1]), classes=4)
    assert never_named.precisions.tolist() == pytest.approx([2 / 3, 0, 0, 0])
    assert never_named.macro(never_named.recalls) == pytest.approx(1 / 2), "of the classes that are there"
    assert never_named.matthews == 0.0
    nothing = count_classes(np.zeros(0, int), np.zeros(0, int), classes=3)
    assert math.isnan(nothing.accuracy) and math.isnan(nothing.micro_f1) and math.isnan(nothing.macro(nothing.f1s))


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_counts_and_moments_of_parts_add_up_to_those_of_all(parts: int) -> None:
    actual, predicted = draw(7)
    whole = count_classes(predicted, actual, classes=5)
    pieces = zip(np.array_split(predicted, parts), np.array_split(actual, parts), strict=True)
    added = add_counts(count_classes(*piece, classes=5) for piece in pieces)
    assert all(np.array_equal(value, vars(whole)[name]) for name, value in vars(added).items())
    x = np.random.default_rng(1).standard_normal(100) * 3 + 1e6
    y = x + np.random.default_rng(2).standard_normal(100)
    found = add_moments(
        [take_moments(*piece) for piece in zip(np.array_split(x, parts), np.array_split(y, parts), strict=True)]
    )
    assert found.count == 100 and found.pearson == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9)
    assert found.mean_squared_error == pytest.approx(np.mean((x - y) ** 2), rel=1e-6)


def test_moments_of_what_is_constant_or_empty() -> None:
    constant = take_moments(np.ones(4), np.arange(4.0))
    assert math.isnan(constant.pearson) and constant.mean_squared_error == pytest.approx(
        np.mean((1 - np.arange(4.0)) ** 2)
    )
    empty = add_moments([take_moments(np.zeros(0), np.zeros(0))])
    assert empty.count == 0 and math.isnan(empty.mean_squared_error) and math.isnan(empty.pearson)


def test_perplexity_of_guessing_is_the_number_of_tokens() -> None:
    assert perplexity(math.log(256)) == pytest.approx(256) and perplexity(1e4) == math.inf


def test_matthews_of_two_classes_is_that_of_the_paper() -> None:
    for table in ([5, 2, 3, 7], [1, 0, 4, 9], [6, 6, 1, 1]):
        tp, fp, fn, tn = table
        counts = ClassCounts(
            hits=np.array([tn, tp]), predictions=np.array([tn + fn, tp + fp]), occurrences=np.array([tn + fp, tp + fn])
        )
        expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        assert counts.matthews == pytest.approx(expected)
