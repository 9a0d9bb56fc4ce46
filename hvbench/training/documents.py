"""Samples that are documents: a file of the text is one, and no token sees another one's.

A document of n tokens has n - 1 positions, each of which has the next token as its target. It is cut into pieces of
`sequence_length` positions and a shorter rest. A piece that fills a row is a row; rests share rows, packed by best fit (Ding et al.,
arXiv:2404.10830), or have one each (`packing = false`); what is left of a row is padding. Positions are counted from 0
in each piece. Rows are the samples: full ones first, in the order of the text, then those of rests. What lies in them
depends on nothing but the text and the length.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hvbench.errors import DataError
from hvbench.spec.point import Point
from hvbench.training.batches import VALIDATION, Batches
from hvbench.training.corpus import Corpus, count_file_tokens
from hvbench.training.layout import Batch, Layout
from hvbench.training.masking import IGNORED, chosen_tokens, mask_samples
from hvbench.training.schedule import sequence_length_at


class Rows:
    """The rows of one split: which pieces of its tokens each of them holds."""

    def __init__(self, file_tokens: Sequence[int], *, length: int, packing: bool) -> None:
        """Args: `file_tokens`: of each file, in the order of the split's tokens. `length`: positions of a row."""
        counts = np.asarray(file_tokens, dtype=np.int64)
        self._length = length
        self._file_begins = np.cumsum(counts) - counts
        positions = np.maximum(counts - 1, 0)
        full_rows = positions // length  # of each file; they are numbered through, not listed: a long text has millions
        self._full_ends = np.cumsum(full_rows)
        self.full = int(full_rows.sum())
        files = np.flatnonzero(positions % length)
        rests = (positions % length)[files]
        rows = pack(rests, capacity=length) if packing else np.arange(len(rests))
        by_row = np.argsort(rows, kind="stable")
        self._rest_begins = (self._file_begins + full_rows * length)[files][by_row]
        self._rest_positions = rests[by_row]
        self._rest_ends = np.cumsum(np.bincount(rows)) if len(rests) else np.zeros(0, dtype=np.int64)
        self._packed_positions = np.bincount(rows, weights=rests).astype(np.int64) if len(rests) else self._rest_ends

    def __len__(self) -> int:
        return self.full + len(self._rest_ends)

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Positions that are no padding, of each of `rows`."""
        counts = np.full(rows.shape, self._length, dtype=np.int64)
        is_packed = rows >= self.full
        counts[is_packed] = self._packed_positions[rows[is_packed] - self.full]
        return counts

    def pieces(self, row: int) -> Iterator[tuple[int, int]]:
        """(first token, positions) of each piece of a row, in order."""
        if row < self.full:
            file = int(np.searchsorted(self._full_ends, row, side="right"))
            before = int(self._full_ends[file - 1]) if file else 0
            yield int(self._file_begins[file]) + (row - before) * self._length, self._length
            return
        place = row - self.full
        for rest in range(int(self._rest_ends[place - 1]) if place else 0, int(self._rest_ends[place])):
            yield int(self._rest_begins[rest]), int(self._rest_positions[rest])


def pack(sizes: np.ndarray, *, capacity: int) -> np.ndarray:
    """The row of each piece, of rows with room for `capacity`: the largest first, each where the least room is left for it."""
    rows = np.zeros(len(sizes), dtype=np.int64)
    with_room: dict[int, list[int]] = {}  # room -> rows that have as much
    rooms: list[int] = []  # sorted
    count = 0
    for piece in np.argsort(-sizes, kind="stable"):
        size = int(sizes[piece])
        place = bisect_left(rooms, size)
        if place == len(rooms):
            row, room = count, capacity
            count += 1
        else:
            room = rooms[place]
            row = with_room[room].pop()
            if not with_room[room]:
                del rooms[place]
        rows[piece] = row
        if left := room - size:
            if not with_room.setdefault(left, []):
                insort(rooms, left)
            with_room[left].append(row)
    return rows


class DocumentBatches(Batches):
    """`Batches` of rows of documents. Each position's target is the next token of its own document; padding has none."""

    dtypes = ("int32", "int32", "int32", "float64")

    def __init__(self, point: Point, corpus: Corpus, *, rank: int, cache: Path | None = None) -> None:
        self.rows, self.validation_rows = cut_documents(point, cache=cache)
        super().__init__(point, corpus, rank=rank)

    def train_batch(self, step: int) -> Batch:
        """Inputs and targets [A, B, T] of 0-based `step`, int32, and where documents lie in them."""
        inputs, targets, starts = super().train_batch(step)
        counts = (targets != IGNORED).sum(axis=(1, 2))
        mean = self._targets_of(step) / (len(inputs) * self._world_size)
        return inputs, targets, Layout(starts=starts, weights=counts / mean)

    def tokens_of_step(self, step: int) -> int:
        """Tokens that all ranks train on in 0-based `step`, without padding."""
        return int(self._positions_of(step).sum())

    def _positions_of(self, step: int) -> np.ndarray:
        """Positions that are no padding, of each row of all ranks."""
        windows = self._windows(*self._samples_of(step))
        return np.minimum(self.rows.positions(windows), sequence_length_at(self._point, step))

    def _targets_of(self, step: int) -> int:
        positions = self._positions_of(step)
        if not self._point.hides_tokens:
            return int(positions.sum())
        return sum(chosen_tokens(int(count)) for count in positions)

    def _count_samples(self, corpus: Corpus) -> tuple[int, int]:
        return len(self.rows), len(self.validation_rows)

    def _gather(
        self, tokens: np.ndarray, windows: np.ndarray, numbers: np.ndarray, *, stream: int, length: int
    ) -> tuple[np.ndarray, ...]:
        rows = self.validation_rows if stream == VALIDATION else self.rows
        shape = len(windows), length
        inputs, starts = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
        targets = np.full(shape, IGNORED, dtype=np.int32)
        for row, window in enumerate(windows):
            end = 0
            for begin, positions in rows.pieces(int(window)):
                count = min(positions, length - end)  # fewer while samples grow
                values = tokens[begin : begin + count + 1]
                inputs[row, end : end + count] = values[:-1]
                targets[row, end : end + count] = values[1:]
                starts[row, end : end + count] = end
                end += count
            starts[row, end:] = end
        if self._point.hides_tokens:
            counts = np.minimum(rows.positions(windows), length)
            inputs, targets = mask_samples(inputs, numbers, point=self._point, stream=stream, counts=counts)
        return inputs, targets, starts


def cut_documents(point: Point, *, cache: Path | None = None) -> tuple[Rows, Rows]:
    """The rows of both splits. Raises DataError where the text has too few of them."""
    if point.data == "synthetic":
        raise DataError('data = "synthetic": random tokens are no documents; set data to "stdlib", a file or a folder')
    files = count_file_tokens(point.data, **point.tokenization, cache=cache)
    cut = {"length": point.sequence_length, "packing": point.packing}
    train, validation = (Rows([file[side] for file in files], **cut) for side in (1, 2))
    if len(train) < point.global_batch_size:
        raise DataError(
            f"data = {point.data!r}: its documents fill {len(train)} rows of {point.sequence_length} tokens, the global batch "
            f"needs {point.global_batch_size}; bring more text or lower micro_batch_size, gradient_accumulation_steps, "
            "sequence_length or the ranks"
        )
    if not len(validation):
        raise DataError(f"data = {point.data!r}: no document of two tokens or more is held out; bring more text")
    return train, validation
