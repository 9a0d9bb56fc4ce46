"""Masked language modelling: which tokens of a sample are masked, and by what (BERT, arXiv:1810.04805, section 3.1).

In every sample the same number of positions is chosen, 15 %, so that means over micro-batches, accumulation steps and
ranks add up to the mean over all chosen tokens. A chosen token is replaced by the mask token in 80 % of cases and by a
random token in 10 %, and is kept in 10 %; the loss is taken at chosen positions only. The choice depends on nothing but
the seed, the split and the sample's number.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from hvbench.errors import DataError
from hvbench.spec.model import FAMILIES
from hvbench.spec.point import Point
from hvbench.training.tokenizer_file import load_tokenizer

IGNORED = -1  # target of a position that does not count in the loss

CHOSEN_SHARE = 0.15
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1

# BERT's special tokens, by its names: bytes that occur in no text, NUL (`text` refuses files with it) and two that are no part of UTF-8.
# In the BPE, whose first 256 tokens are the bytes in the order of GPT-2's alphabet (the 188 printable ones, then the others
# from 0 on), they have other numbers; a tokenizer.json of bytes that does not name them has GPT-2's letters for these bytes.
MASK, CLASS, SEPARATOR = "[MASK]", "[CLS]", "[SEP]"
SPECIAL_BYTES = {MASK: 0x00, CLASS: 0xFF, SEPARATOR: 0xFE}
SPECIAL_TOKENS = {MASK: 188, CLASS: 187, SEPARATOR: 186}
SPECIAL_LETTERS = {MASK: "\u0100", CLASS: "\u00ff", SEPARATOR: "\u00fe"}


def special_names(point: Point) -> list[str]:
    """The special tokens that the samples of a point hold."""
    reads_class = (point.labels_samples and FAMILIES[point.family].has_heads) or has_separators(point)
    return [MASK] * point.hides_tokens + [CLASS] * reads_class + [SEPARATOR] * has_separators(point)


def has_separators(point: Point) -> bool:
    """Whether a sample is `[CLS] text [SEP]`, or `[CLS] first text [SEP] second text [SEP]`, whose second text is of the second segment."""
    return point.judges_pairs or point.has_framed_labels


def special_token(name: str, point: Point) -> int:
    """The number of `[MASK]`, `[CLS]` or `[SEP]`, which no text contains. Raises DataError where the point's tokenizer has no such token."""
    if point.tokenizer and point.data != "synthetic":
        return _find_token(point.tokenizer, name, vocab_size=point.vocab_size)
    return (SPECIAL_BYTES if point.vocab_size == 256 else SPECIAL_TOKENS)[name]


@cache
def _find_token(path: str, name: str, *, vocab_size: int) -> int:
    tokenizer = load_tokenizer(path, vocab_size=vocab_size)
    for word in (name, SPECIAL_LETTERS[name]):
        if (number := tokenizer.token_to_id(word)) is not None:
            return number
    raise DataError(f"{path}: has no token {name}, which the samples need; use the tokenizer of a BERT")


def chosen_tokens(sequence_length: int) -> int:
    """Number of chosen positions of a sample: 15 %, rounded, at least one."""
    return max(1, round(CHOSEN_SHARE * sequence_length))


def mask_samples(
    tokens: np.ndarray, numbers: np.ndarray, *, point: Point, stream: int, counts: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Masked inputs and targets of samples.

    Args:
        tokens: [samples, T].
        numbers: [samples], each sample's number: the seed of its mask.
        point: Its seed and vocabulary.
        counts: [samples], how many leading tokens of each are no padding; None: all.
        stream: Another number for each split, so that equal sample numbers have different masks.

    Returns:
        Inputs [samples, T] and targets [samples, T], int32; targets are IGNORED where no token was chosen.
    """
    inputs, targets = tokens.astype(np.int32), np.full(tokens.shape, IGNORED, dtype=np.int32)
    mask = special_token(MASK, point)
    for row, number in enumerate(numbers):
        random = np.random.Generator(np.random.PCG64([point.seed, stream, int(number)]))
        length = tokens.shape[1] if counts is None else int(counts[row])
        count = chosen_tokens(length)
        places = random.permutation(length)[:count]
        targets[row, places] = tokens[row, places]
        kind = random.random(count)
        replaced = np.where(kind < MASK_SHARE, mask, random.integers(point.vocab_size, size=count))
        is_kept = kind >= MASK_SHARE + RANDOM_SHARE
        inputs[row, places] = np.where(is_kept, tokens[row, places], replaced)
    return inputs, targets
