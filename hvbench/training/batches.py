"""The batches of one rank: one global order of samples, divided among steps, ranks and backward passes.

    sample number   i = samples of all steps before + offset,   epoch = i // samples_per_epoch
    window          order[epoch][i % samples_per_epoch],     sequence_length + 1 tokens at the point's stride

The order depends only on the text, the sequence length, the stride and the seed. So equal global batches, whether 16 x 1, 8 x 2, 4 x 4
or two ranks of 8, train on the same samples in the same steps, in both frameworks.

Shapes: A accumulation steps, B micro-batch, T sequence length; token arrays are int32 and C-contiguous.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.corpus import Corpus, count_samples, require_enough
from hvbench.training.evaluation import ValidationBatch, share_of_rank
from hvbench.training.layout import Batch
from hvbench.training.masking import mask_samples
from hvbench.training.order import Cipher, Table, make_order
from hvbench.training.schedule import accumulation_steps_at, samples_before, sequence_length_at, tokens_of_step

TRAIN, VALIDATION = 1, 2  # random number streams of the two splits
ORDERS_KEPT = 2  # permutations in memory: a global batch may span two epochs
# Text that is mapped from a file counts as this process's memory once it is read: of a long text, what was read is given back.
LONG_TEXT_BYTES = 256 << 20
SAMPLES_KEPT = 1024  # the kernel maps 64 KiB at a time: 64 MiB


class Batches:
    """One rank's share of the batches of a point whose `world_size` is known."""

    dtypes = ("int32", "int32")  # of the arrays of a batch, in the order of `hvbench.training.layout.to_arrays`

    def __init__(self, point: Point, corpus: Corpus, *, rank: int) -> None:
        """Check that `corpus` fits `point`; nothing is permuted before it is needed.

        Args:
            point: Its sizes, seed, objective and world_size.
            corpus: The tokens of both splits.
            rank: From 0 to world_size - 1.

        Raises:
            DataError: The corpus is too small for one global batch, or for one validation sample.
            ValueError: `rank` or the corpus' vocabulary does not fit the point.
        """
        if point.world_size is None or not 0 <= rank < point.world_size:
            raise ValueError(f"rank {rank} of a point with world_size {point.world_size}")
        if corpus.vocab_size > point.vocab_size:
            raise ValueError(f"tokens up to {corpus.vocab_size} for a model of vocab_size {point.vocab_size}")
        self.tokens_digest = corpus.tokens_digest
        self._point = point
        self.samples_per_epoch, self._validation_samples = self._count_samples(corpus)
        self._rank = rank
        self._world_size = point.world_size
        self._train = np.asarray(corpus.train)  # a view that is no memmap: indexing one of those is slow
        self._validation = np.asarray(corpus.validation)
        self._orders: dict[int, Table | Cipher] = {}
        self._forget_pages = corpus.forget_pages if corpus.train.nbytes > LONG_TEXT_BYTES else None
        self._samples_read = 0

    def train_batch(self, step: int) -> Batch:
        """Inputs [A, B, T] and targets [A, B, T] of 0-based `step`; A and T are this step's: both can grow in a warm-up.

        Concatenated over ranks, then over A, they are the global batch in its order.
        """
        point = self._point
        passes = accumulation_steps_at(point, step)
        samples_per_rank = passes * point.micro_batch_size
        first = self._samples_of(step)[0] + self._rank * samples_per_rank
        numbers = np.arange(first, first + samples_per_rank)
        windows = self._windows(first, samples_per_rank)
        length = self._padded_length(windows, stream=TRAIN, longest=sequence_length_at(point, step))
        arrays = self._gather(self._train, windows, numbers, stream=TRAIN, length=length)
        self._samples_read += samples_per_rank
        if self._forget_pages and self._samples_read >= SAMPLES_KEPT:
            self._forget_pages()
            self._samples_read = 0
        return tuple(array.reshape(passes, point.micro_batch_size, *array.shape[1:]) for array in arrays)

    def tokens_of_step(self, step: int) -> int:
        """Tokens that all ranks train on in 0-based `step`."""
        return tokens_of_step(self._point, step)

    def padding_of_step(self, step: int) -> int:
        """Positions of all ranks in 0-based `step` that are no tokens."""
        return tokens_of_step(self._point, step) - self.tokens_of_step(step)

    def validation_batches(self, samples: int) -> Iterator[ValidationBatch]:
        """This rank's share of the first `samples` validation windows, or of all: over all ranks, every window once.

        A rank without a share (more ranks than windows) has no batch; where ranks share the parameters, all have equally many.
        """
        yield from self._held_out(self._validation, min(samples, self._validation_samples), stream=VALIDATION)

    def rehearsals(self) -> Iterator[Batch]:
        """A batch of each shape that steps may have, without content; none where they have one."""
        yield from ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """What classes or tags are called, by their numbers; none of targets that have no names."""
        return ()

    @property
    def test_samples(self) -> int:
        """Samples of the test split; 0: there is none, as of plain text."""
        return 0

    def test_batches(self, *, alone: bool = False) -> Iterator[ValidationBatch]:
        """This rank's share of the test split, or `alone` all of it."""
        yield from ()

    def _held_out(
        self, tokens: np.ndarray, samples: int, *, stream: int, alone: bool = False
    ) -> Iterator[ValidationBatch]:
        """This rank's share of the first `samples` of a split that is not trained on, or `alone` all of them."""
        share = range(samples) if alone else share_of_rank(samples, rank=self._rank, world_size=self._world_size)
        longest = len(share)
        if SHARDS[self._point.shard].of_parameters and not alone:  # all ranks take part in each batch
            longest = -(-samples // self._world_size)
        for first in range(share.start, share.start + longest, self._point.micro_batch_size):
            numbers = np.arange(first, first + self._point.micro_batch_size)
            windows = self._held_out_windows(np.clip(numbers, 0, max(0, share.stop - 1)), stream=stream)
            length = self._padded_length(windows, stream=stream, longest=self._point.sequence_length)
            arrays = self._gather(tokens, windows, windows, stream=stream, length=length)
            count = max(0, min(len(windows), share.stop - first))
            yield ValidationBatch(*arrays, samples=count)

    def _count_samples(self, corpus: Corpus) -> tuple[int, int]:
        """Samples of an epoch, and of the held-out text; raises DataError where there are too few."""
        point, length = self._point, self._point.sequence_length
        require_enough(corpus, sequence_length=length, global_batch_size=point.global_batch_size, stride=point.stride)
        # Side by side whatever the stride: in a loss over held-out text every token counts once.
        return count_samples(corpus.train, length, stride=point.stride), count_samples(corpus.validation, length)

    def _samples_of(self, step: int) -> tuple[int, int]:
        """The number of the first sample of all ranks in a step, and how many they are."""
        first = samples_before(self._point, step)
        return first, samples_before(self._point, step + 1) - first

    def _windows(self, first: int, count: int) -> np.ndarray:
        """Window numbers [count] of the samples from `first` on in the global order."""
        windows = np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            epoch, start = divmod(first + done, self.samples_per_epoch)
            piece = self._order(epoch)[start : start + count - done]
            windows[done : done + len(piece)] = piece
            done += len(piece)
        return windows

    def _held_out_windows(self, places: np.ndarray, *, stream: int) -> np.ndarray:
        """Window numbers [count] of held-out samples at consecutive `places`, the last one maybe repeated."""
        return places

    def _padded_length(self, windows: np.ndarray, *, stream: int, longest: int) -> int:
        """T of a batch of `windows` where samples may have `longest` tokens."""
        return longest

    def _order(self, epoch: int) -> Table | Cipher:
        """The permutation [samples_per_epoch] of all windows in `epoch`."""
        order = self._orders.get(epoch)
        if order is None:
            order = make_order(self.samples_per_epoch, seed=self._point.seed, epoch=epoch)
            # A dictionary of its own, not a change of this one: threads of an input pipeline read it, too.
            self._orders = dict([*self._orders.items(), (epoch, order)][-ORDERS_KEPT:])
        return order

    def _gather(
        self, tokens: np.ndarray, windows: np.ndarray, numbers: np.ndarray, *, stream: int, length: int
    ) -> tuple[np.ndarray, ...]:
        """Inputs [samples, T] and targets [samples, T] of `windows` [samples], T being `length`; `numbers` [samples] are the samples' numbers.

        Causal: targets are the inputs one token later. Masked: some inputs are hidden, and only they are targets.
        """
        stride = self._point.sequence_length if stream == VALIDATION else self._point.stride
        positions = windows[:, None] * stride + np.arange(length + 1)
        values = tokens[positions].astype(np.int32)
        if self._point.hides_tokens:
            return mask_samples(values[:, :-1], numbers, point=self._point, stream=stream)
        return np.ascontiguousarray(values[:, :-1]), np.ascontiguousarray(values[:, 1:])
