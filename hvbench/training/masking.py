"""Masked language modelling: which tokens of a sample are masked, and by what (BERT, arXiv:1810.04805, section 3.1).

In every sample the same number of positions is chosen, 15 %, so that means over micro-batches, accumulation steps and
ranks add up to the mean over all chosen tokens. A chosen token is replaced by the mask token in 80 % of cases and by a
random token in 10 %, and is kept in 10 %; the loss is taken at chosen positions only. The choice depends on nothing but
the seed, the split and the sample's number.
"""

from __future__ import annotations

import numpy as np

from hvbench.spec.point import Point

IGNORED = -1  # target of a position that does not count in the loss

CHOSEN_SHARE = 0.15
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1

# NUL, which occurs in no text (`text` refuses files with it): as a byte, and as a token of the BPE, whose first 256 tokens
# are the bytes in the order of GPT-2's alphabet: the 188 printable ones, then the others from 0 on.
MASK_BYTE = 0
MASK_TOKEN = 188


def mask_token(vocab_size: int) -> int:
    """The mask token; no text contains it."""
    return MASK_BYTE if vocab_size == 256 else MASK_TOKEN


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
    for row, number in enumerate(numbers):
        random = np.random.Generator(np.random.PCG64([point.seed, stream, int(number)]))
        length = tokens.shape[1] if counts is None else int(counts[row])
        count = chosen_tokens(length)
        places = random.permutation(length)[:count]
        targets[row, places] = tokens[row, places]
        kind = random.random(count)
        replaced = np.where(
            kind < MASK_SHARE, mask_token(point.vocab_size), random.integers(point.vocab_size, size=count)
        )
        is_kept = kind >= MASK_SHARE + RANDOM_SHARE
        inputs[row, places] = np.where(is_kept, tokens[row, places], replaced)
    return inputs, targets
