"""Samples of next-sentence prediction: pairs of texts, of which half belong together (BERT, arXiv:1810.04805, section 3.1 and appendix A.2).

    [CLS] first text [SEP] second text [SEP]

The texts are what a window of the text has room for beside these tokens, cut in two between its first and its last quarter: there are no
sentences to cut at, nor were they any in the paper. In half of the samples the second one is that end of another window. What is asked of `[CLS]` is
whether it is. Tokens of both are masked as in `hvbench.training.masking`. All of it depends on nothing but the seed, the split and the sample's number.
"""

from __future__ import annotations

import numpy as np

from hvbench.errors import DataError
from hvbench.training.batches import VALIDATION, Batches
from hvbench.training.corpus import Corpus
from hvbench.training.masking import CLASS, IGNORED, MASK, SEPARATOR, mask_samples, special_token

FOLLOWS, IS_RANDOM = 0, 1  # classes of a pair, as in github.com/google-research/bert
SPECIAL = 3  # tokens of a sample that are none of its texts
# Behind the sample's number in the seed of its cut and class, which so is none of its mask's. A small model has nearly the same [CLS] in all samples
# before it has learned, so that the gradients of a batch with as many pairs of either class cancel to their rounding errors: then parity
# cannot be seen (2.5e-5 over 16 samples of `bert-tiny`, where 2.5e-7 is usual). With this number the first 4, 8, ... 128 samples are no such batch.
_OF_PAIRS = 12


class PairBatches(Batches):
    """`Batches` of pairs of texts: the first target of a sample is its class, the others are masked tokens."""

    def _count_samples(self, corpus: Corpus) -> tuple[int, int]:
        counts = super()._count_samples(corpus)
        if min(counts) < 2:
            raise DataError(
                f"next_sentence: the text has {counts[0]} training samples of {self._point.sequence_length} tokens and holds out "
                f"{counts[1]}, of which two are needed; bring more text or lower sequence_length"
            )
        return counts

    def _gather(
        self, tokens: np.ndarray, windows: np.ndarray, numbers: np.ndarray, *, stream: int, length: int
    ) -> tuple[np.ndarray, ...]:
        point, is_held_out = self._point, stream == VALIDATION
        samples = self._validation_samples if is_held_out else self.samples_per_epoch
        room = length - SPECIAL
        cuts, seconds, classes = np.empty(len(windows), np.int64), windows.copy(), np.empty(len(windows), np.int32)
        for row, number in enumerate(numbers):
            random = np.random.Generator(np.random.PCG64([point.seed, stream, int(number), _OF_PAIRS]))
            cuts[row] = random.integers(room // 4, room - room // 4, endpoint=True)
            classes[row] = random.integers(2)
            if classes[row] == IS_RANDOM:
                seconds[row] = (windows[row] + 1 + random.integers(samples - 1)) % samples
        places = np.arange(room)
        is_second = places >= cuts[:, None]
        stride = point.sequence_length if is_held_out else point.stride
        texts = tokens[np.where(is_second, seconds[:, None], windows[:, None]) * stride + places].astype(np.int32)
        hidden, asked = mask_samples(texts, numbers, point=point, stream=stream)
        hidden[hidden == special_token(SEPARATOR, point)] = special_token(MASK, point)  # a random token may be one
        inputs = np.full((len(windows), length), special_token(SEPARATOR, point), np.int32)
        inputs[:, 0] = special_token(CLASS, point)
        targets = np.full(inputs.shape, IGNORED, np.int32)
        targets[:, 0] = classes
        for whole, part in ((inputs, hidden), (targets, asked)):
            np.put_along_axis(whole, 1 + places + is_second, part, axis=1)
        return inputs, targets
