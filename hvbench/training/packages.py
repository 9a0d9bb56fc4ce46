"""Samples of the classification objective: which package does this piece of text come from? And which batches a point has.

A class is a top-level folder of the text (in the standard library a package, such as `asyncio`); the largest ones are
used. A sample is `sequence_length` tokens of one file; of a family whose classifier reads the first position, as BERT's does, `[CLS]` stands in
the place of the first of them. Validation samples are from the validation text of language
modelling, so that pretraining has not seen them, and in an order that mixes the packages: an evaluation takes the first ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hvbench.errors import DataError
from hvbench.spec.data import LABEL_FILES
from hvbench.spec.point import Point
from hvbench.training.batches import VALIDATION, Batches
from hvbench.training.corpus import Corpus, count_file_tokens, prepare
from hvbench.training.corpus_cache import Report
from hvbench.training.documents import DocumentBatches
from hvbench.training.labelled.batches import PaddedBatches
from hvbench.training.labelled.corpus import LabelledCorpus, prepare_labelled
from hvbench.training.labelled.packed import PackedBatches
from hvbench.training.layout import Batch
from hvbench.training.masking import CLASS, special_names, special_token
from hvbench.training.pairs import PairBatches


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """The samples of one split."""

    starts: np.ndarray  # [samples], int64: index of the first token among the split's tokens
    labels: np.ndarray  # [samples], int32: class


@dataclass(frozen=True, kw_only=True, eq=False)
class Packages:
    """The names of the classes, and the samples of both splits."""

    names: list[str]
    train: Windows
    validation: Windows


def find_packages(point: Point, *, cache: Path | None = None) -> Packages:
    """The samples of the `num_classes` folders that have the most training tokens; labels number them alphabetically.

    Raises DataError where the text has too few folders, or a folder too few tokens.
    """
    if point.data == "synthetic":
        raise DataError('data = "synthetic": random tokens come from no package; set data to "stdlib" or a folder')
    files = count_file_tokens(point.data, **point.tokenization, cache=cache)
    sizes: dict[str, int] = {}
    for name, train_tokens, _ in files:
        folder, slash, _ = name.partition("/")
        if slash:
            sizes[folder] = sizes.get(folder, 0) + train_tokens
    if len(sizes) < point.num_classes:
        _refuse_folder_of_labels(point)
        raise DataError(
            f"data = {point.data!r}: has {len(sizes)} folders with text, num_classes is {point.num_classes}; "
            "lower num_classes or bring more folders"
        )
    names = sorted(sorted(sizes, key=lambda name: (-sizes[name], name))[: point.num_classes])
    validation = _mix(_cut(files, names, side=2, point=point))
    packages = Packages(names=names, train=_cut(files, names, side=1, point=point), validation=validation)
    without = [name for label, name in enumerate(names) if not (packages.train.labels == label).any()]
    if without or not packages.validation.starts.size:
        what = f"package {without[0]} has no training sample" if without else "no sample is held out"
        raise DataError(
            f"data = {point.data!r}: {what} of {point.sequence_length} tokens; lower sequence_length or num_classes"
        )
    if packages.train.starts.size < point.global_batch_size:
        raise DataError(
            f"data = {point.data!r}: {packages.train.starts.size} training samples are fewer than the global batch, "
            f"{point.global_batch_size}; lower micro_batch_size, gradient_accumulation_steps or the ranks"
        )
    return packages


class LabelledBatches(Batches):
    """`Batches` of labelled samples: targets are classes instead of tokens."""

    def __init__(self, point: Point, corpus: Corpus, *, rank: int, packages: Packages) -> None:
        super().__init__(point, corpus, rank=rank)
        self.packages = packages
        self.samples_per_epoch = int(packages.train.starts.size)
        self._validation_samples = int(packages.validation.starts.size)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.packages.names)

    def train_batch(self, step: int) -> Batch:
        """Inputs [A, B, T] and classes [A, B] of 0-based `step`, int32."""
        return super().train_batch(step)

    def _gather(
        self, tokens: np.ndarray, windows: np.ndarray, numbers: np.ndarray, *, stream: int, length: int
    ) -> tuple[np.ndarray, ...]:
        side = self.packages.validation if stream == VALIDATION else self.packages.train
        positions = side.starts[windows][:, None] + np.arange(length)
        inputs = np.ascontiguousarray(tokens[positions].astype(np.int32))
        if CLASS in special_names(self._point):
            inputs[:, 0] = special_token(CLASS, self._point)
        return inputs, side.labels[windows]


def prepare_text(point: Point, *, cache: Path | None = None, report: Report = lambda line: None) -> Corpus:
    """The tokens of the point's text, labelled or not, from the cache or read into it. Raises DataError."""
    if point.has_label_file:
        return prepare_labelled(point, cache=cache, report=report)
    return prepare(point.data, **point.tokenization, cache=cache, report=report)


def make_batches(point: Point, corpus: Corpus, *, rank: int, cache: Path | None = None) -> Batches:
    """One rank's batches of the point's objective. Raises DataError for a text that is too small."""
    if isinstance(corpus, LabelledCorpus):
        return (PackedBatches if point.padding == "packed" else PaddedBatches)(point, corpus, rank=rank)
    if point.is_classifier:
        return LabelledBatches(point, corpus, rank=rank, packages=find_packages(point, cache=cache))
    if point.separates_documents:
        return DocumentBatches(point, corpus, rank=rank, cache=cache)
    if point.judges_pairs:
        return PairBatches(point, corpus, rank=rank)
    return Batches(point, corpus, rank=rank)


def _cut(files: list[tuple[str, int, int]], names: list[str], *, side: int, point: Point) -> Windows:
    """Samples of the folders `names`; `side`: index of the split's token count in an entry of `files`, 1 or 2."""
    starts, labels, position = [], [], 0
    for file in files:
        folder, slash, _ = file[0].partition("/")
        if slash and folder in names:
            count = file[side] // point.sequence_length
            starts.append(position + point.sequence_length * np.arange(count, dtype=np.int64))
            labels.append(np.full(count, names.index(folder), dtype=np.int32))
        position += file[side]
    return Windows(starts=np.concatenate(starts), labels=np.concatenate(labels))


def _refuse_folder_of_labels(point: Point) -> None:
    """Raise DataError for a folder that holds labelled files, where these were meant."""
    found = [path for ending in LABEL_FILES if (path := Path(point.data).expanduser() / f"train{ending}").is_file()]
    if found:
        raise DataError(
            f"data = {point.data!r}: holds {found[0].name}: set data to {str(found[0])!r}, and validation and test beside it are found"
        )


def _mix(windows: Windows) -> Windows:
    """The same samples in one fixed order, whatever the seed: evaluations take the first ones, and text has a package at a time."""
    random = np.random.Generator(np.random.PCG64(0))
    order = random.permutation(windows.starts.size)
    return Windows(starts=windows.starts[order], labels=windows.labels[order])
