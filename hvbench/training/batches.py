"""Which tokens a rank sees at a step: one global order of samples, dealt to ranks and micro-steps.

    sample number   i = samples of all steps before + offset,   epoch = i // samples_per_epoch
    window          order[epoch][i % samples_per_epoch],     sequence_length + 1 tokens at stride sequence_length

The order depends on the text, the sequence length and the seed only, so that batch 16 x 1, 8 x 2, 4 x 4 and two ranks
of 8 train on the same samples in the same steps, in either framework.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hvbench.spec.point import Point
from hvbench.training.corpus import Corpus, count_samples, require_enough
from hvbench.training.masking import mask_samples
from hvbench.training.schedule import accumulation_steps_at, samples_before

Batch = tuple[np.ndarray, np.ndarray]

TRAIN, VALIDATION = 1, 2  # streams of random numbers
ORDERS_KEPT = 2  # a global batch may straddle two epochs


class Batches:
    """The share of one rank in the batches of a point with a resolved `world_size`."""

    def __init__(self, point: Point, corpus: Corpus, *, rank: int) -> None:
        """Raise DataError if `corpus` cannot fill one global batch."""
        if point.world_size is None or not 0 <= rank < point.world_size:
            raise ValueError(f"rank {rank} of a point with world_size {point.world_size}")
        if corpus.vocab_size > point.vocab_size:
            raise ValueError(f"tokens up to {corpus.vocab_size} for a model of vocab_size {point.vocab_size}")
        require_enough(corpus, sequence_length=point.sequence_length, global_batch_size=point.global_batch_size)
        self.samples_per_epoch = count_samples(corpus.train, point.sequence_length)
        self._validation_samples = count_samples(corpus.validation, point.sequence_length)
        self.tokens_digest = corpus.tokens_digest
        self._point = point
        self._rank = rank
        self._world_size = point.world_size
        self._train = np.asarray(corpus.train)  # sheds the memmap class, which makes indexing slow
        self._validation = np.asarray(corpus.validation)
        self._orders: dict[int, np.ndarray] = {}

    def train_batch(self, step: int) -> Batch:
        """Inputs and targets of 0-based `step`, int32, C-contiguous.

        Shape: (accumulation steps of this step, micro_batch_size, sequence_length). Concatenated over ranks, then
        micro-steps, they are the global batch in its order.
        """
        point = self._point
        passes = accumulation_steps_at(point, step)
        samples_per_rank = passes * point.micro_batch_size
        first = samples_before(point, step) + self._rank * samples_per_rank
        numbers = np.arange(first, first + samples_per_rank)
        inputs, targets = self._gather(self._train, self._windows(first, samples_per_rank), numbers, stream=TRAIN)
        cut = (passes, point.micro_batch_size)
        return inputs.reshape(*cut, *inputs.shape[1:]), targets.reshape(*cut, *targets.shape[1:])

    def validation_batches(self, samples: int) -> Iterator[Batch]:
        """Inputs and targets, int32, (micro_batch_size, sequence_length), of this rank's share of held-out windows.

        The first `samples` validation windows (all, if there are fewer) are dealt in order, a micro-batch to each
        rank in turn. Every rank gets the same number of full micro-batches, at least one: what is missing to that is
        filled with the first of those windows again.
        """
        micro_batch_size = self._point.micro_batch_size
        samples_per_round = self._world_size * micro_batch_size
        distinct = min(samples, self._validation_samples)
        for round_ in range(-(-distinct // samples_per_round)):
            first = round_ * samples_per_round + self._rank * micro_batch_size
            windows = np.arange(first, first + micro_batch_size) % distinct
            yield self._gather(self._validation, windows, windows, stream=VALIDATION)

    def _windows(self, first: int, count: int) -> np.ndarray:
        """Window numbers of samples `first` to `first + count - 1` in the global order."""
        windows = np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            epoch, start = divmod(first + done, self.samples_per_epoch)
            piece = self._order(epoch)[start : start + count - done]
            windows[done : done + len(piece)] = piece
            done += len(piece)
        return windows

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation of all windows in `epoch`: numpy's Generator(PCG64) seeded with (seed, epoch)."""
        if epoch not in self._orders:
            while len(self._orders) >= ORDERS_KEPT:
                del self._orders[next(iter(self._orders))]  # the oldest
            random = np.random.Generator(np.random.PCG64([self._point.seed, epoch]))
            self._orders[epoch] = random.permutation(self.samples_per_epoch)
        return self._orders[epoch]

    def _gather(self, tokens: np.ndarray, windows: np.ndarray, numbers: np.ndarray, *, stream: int) -> Batch:
        """Inputs and targets of `windows`, int32, (len(windows), sequence_length); `numbers` are the samples'.

        Causal: all but the last, and all but the first token. Masked: all but the last, some of them hidden.
        """
        length = self._point.sequence_length
        positions = windows[:, None] * length + np.arange(length + 1)
        values = tokens[positions].astype(np.int32)
        if self._point.objective == "masked_lm":
            return mask_samples(values[:, :-1], numbers, point=self._point, stream=stream)
        return np.ascontiguousarray(values[:, :-1]), np.ascontiguousarray(values[:, 1:])
