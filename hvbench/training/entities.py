"""Entities in sentences whose words have BIO tags, and how many of them are predicted right.

    B-TYPE begins an entity, I-TYPE goes on with it, O is outside of any    (Ramshaw & Marcus 1995, arXiv:cmp-lg/9505040)

They are counted as in CoNLL's shared tasks of 2000 (Tjong Kim Sang & Buchholz, arXiv:cs/0009008) and 2003 (Tjong Kim Sang & De Meulder,
arXiv:cs/0306050), by the rules of their script `conlleval`, which are also those of seqeval in its default mode: an I- begins an entity, too, where it
begins a sentence, or follows O or a word of another type. A prediction is a hit where its type, its first and its last word are right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from hvbench.training.metrics import ClassCounts

OUTSIDE = "O"
INSIDE = re.compile(r"([BI])(?:-(.*))?")  # B and I alone are of a type without a name

Entity = tuple[str, int, int]  # its type, its first word, the word behind its last one


def read_tags(names: Sequence[str]) -> list[tuple[str, str]] | None:
    """(O, B or I; type) of each tag, by its number; None where these are no BIO tags: another one is among them, or O alone."""
    found = [(OUTSIDE, "") if name == OUTSIDE else INSIDE.fullmatch(name) for name in names]
    if None in found or all(name == OUTSIDE for name in names):
        return None
    return [each if isinstance(each, tuple) else (each[1], each[2] or "") for each in found]


def entity_types(names: Sequence[str]) -> list[str]:
    """The types of entities that BIO tags tell apart, sorted; none of other tags."""
    return sorted({kind for place, kind in read_tags(names) or [] if place != OUTSIDE})


def find_entities(tags: Iterable[tuple[str, str]]) -> set[Entity]:
    """The entities of one sentence, from the tags of its words as `read_tags` has them."""
    entities: set[Entity] = set()
    is_open, begin, of_type = False, 0, ""  # whether the last word is of an entity; where that began, and its type
    for word, (place, kind) in enumerate([*tags, (OUTSIDE, "")]):
        if is_open and place == "I" and kind == of_type:
            continue
        if is_open:
            entities.add((of_type, begin, word))
        is_open, begin, of_type = place != OUTSIDE, word, kind
    return entities


def count_entities(sentences: Iterable[tuple[np.ndarray, np.ndarray]], *, names: Sequence[str]) -> ClassCounts:
    """Hits, predictions and occurrences of each of `entity_types`, from the predicted and the actual tags [words] of each sentence.

    `names`: of the tags, which are BIO tags.
    """
    tags, types = read_tags(names) or [], entity_types(names)
    place = {kind: number for number, kind in enumerate(types)}
    counts = np.zeros((3, len(types)), dtype=np.int64)
    for sentence in sentences:
        predicted, actual = (find_entities([tags[tag] for tag in each]) for each in sentence)
        for row, entities in enumerate((predicted & actual, predicted, actual)):
            for kind, _, _ in entities:
                counts[row, place[kind]] += 1
    hits, predictions, occurrences = counts
    return ClassCounts(hits=hits, predictions=predictions, occurrences=occurrences)
