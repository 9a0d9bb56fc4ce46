"""Which package does this chunk come from? Samples with labels, from the folders of the training text.

A class is a folder at the top of the text (for the standard library: a package, such as `asyncio`), the largest ones. A
sample is `sequence_length` tokens of one file. What is held out of language modelling is held out here too, so that no
pretraining has seen it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hvbench.errors import DataError
from hvbench.spec.point import Point
from hvbench.training.batches import VALIDATION, Batch, Batches
from hvbench.training.corpus import Corpus, count_file_tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Samples of one side of the split: where each starts among its tokens, and its class."""

    starts: np.ndarray  # int64
    labels: np.ndarray  # int32


@dataclass(frozen=True, kw_only=True, eq=False)
class Packages:
    """The classes by name and the samples of both sides."""

    names: list[str]
    train: Windows
    validation: Windows


def find_packages(point: Point, *, cache: Path | None = None) -> Packages:
    """The `num_classes` largest folders of the point's text, cut into samples; raises DataError.

    By training tokens, ties by name; their labels are their places in alphabetical order.
    """
    if point.data == "synthetic":
        raise DataError('data = "synthetic": random tokens come from no package; set data to "stdlib" or a folder')
    files = count_file_tokens(point.data, vocab_size=point.vocab_size, cache=cache)
    sizes: dict[str, int] = {}
    for name, train_tokens, _ in files:
        folder, slash, _ = name.partition("/")
        if slash:
            sizes[folder] = sizes.get(folder, 0) + train_tokens
    if len(sizes) < point.num_classes:
        raise DataError(
            f"data = {point.data!r}: has {len(sizes)} folders with text, num_classes is {point.num_classes}; "
            "lower num_classes or bring more folders"
        )
    names = sorted(sorted(sizes, key=lambda name: (-sizes[name], name))[: point.num_classes])
    packages = Packages(
        names=names, train=_cut(files, names, side=1, point=point), validation=_cut(files, names, side=2, point=point)
    )
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
    """`Batches` of labelled samples: targets are classes, one a sample."""

    def __init__(self, point: Point, corpus: Corpus, *, rank: int, packages: Packages) -> None:
        super().__init__(point, corpus, rank=rank)
        self.packages = packages
        self.samples_per_epoch = int(packages.train.starts.size)
        self._validation_samples = int(packages.validation.starts.size)

    def train_batch(self, step: int) -> Batch:
        """Inputs (accumulation steps of this step, micro_batch_size, sequence_length) and classes without the last, int32."""
        return super().train_batch(step)

    def _gather(self, tokens: np.ndarray, windows: np.ndarray, numbers: np.ndarray, *, stream: int) -> Batch:
        side = self.packages.validation if stream == VALIDATION else self.packages.train
        positions = side.starts[windows][:, None] + np.arange(self._point.sequence_length)
        return np.ascontiguousarray(tokens[positions].astype(np.int32)), side.labels[windows]


def pretraining_point(point: Point) -> Point:
    """The language modelling whose weights a classifier of `point` starts from: in all else the same training."""
    defaults = {name: Point.model_fields[name].default for name in ("num_classes", "pretraining", "pretraining_steps")}
    return point.model_copy(update=defaults | {"objective": point.pretraining})


def make_batches(point: Point, corpus: Corpus, *, rank: int, cache: Path | None = None) -> Batches:
    """The batches that the point's objective asks for; raises DataError."""
    if point.objective == "classification":
        return LabelledBatches(point, corpus, rank=rank, packages=find_packages(point, cache=cache))
    return Batches(point, corpus, rank=rank)


def _cut(files: list[tuple[str, int, int]], names: list[str], *, side: int, point: Point) -> Windows:
    """Samples of the named folders; `side` is 1 for training, 2 for validation: the place of its count in `files`."""
    starts, labels, position = [], [], 0
    for file in files:
        folder, slash, _ = file[0].partition("/")
        if slash and folder in names:
            count = file[side] // point.sequence_length
            starts.append(position + point.sequence_length * np.arange(count, dtype=np.int64))
            labels.append(np.full(count, names.index(folder), dtype=np.int32))
        position += file[side]
    return Windows(starts=np.concatenate(starts), labels=np.concatenate(labels))
