"""Batches of labelled samples that share rows: those of a pass are packed, by best fit, into as few rows of the samples' length as hold them.

    rows    of the step's pass that needs most of them, rounded up to a multiple of micro_batch_size / length_buckets (rounded up)

A pass has the samples, and so the loss and the gradients, that it has where each is padded in a row of its own: no sample sees another one in its
row, positions are counted from 0 in each, and the layout says where among the rows each begins, from whose tokens alone its label is
predicted. A framework that compiles a graph for every shape compiles at most `length_buckets` of them. Evaluations pad.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hvbench.spec.point import Point
from hvbench.training.documents import pack
from hvbench.training.labelled.batches import PaddedBatches
from hvbench.training.labelled.corpus import LabelledCorpus
from hvbench.training.layout import Batch, Layout
from hvbench.training.masking import IGNORED
from hvbench.training.schedule import accumulation_steps_at, sequence_length_at


class PackedBatches(PaddedBatches):
    """`PaddedBatches` whose training samples share rows, so that inputs are [A, rows, T] with T the samples' length; labels are as there."""

    def __init__(self, point: Point, corpus: LabelledCorpus, *, rank: int) -> None:
        super().__init__(point, corpus, rank=rank)
        self.dtypes = (*self.dtypes, "int32") if point.labels_samples else self.dtypes

    def train_batch(self, step: int) -> Batch:
        """Inputs [A, rows, T] of 0-based `step`, labels of its samples [A, B], or of its words [A, rows, T], and where samples lie."""
        padded, targets, layout = super().train_batch(step)
        length = sequence_length_at(self._point, step)
        counts = (layout.starts == 0).sum(axis=-1)
        rows, begins = zip(*(place_samples(of_pass, length=length) for of_pass in counts), strict=True)
        shape = len(padded), self._round_rows(rows), length
        inputs, starts = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        tags = np.full(shape, IGNORED, np.int32)
        for index, sample in np.ndindex(counts.shape):
            row, begin, count = rows[index][sample], begins[index][sample], counts[index, sample]
            place = index, row, slice(begin, begin + count)
            inputs[place], starts[place] = padded[index, sample, :count], begin
            starts[index, row, begin + count :] = begin + count  # padding, unless a later sample comes there
            if self._point.is_tagger:
                tags[place] = targets[index, sample, :count]
        if self._point.is_tagger:
            return inputs, tags, Layout(starts=starts, weights=layout.weights)
        places = (np.array(rows) * length + np.array(begins)).astype(np.int32)
        return inputs, targets, Layout(starts=starts, weights=layout.weights, places=places)

    def padding_of_step(self, step: int) -> int:
        """Positions of all ranks in 0-based `step` that are no tokens."""
        lengths, length = self._lengths_of_step(step), sequence_length_at(self._point, step)
        passes = accumulation_steps_at(self._point, step)
        positions = 0
        for of_rank in lengths:
            rows = [place_samples(of_pass, length=length)[0] for of_pass in of_rank.reshape(passes, -1)]
            positions += passes * self._round_rows(rows) * length
        return positions - int(lengths.sum())

    def rehearsals(self) -> Iterator[Batch]:
        """The most rows first, whose memory the others fit into."""
        point, passes = self._point, accumulation_steps_at(self._point, 0)
        for rows in sorted({self._round_up_rows(count) for count in range(1, point.micro_batch_size + 1)})[::-1]:
            shape, samples = (passes, rows, point.sequence_length), (passes, point.micro_batch_size)
            labels = np.zeros(shape if point.is_tagger else samples, dtype=self.dtypes[1])
            places = None if point.is_tagger else np.zeros(samples, dtype=np.int32)
            layout = Layout(starts=np.zeros(shape, dtype=np.int32), weights=np.ones(passes), places=places)
            yield np.zeros(shape, dtype=np.int32), labels, layout

    def _round_rows(self, rows: Sequence[np.ndarray]) -> int:
        """Rows of a step, from the row of each sample of each pass."""
        return self._round_up_rows(1 + max(int(of_pass.max()) for of_pass in rows))

    def _round_up_rows(self, count: int) -> int:
        most = self._point.micro_batch_size
        return min(self._round_to_bucket(count, whole=most), most)


def place_samples(counts: np.ndarray, *, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The row [samples] of samples of `counts` tokens each, and its place [samples] in it, where rows have `length`."""
    rows = pack(counts, capacity=length)
    begins, ends = np.zeros((2, len(rows)), np.int64)  # of samples, and of what is in rows so far
    for sample, row in enumerate(rows):
        begins[sample] = ends[row]
        ends[row] += counts[sample]
    return rows, begins
