"""Rows of labelled files, JSONL, CSV or CoNLL: texts and their labels, and which split each row is in. Imports only the standard library.

A row is a text, maybe a second one, and its class or number. For tags it is the words of a sentence and a tag for each: two lists in JSONL;
in CoNLL's columns (Tjong Kim Sang & De Meulder 2003, section 2.2) a line a word, whose first column is the word and whose last one the
tag, with an empty line between sentences.

`data` names one file. Where it is called `train`, files beside it that are called `validation` and `test`, with the same ending, are
the other splits. A split without a file is drawn from the rows of `data`, a tenth of them: which ones follows from `split_seed` and
their numbers alone, so it is the same on every machine and for every seed of the training. With a file for validation and none for
the test there is no test.

A file is read in a stream, and every row is looked at before the first step: what is wrong with some rows is one line with their
count and the first of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvbench.errors import DataError
from hvbench.spec.data import LABEL_FILES, LABELLED_HERE
from hvbench.training.files import find_files
from hvbench.training.labelled.formats import READERS, Fields, read_csv
from hvbench.training.labelled.snippets import snippets_file
from hvbench.training.labelled.source import Source, describe_source, list_names

SPLITS = TRAIN, VALIDATION, TEST = ("train", "validation", "test")
DRAWN_PERCENT = 10  # of the rows, for each split that has no file
MAX_CLASSES = 1000  # as many as `num_classes` may be
FORMAT = "labelled 1"  # part of the digest: raised whenever the same rows become other samples


@dataclass(frozen=True, kw_only=True)
class Row:
    """One labelled text, pair of texts, or sentence: then each of `texts` is a word with a label of its own."""

    split: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabelledText:
    """What a pass over all rows found. `digest` is of texts, labels and splits, whatever the format and the encoding of the files."""

    source: Source
    files: dict[str, Path]  # of each split that has one
    settings: str  # that the digest begins with
    digest: str
    classes: tuple[str, ...]  # of the training split, sorted; a label is its number here. None of numbers
    rows: dict[str, int]  # of each split
    text_bytes: int

    @property
    def name(self) -> str:
        return describe_source(self.source)


def examine_rows(source: Source, *, settings: str = "") -> LabelledText:
    """Read every row once. Raises DataError, one line, where any cannot be used, or all of them together cannot."""
    settings = f"{settings} {FORMAT} {source.labels}"
    sha256, text_bytes, files = hashlib.sha256(settings.encode()), 0, find_splits(source)
    if source.split_seed and not list_drawn(files):
        raise DataError(
            f"{describe_source(source)}: split_seed = {source.split_seed} draws nothing, for {files[VALIDATION].name} is beside it: leave it out"
        )
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}  # labels; of numbers none
    rows = dict.fromkeys(SPLITS, 0)
    for row in read_rows(source, files):
        hash_row(sha256, row)
        text_bytes += sum(len(text.encode()) for text in row.texts)
        rows[row.split] += 1
        if source.labels != "number":
            counts[row.split].update(row.labels)
        if len(counts[row.split]) > MAX_CLASSES:
            raise DataError(
                f"{describe_source(source)}: {source.label_field} has more than {MAX_CLASSES} different values; a class is one of "
                "them: label_field = NAME chooses another field"
            )
    require_splits(source, rows)
    if source.labels != "number":
        require_classes(source, counts)
    return LabelledText(
        source=source,
        files=files,
        settings=settings,
        digest=sha256.hexdigest()[:16],
        classes=tuple(sort_classes(counts[TRAIN])),
        rows=rows,
        text_bytes=text_bytes,
    )


def require_classes(source: Source, counts: dict[str, Counter[str]]) -> None:
    """Raise DataError unless training has two classes or more, and no other split has one of its own."""
    name, train = describe_source(source), counts[TRAIN]
    if len(train) < 2:
        raise DataError(
            f"{name}: only one class, {list_names(train)}, in the training split; a classifier needs two or more"
        )
    for split in (VALIDATION, TEST):
        unseen = sort_classes(counts[split].keys() - train.keys())
        if unseen:
            count = sum(counts[split][label] for label in unseen)
            of_what = "word" if source.labels == "tags" else "row"
            raise DataError(
                f"{name}: {list_names(unseen)} in the {split} split ({count} {of_what}{'s' * (count > 1)}) and never in training: no model can "
                "answer that; give it training rows, leave it out, or draw the splits with another split_seed"
            )


def require_splits(source: Source, rows: dict[str, int]) -> None:
    """Raise DataError unless training and validation have rows."""
    if not rows[TRAIN]:
        raise DataError(f"{describe_source(source)}: no row in the training split")
    if not rows[VALIDATION]:
        raise DataError(
            f"{describe_source(source)}: no row for validation: {rows[TRAIN]} rows are too few to draw a tenth of them, or the file is "
            "empty; bring more rows, or name the file train and put validation beside it"
        )


def sort_classes(labels: Iterable[str]) -> list[str]:
    """Whole numbers by their value, anything else alphabetically."""
    labels = list(labels)
    are_numbers = all(label.removeprefix("-").isdecimal() for label in labels)
    return sorted(labels, key=(lambda label: (int(label), label)) if are_numbers else None)


def find_splits(source: Source) -> dict[str, Path]:
    """Split -> its file; the training split has one always. Raises DataError."""
    if source.data in LABELLED_HERE:
        return {TRAIN: snippets_file()}
    find_files(source.data)  # raises where it is none, or empty
    path, name = Path(source.data).expanduser(), describe_source(source)
    if path.is_dir():
        raise DataError(f"{name}: a folder; labelled texts are a file that ends in {' or '.join(LABEL_FILES)}")
    beside = {split: path.with_name(split + path.suffix) for split in SPLITS}
    if path.stem in (VALIDATION, TEST) and beside[TRAIN].is_file():
        raise DataError(
            f"{name}: the {path.stem} split; set data to {str(beside[TRAIN])!r}, and this one is found beside it"
        )
    if path.stem != TRAIN:
        return {TRAIN: path}
    return {TRAIN: path, **{split: file for split, file in beside.items() if split != TRAIN and file.is_file()}}


def read_rows(source: Source, files: dict[str, Path]) -> Iterator[Row]:
    """The rows of all files in order, with their splits. Raises DataError, for what is wrong with some rows at the end of their file."""
    drawn = list_drawn(files)
    for split, path in files.items():
        fields = Fields(source, path)
        read = READERS[path.suffix.lower()]
        if read is read_csv and source.labels == "tags":
            raise fields.fail(
                "tags of words are in JSONL or CoNLL's columns, not in CSV: end the file in .jsonl or .conll"
            )
        for number, (line, values) in enumerate(read(fields)):
            if (found := fields.take(values, line=line)) is not None:
                own = draw_split(number, drawn, seed=source.split_seed) if split == TRAIN else split
                yield Row(split=own, texts=found[0], labels=found[1])
        fields.require_none_wrong()


def list_drawn(files: dict[str, Path]) -> list[str]:
    """The splits that are drawn from the training file's rows, where these have files."""
    return [split for split in (VALIDATION, TEST) if split not in files and (split != TEST or VALIDATION not in files)]


def draw_split(number: int, drawn: list[str], *, seed: int) -> str:
    """The split of the row of that number, counted from 0, where the splits `drawn` have no files of their own."""
    if not drawn:
        return TRAIN
    place = int.from_bytes(hashlib.sha256(b"%d %d" % (seed, number)).digest()[:8], "big") % 100 // DRAWN_PERCENT
    return drawn[place] if place < len(drawn) else TRAIN


def hash_row(sha256: Any, row: Row) -> None:
    """Add a row to a digest; with their lengths, different rows never hash the same bytes."""
    sha256.update(b"%d %d " % (len(row.labels), len(row.texts)))
    for part in (row.split, *row.labels, *row.texts):
        content = part.encode()
        sha256.update(b"%d " % len(content))
        sha256.update(content)
