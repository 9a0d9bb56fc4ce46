"""Masked language modelling: which tokens a sample hides, and behind what (BERT, arXiv:1810.04805, sec. 3.1).

Of every sample the same number of positions is chosen, 15 %, so that a mean over micro-batches, accumulation steps and
ranks is the mean over all chosen tokens. A chosen token is replaced by the mask in 80 % of cases and by a random token in
10 %, and stays in 10 %; it is what the loss asks for. The choice depends on the seed and the sample's number alone.
"""

from __future__ import annotations

import numpy as np

from hvbench.spec.point import Point

IGNORED = -1  # the target of a token that the loss does not ask for

CHOSEN_SHARE = 0.15
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1

# NUL, which no text holds (`text` refuses files with it): as a byte, and as a byte's token, of which the BPE's first 256
# are, in the order of GPT-2's alphabet: 188 bytes that are printed as they are, then the others from 0 on.
MASK_BYTE = 0
MASK_TOKEN = 188


def mask_token(vocab_size: int) -> int:
    """The token that hides others; no text contains it."""
    return MASK_BYTE if vocab_size == 256 else MASK_TOKEN


def chosen_tokens(sequence_length: int) -> int:
    """How many tokens of a sample are chosen: 15 %, rounded, and at least one."""
    return max(1, round(CHOSEN_SHARE * sequence_length))


def mask_samples(
    tokens: np.ndarray, numbers: np.ndarray, *, point: Point, stream: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, int32, (samples, time), of `tokens`; `numbers` are the samples', `stream` tells splits apart."""
    count, length = chosen_tokens(point.sequence_length), tokens.shape[1]
    inputs, targets = tokens.astype(np.int32), np.full(tokens.shape, IGNORED, dtype=np.int32)
    for row, number in enumerate(numbers):
        random = np.random.Generator(np.random.PCG64([point.seed, stream, int(number)]))
        places = random.permutation(length)[:count]
        targets[row, places] = tokens[row, places]
        kind = random.random(count)
        replaced = np.where(
            kind < MASK_SHARE, mask_token(point.vocab_size), random.integers(point.vocab_size, size=count)
        )
        is_kept = kind >= MASK_SHARE + RANDOM_SHARE
        inputs[row, places] = np.where(is_kept, tokens[row, places], replaced)
    return inputs, targets
