"""Batches of labelled samples of different lengths: each is padded to the longest of the rank's step, rounded up.

    padded length   the longest sample, rounded up to a multiple of sequence_length / length_buckets (rounded up), cut to sequence_length

A framework that compiles a graph for every shape compiles at most `length_buckets` of them. What is behind a sample's last token is
padding: the layout says where it begins, attention and the mean over positions leave it out, and it is no token of the step.

    [CLS] text [SEP]    or    [CLS] first text [SEP] second text [SEP]

are the samples of a family that has segments (BERT, arXiv:1810.04805, figures 1 and 4): the second text is of the second one. Sentences whose words have tags
begin and end so, too; these two tokens have none.

A sample that is longer than the model is cut at its end. Of a pair the longer text is cut first, to the length of the other one, then both.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hvbench.spec.point import Point
from hvbench.training.batches import ORDERS_KEPT, Batches
from hvbench.training.batches import TRAIN as TRAIN_STREAM
from hvbench.training.batches import VALIDATION as VALIDATION_STREAM
from hvbench.training.evaluation import ValidationBatch
from hvbench.training.labelled.corpus import LabelledCorpus, require_labels
from hvbench.training.labelled.rows import TEST, TRAIN, VALIDATION
from hvbench.training.layout import Batch, Layout
from hvbench.training.masking import CLASS, IGNORED, SEPARATOR, special_token
from hvbench.training.order import Cipher, Table, make_order
from hvbench.training.schedule import accumulation_steps_at, sequence_length_at

TEST_STREAM = 3  # beside those of `hvbench.training.batches`
# Global batches whose samples are sorted together, as in Hugging Face's `group_by_length` (transformers, `LengthGroupedSampler`).
SORTED_BATCHES = 50


class PaddedBatches(Batches):
    """`Batches` of labelled samples with padding behind them: targets are labels, and a layout says where padding begins.

    Labels are classes [A, B], int32; numbers [A, B], float32; or the tags of tokens [A, B, T], int32, IGNORED where a token has none.
    """

    def __init__(self, point: Point, corpus: LabelledCorpus, *, rank: int) -> None:
        streams = {TRAIN_STREAM: TRAIN, VALIDATION_STREAM: VALIDATION, TEST_STREAM: TEST}
        self._samples = {stream: corpus.samples[split] for stream, split in streams.items()}
        self._grouped: dict[int, GroupedByLength] = {}
        self._tags = {stream: corpus.tags[split] for stream, split in streams.items()}
        self._test = np.asarray(corpus.test)
        self._classes = corpus.classes
        is_framed = point.has_framed_labels
        self._leading, self._trailing = (
            np.array([special_token(name, point)] * is_framed, dtype=np.int32) for name in (CLASS, SEPARATOR)
        )
        self._framing = len(self._leading) + len(self._trailing)
        self.dtypes = ("int32", "float32" if point.is_regression else "int32", "int32", "float64")
        super().__init__(point, corpus, rank=rank)
        # One fixed order, whatever the seed: evaluations take the first ones, and a file may have a class at a time.
        self._order_of_validation = make_order(self._validation_samples, seed=0, epoch=0)

    def train_batch(self, step: int) -> Batch:
        """Inputs [A, B, T] and labels of 0-based `step`, and where padding lies; T follows from the samples' lengths."""
        inputs, labels, starts = super().train_batch(step)
        weights = np.ones(len(inputs))
        if self._point.is_tagger:  # sentences have different numbers of tags: every tag of the step counts once
            counts = (labels != IGNORED).sum(axis=(1, 2))
            weights = counts * (len(counts) * self._world_size / self._count_tags(step))
        return inputs, labels, Layout(starts=starts, weights=weights)

    def tokens_of_step(self, step: int) -> int:
        """Tokens that all ranks train on in 0-based `step`, without padding."""
        return int(self._lengths_of_step(step).sum())

    def padding_of_step(self, step: int) -> int:
        """Padding behind them."""
        lengths = self._lengths_of_step(step)
        longest = sequence_length_at(self._point, step)
        padded = [self._round_up(int(of_rank.max()), longest=longest) * of_rank.size for of_rank in lengths]
        return sum(padded) - int(lengths.sum())

    def _count_tags(self, step: int) -> int:
        """Tags of all ranks' samples of a step, as they are cut."""
        longest = sequence_length_at(self._point, step)
        return sum(
            int((self._tags_of(window, count, stream=TRAIN_STREAM, length=longest) != IGNORED).sum())
            for window, count in self._samples_and_lengths(self._windows(*self._samples_of(step)), stream=TRAIN_STREAM)
        )

    def _samples_and_lengths(self, windows: np.ndarray, *, stream: int) -> Iterator[tuple[int, int]]:
        yield from zip(windows.tolist(), self._lengths(windows, stream=stream).tolist(), strict=True)

    def _tags_of(self, window: int, count: int, *, stream: int, length: int) -> np.ndarray:
        """Tags of those of a sample's `count` tokens that fit into `length`; a word that is cut has its tag at the last token that is left of it."""
        end, room = int(self._samples[stream]["end"][window]), length - self._framing
        tags = self._tags[stream][end - (count - self._framing) : end]
        if len(tags) <= room:
            return tags
        kept = tags[:room].copy()
        kept[-1] = tags[room - 1 :][tags[room - 1 :] != IGNORED][0]
        return kept

    def _lengths_of_step(self, step: int) -> np.ndarray:
        """Tokens [ranks, samples] of the samples of all ranks, as they are cut."""
        windows = self._windows(*self._samples_of(step))
        lengths = np.minimum(self._lengths(windows, stream=TRAIN_STREAM), sequence_length_at(self._point, step))
        return lengths.reshape(self._world_size, -1)

    def _count_samples(self, corpus: LabelledCorpus) -> tuple[int, int]:
        require_labels(self._point, corpus)
        return len(self._samples[TRAIN_STREAM]), len(self._samples[VALIDATION_STREAM])

    def _order(self, epoch: int) -> Table | Cipher | GroupedByLength:
        order = super()._order(epoch)
        if not self._point.group_by_length:
            return order
        grouped = self._grouped.get(epoch)
        if grouped is None:
            grouped = GroupedByLength(order, self, group=SORTED_BATCHES * self._point.global_batch_size)
            self._grouped = dict([*self._grouped.items(), (epoch, grouped)][-ORDERS_KEPT:])
        return grouped

    def rehearsals(self) -> Iterator[Batch]:
        """The longest first, whose memory the others fit into."""
        point = self._point
        step = -(-point.sequence_length // point.length_buckets)
        for length in sorted({min(step * n, point.sequence_length) for n in range(1, point.length_buckets + 1)})[::-1]:
            shape = accumulation_steps_at(point, 0), point.micro_batch_size, length
            labels = np.zeros(shape if point.is_tagger else shape[:2], dtype=self.dtypes[1])
            layout = Layout(starts=np.zeros(shape, dtype=np.int32), weights=np.ones(shape[0]))
            yield np.zeros(shape, dtype=np.int32), labels, layout

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._classes

    @property
    def test_samples(self) -> int:
        return len(self._samples[TEST_STREAM])

    def test_batches(self, *, alone: bool = False) -> Iterator[ValidationBatch]:
        yield from self._held_out(self._test, self.test_samples, stream=TEST_STREAM, alone=alone)

    def _held_out_windows(self, places: np.ndarray, *, stream: int) -> np.ndarray:
        if stream == TEST_STREAM:
            return places
        first = int(places[0])
        return self._order_of_validation[first : int(places[-1]) + 1][places - first]

    def _padded_length(self, windows: np.ndarray, *, stream: int, longest: int) -> int:
        return self._round_up(int(self._lengths(windows, stream=stream).max()), longest=longest)

    def _round_up(self, length: int, *, longest: int) -> int:
        return min(self._round_to_bucket(length, whole=self._point.sequence_length), longest)

    def _round_to_bucket(self, count: int, *, whole: int) -> int:
        """`count` rounded up to one of `length_buckets` parts of `whole`, evenly apart; the last one may be more than that."""
        step = -(-whole // self._point.length_buckets)
        return -(-count // step) * step

    def _lengths(self, windows: np.ndarray, *, stream: int = TRAIN_STREAM) -> np.ndarray:
        """Tokens [samples] of samples before they are cut."""
        ends = self._samples[stream]["end"]
        return self._framing + ends[windows] - np.where(windows > 0, ends[windows - 1], 0)

    def _gather(
        self, tokens: np.ndarray, windows: np.ndarray, numbers: np.ndarray, *, stream: int, length: int
    ) -> tuple[np.ndarray, ...]:
        samples = self._samples[stream]
        shape, before = (len(windows), length), len(self._leading)
        inputs, starts = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
        tags = np.full(shape if self._point.is_tagger else 0, IGNORED, dtype=np.int32)
        for row, (window, count) in enumerate(self._samples_and_lengths(windows, stream=stream)):
            sample = samples[window]
            own = tokens[sample["end"] - (count - self._framing) : sample["end"]]
            kept = cut(own, second=int(sample["second"]), length=length - self._framing)
            values = np.concatenate([self._leading, kept, self._trailing])
            inputs[row, : len(values)] = values
            starts[row, len(values) :] = len(values)
            if self._point.is_tagger:
                tags[row, before : before + len(kept)] = self._tags_of(window, count, stream=stream, length=length)
        if self._point.is_tagger:
            return inputs, tags, starts
        return inputs, samples["label"][windows].astype(self.dtypes[1]), starts


class GroupedByLength:
    """The order of an epoch in which `group` neighbours at a time are sorted by length, the longest first."""

    def __init__(self, order: Table | Cipher, batches: PaddedBatches, *, group: int) -> None:
        self._order = order
        self._batches = batches
        self._group = group
        self._sorted: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))  # number of a group, its samples

    def __getitem__(self, places: slice) -> np.ndarray:
        """The numbers, int64, at `places`."""
        start, stop, _ = places.indices(self._batches.samples_per_epoch)
        parts = [np.zeros(0, dtype=np.int64)]
        for number in range(start // self._group, -(-stop // self._group)):
            first = number * self._group
            parts.append(self._sort(number)[max(0, start - first) : stop - first])
        return np.concatenate(parts)

    def _sort(self, number: int) -> np.ndarray:
        kept = self._sorted
        if kept[0] != number:
            windows = self._order[number * self._group : (number + 1) * self._group]
            lengths = self._batches._lengths(windows)
            kept = self._sorted = number, windows[np.argsort(-lengths, kind="stable")]
        return kept[1]


def cut(tokens: np.ndarray, *, second: int, length: int) -> np.ndarray:
    """The tokens [n] of a sample cut to `length`; of a pair, whose second text begins at `second`, the longer text first.

    The separator, the last token of the first text, stays.
    """
    if len(tokens) <= length:
        return tokens
    texts = second, len(tokens) - second
    if not texts[1] or length < 3:
        return tokens[:length]
    kept = length // 2 if texts[1] > length // 2 else texts[1]  # of the second text, if the first one needs its share
    kept = max(kept, length - texts[0])
    first = length - kept
    return np.concatenate([tokens[: first - 1], tokens[second - 1 : second], tokens[second : second + kept]])
