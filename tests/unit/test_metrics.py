"""Metrics of labels, against scikit-learn's values, values worked out by hand, and themselves on parts that are added up."""

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

# What scikit-learn 1.9.1 says of `draw`: precision_recall_fscore_support, with average None and "macro"; accuracy_score; matthews_corrcoef.
PRECISIONS = [0.7555555555555555, 0.775, 0.7027027027027027, 0.7058823529411765, 0.0]
RECALLS = [0.7083333333333334, 0.6595744680851063, 0.49056603773584906, 0.6923076923076923, 0.0]
F1S = [0.7311827956989247, 0.7126436781609196, 0.5777777777777777, 0.6990291262135923, 0.0]
MACRO = [0.5878281222398869, 0.5101563062923962, 0.5441266755702429]
ACCURACY, MICRO_F1, MATTHEWS = 0.635, 0.635, 0.5434999415127338
# Of `draw_more`: matthews_corrcoef and f1_score of the second of two classes; mean_squared_error, and numpy's corrcoef.
MATTHEWS_OF_TWO, F1_OF_SECOND = 0.3646984043128985, 0.6521739130434783
MEAN_SQUARED_ERROR, PEARSON = 0.9657356674289229, 0.9387608527253402


def draw() -> tuple[np.ndarray, np.ndarray]:
    """Actual and predicted classes of 200 samples: four classes, and a fifth that is predicted alone."""
    return draw_classes(np.random.Generator(np.random.PCG64(7)))


def draw_more() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Actual and predicted classes of 50 samples of two, and 100 actual and predicted numbers around 1,000."""
    random = np.random.Generator(np.random.PCG64(7))
    draw_classes(random)
    actual = random.integers(2, size=50)
    predicted = np.where(random.random(50) < 0.7, actual, 1 - actual)
    numbers = random.standard_normal(100) * 3 + 1000
    return actual, predicted, numbers, numbers + random.standard_normal(100)


def draw_classes(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    actual = random.integers(4, size=200)
    return actual, np.where(random.random(200) < 0.6, actual, random.integers(5, size=200))


def test_the_same_values_as_scikit_learn() -> None:
    actual, predicted = draw()
    found = count_classes(predicted, actual, classes=5)
    for mine, theirs in ((found.precisions, PRECISIONS), (found.recalls, RECALLS), (found.f1s, F1S)):
        assert mine.tolist() == pytest.approx(theirs, rel=1e-12)
    macro = [found.macro(each) for each in (found.precisions, found.recalls, found.f1s)]
    assert macro == pytest.approx(MACRO, rel=1e-12)
    assert (found.accuracy, found.micro_f1, found.matthews) == pytest.approx((ACCURACY, MICRO_F1, MATTHEWS), rel=1e-12)
    actual, predicted, numbers, guesses = draw_more()
    found = count_classes(predicted, actual, classes=2)
    assert (found.matthews, found.f1s[1]) == pytest.approx((MATTHEWS_OF_TWO, F1_OF_SECOND), rel=1e-12)
    moments = take_moments(guesses, numbers)
    assert moments.mean_squared_error == pytest.approx(MEAN_SQUARED_ERROR, rel=1e-9)
    assert moments.pearson == pytest.approx(PEARSON, rel=1e-12)


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
    actual, predicted = draw()
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
