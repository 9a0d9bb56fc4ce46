"""Entities of BIO tags, against cases worked out by hand by the rules of CoNLL's `conlleval`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvbench.training.entities import count_entities, entity_types, find_entities, read_tags
from hvbench.training.metrics import add_counts

NAMES = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


def tags_of(words: str) -> list[tuple[str, str]]:
    return [read_tags(NAMES)[NAMES.index(word)] for word in words.split()]


def numbers_of(words: str) -> np.ndarray:
    return np.array([NAMES.index(word) for word in words.split()])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("O O", set()),
        ("O B-PER I-PER O", {("PER", 1, 3)}),
        ("B-PER I-PER", {("PER", 0, 2)}),  # up to the end
        ("B-PER B-PER", {("PER", 0, 1), ("PER", 1, 2)}),
        ("B-PER I-PER B-PER I-PER", {("PER", 0, 2), ("PER", 2, 4)}),
        ("I-PER O", {("PER", 0, 1)}),  # I- at the start begins one
        ("O I-PER I-PER O", {("PER", 1, 3)}),  # and after O
        ("B-PER I-LOC I-LOC", {("PER", 0, 1), ("LOC", 1, 3)}),  # and after another type
        ("I-PER I-LOC I-PER", {("PER", 0, 1), ("LOC", 1, 2), ("PER", 2, 3)}),
        ("B-PER O I-PER", {("PER", 0, 1), ("PER", 2, 3)}),
    ],
)
def test_where_entities_begin_and_end(words: str, expected: set) -> None:
    assert find_entities(tags_of(words)) == expected


def test_an_entity_is_right_where_its_type_and_both_of_its_ends_are() -> None:
    """Four of five words are right, and one of three entities: of PER the end is wrong, and one LOC is named that is none."""
    actual, predicted = numbers_of("B-PER I-PER O B-LOC O"), numbers_of("B-PER O O B-LOC O")
    counts = count_entities([(predicted, actual)], names=NAMES)
    assert entity_types(NAMES) == ["LOC", "PER"]
    assert [each.tolist() for each in (counts.hits, counts.predictions, counts.occurrences)] == [[1, 0], [1, 1], [1, 1]]
    assert (counts.micro_precision, counts.micro_recall, counts.micro_f1) == (0.5, 0.5, 0.5)
    more = count_entities([(numbers_of("O B-LOC"), numbers_of("O O"))], names=NAMES)
    both = add_counts([counts, more])
    assert both.micro_precision == pytest.approx(1 / 3) and both.micro_recall == 0.5
    assert both.micro_f1 == pytest.approx(2 / 5)
    assert (more.micro_precision, more.micro_recall, more.micro_f1) == (0.0, 0.0, 0.0)


def test_sentences_do_not_go_on_in_the_next_one() -> None:
    pieces = [(numbers_of("B-PER"), numbers_of("B-PER")), (numbers_of("I-PER"), numbers_of("I-PER"))]
    assert count_entities(pieces, names=NAMES).hits.tolist() == [0, 2]
    nothing = count_entities([], names=NAMES)
    assert nothing.hits.tolist() == [0, 0] and math.isnan(nothing.micro_f1)


def test_an_i_tag_that_begins_an_entity_is_as_good_as_a_b_tag() -> None:
    counts = count_entities([(numbers_of("O I-PER I-PER"), numbers_of("O B-PER I-PER"))], names=NAMES)
    assert (counts.hits.tolist(), counts.micro_f1) == ([0, 1], 1.0)


@pytest.mark.parametrize(
    ("names", "types"),
    [
        (["B", "I", "O"], [""]),
        (["I-NP", "O"], ["NP"]),
        (["B-a-b", "I-a-b"], ["a-b"]),
        (["NN", "O", "VB"], []),  # parts of speech
        (["B-X", "E-X", "O"], []),  # another scheme
        (["O"], []),
        ([], []),
    ],
)
def test_which_tags_mark_entities(names: list[str], types: list[str]) -> None:
    assert entity_types(names) == types
    assert (read_tags(names) is None) == (not types)
