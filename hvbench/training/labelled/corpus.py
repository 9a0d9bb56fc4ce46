"""The tokens and labels of labelled texts: tokenised once, kept in the cache of all texts, and memory-mapped from it.

An entry has these files of each split: `SPLIT.tokens`, those of all its samples one behind the other, and `SPLIT.samples`, where each sample
ends, where its second text begins, and its label; of sentences `SPLIT.tags`, the tag of each token. Texts are whole there; batches cut
what is longer than the model.

A word's tag is that of its last token, which has seen all of it in a causal model, too; its other tokens have none. Words are joined by spaces.

A pair is one sequence: the first text, a separator, the second. The separator is the token of NUL, which occurs in no text (a row
with one is refused), or with the tokenizer of a pretrained model, which has never seen that, its `[SEP]`, or a line end where it has none.
Of a family whose texts end with `[SEP]`, as BERT's do, it is that; names of special tokens in a text are text there.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hvbench.errors import DataError
from hvbench.io.cache import cache_root
from hvbench.spec.messages import shorten
from hvbench.spec.point import Point
from hvbench.training.corpus import Corpus, describe_settings, find_vocabulary, load_or_build
from hvbench.training.corpus_cache import (
    BYTE_VOCABULARY,
    VOCABULARY,
    Report,
    batched,
    building,
    encode,
    join_hashes,
    make_tokenizer,
    map_file,
)
from hvbench.training.labelled.rows import (
    SPLITS,
    TEST,
    TRAIN,
    VALIDATION,
    LabelledText,
    Row,
    examine_rows,
    hash_row,
    read_rows,
)
from hvbench.training.labelled.source import Source, describe_source, source_of
from hvbench.training.masking import IGNORED, SEPARATOR, special_names, special_token

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# end: the token behind the sample's last one, among the split's; second: tokens before its second text, all where it has none; label: its
# class or number, of a sentence its words, whose tags are with the tokens.
SAMPLE = np.dtype([("end", "<i8"), ("second", "<i4"), ("label", "<f8")])
TAG = np.dtype("<i2")
ROWS_PER_BATCH = 256  # that are encoded in parallel


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledCorpus(Corpus):
    """A corpus whose tokens are those of labelled samples; `train` and `validation` are as of any text."""

    test: np.ndarray  # tokens
    samples: dict[str, np.ndarray]  # of each split, dtype SAMPLE
    tags: dict[str, np.ndarray]  # [tokens] of each split, IGNORED where a token has none; empty unless words have tags
    classes: tuple[str, ...]


def prepare_labelled(point: Point, *, cache: Path | None = None, report: Report = lambda line: None) -> LabelledCorpus:
    """The labelled texts of a point, from the cache, or read into it. Raises DataError, as `hvbench.training.corpus.prepare` does."""
    tokenizer = find_tokenizer(point, cache=cache, report=report)
    text = examine_rows(source_of(point), settings=describe_settings(point.vocab_size, tokenizer))
    entry = _entry_of(text, point, cache=cache)

    def load() -> LabelledCorpus | None:
        return _load(entry, text, vocab_size=point.vocab_size)

    def write() -> None:
        _build(entry, text, point=point, tokenizer_file=tokenizer, report=report)

    return load_or_build(entry, load, write, report=report)


def find_tokenizer(point: Point, *, cache: Path | None = None, report: Report = lambda line: None) -> str | None:
    """The tokenizer.json of a point's labelled texts where it is not made of them: that of its weights, or of the text of its pretraining."""
    if point.tokenizer or point.pretraining_data is None:
        return point.tokenizer
    found = find_vocabulary(point.pretraining_data, vocab_size=point.vocab_size, cache=cache, report=report)
    return None if found is None else str(found)


def read_labelled_vocabulary(point: Point) -> str | None:
    """The tokenizer.json that reads a point's labelled texts; None for bytes. Raises DataError."""
    prepare_labelled(point)
    text = examine_rows(source_of(point), settings=describe_settings(point.vocab_size, find_tokenizer(point)))
    path = _entry_of(text, point) / VOCABULARY
    try:
        return path.read_text(encoding="utf-8") if point.vocab_size > BYTE_VOCABULARY or point.tokenizer else None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}; remove that folder") from None


def _entry_of(text: LabelledText, point: Point, *, cache: Path | None = None) -> Path:
    kind = "framed" if point.has_framed_labels else "labelled"  # pairs have another token between them
    return (cache or cache_root()) / "corpus" / f"{text.digest}-{point.vocab_size}-{kind}"


def require_labels(point: Point, corpus: LabelledCorpus) -> None:
    """Raise DataError unless the corpus has the point's classes, and enough samples for one global batch."""
    name, classes = describe_source(source_of(point)), len(corpus.classes)
    if classes != point.num_classes and not point.is_regression:
        raise DataError(
            f"{name}: has {classes} classes, num_classes is {point.num_classes}: set num_classes to {classes}"
        )
    samples = len(corpus.samples[TRAIN])
    if samples < point.global_batch_size:
        raise DataError(
            f"{name}: {samples} training samples are fewer than the global batch, {point.global_batch_size}; lower "
            "micro_batch_size, gradient_accumulation_steps or the ranks"
        )


def describe_labelled(point: Point, corpus: LabelledCorpus) -> list[str]:
    """Lines about the splits, and about the samples that are longer than the point's, and cut."""
    counts = {split: len(corpus.samples[split]) for split in SPLITS}
    kind = "sentences" if point.is_tagger else "pairs of texts" if is_of_pairs(corpus) else "texts"
    labels = "numbers" if point.is_regression else f"{len(corpus.classes)} {'tags' if point.is_tagger else 'classes'}"
    splits = ", ".join(f"{count} for {split}" for split, count in counts.items() if count)
    lines = [f"{corpus.source}: {kind} with {labels}, {splits}"]
    room = point.sequence_length - len(special_names(point))
    long = {split: int((lengths_of(corpus.samples[split]) > room).sum()) for split in SPLITS}
    if any(long.values()):
        parts = ", ".join(f"{count} of {counts[split]} for {split}" for split, count in long.items() if count)
        lines.append(
            f"{corpus.source}: longer than sequence_length {point.sequence_length}, and cut to it: {parts}; "
            "a longer sequence_length keeps them whole"
        )
    return lines


def is_of_pairs(corpus: LabelledCorpus) -> bool:
    """Whether its samples have two texts."""
    samples = corpus.samples[TRAIN][:1]
    return bool((samples["second"] < lengths_of(samples)).any())


def lengths_of(samples: np.ndarray) -> np.ndarray:
    """Tokens [samples] of the samples of a split, or of the first ones of it, before they are cut."""
    return np.diff(samples["end"], prepend=0)


def _build(entry: Path, text: LabelledText, *, point: Point, tokenizer_file: str | None, report: Report) -> None:
    """Write the cache entry, in a stream. Raises DataError where the rows are no longer those that `text` found."""
    with building(entry) as folder:
        training = (
            b"".join(_parts(row, text.source, separator="\n"))
            for row in read_rows(text.source, text.files)
            if row.split == TRAIN
        )
        found = make_tokenizer(
            training,
            size_bytes=text.text_bytes,
            vocab_size=point.vocab_size,
            tokenizer_file=tokenizer_file,
            report=report,
        )
        if found:
            (folder / VOCABULARY).write_text(found.to_str(), encoding="utf-8")
        if found and point.has_framed_labels:
            found.encode_special_tokens = True  # as text
        separator = special_token(SEPARATOR, point) if point.has_framed_labels else None
        if separator is None:
            separator = choose_separator(found) if point.tokenizer else "\0"
        hashes = _write_samples(folder, text, tokenizer=found, vocab_size=point.vocab_size, separator=separator)
        meta = {"vocabulary_size": found.get_vocab_size() if found else BYTE_VOCABULARY, "hashes": hashes}
        (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def choose_separator(tokenizer: Tokenizer) -> str:
    """What stands between the texts of a pair where the tokenizer is that of pretrained weights."""
    return "\n" if tokenizer.token_to_id(SEPARATOR) is None else SEPARATOR


def _write_samples(
    folder: Path, text: LabelledText, *, tokenizer: Tokenizer | None, vocab_size: int, separator: str | int
) -> dict[str, str]:
    """Write tokens and samples of all splits; name of a file -> its digest. `separator` is text that is encoded, or a token."""
    dtype, labels = np.min_scalar_type(vocab_size - 1), {name: label for label, name in enumerate(text.classes)}
    seen, ends = hashlib.sha256(text.settings.encode()), dict.fromkeys(SPLITS, 0)
    names = [f"{split}.{kind}" for split in SPLITS for kind in ("tokens", "samples", "tags")]
    hashes = {name: hashlib.sha256() for name in names}
    with ExitStack() as stack:
        streams = {name: stack.enter_context(open(folder / name, "wb")) for name in names}
        for rows in batched(read_rows(text.source, text.files), ROWS_PER_BATCH):
            between = separator if isinstance(separator, str) else ""
            parts = [_parts(row, text.source, separator=between) for row in rows]
            encoded = iter(encode([part for each in parts for part in each], tokenizer=tokenizer))
            for row, each in zip(rows, parts, strict=True):
                hash_row(seen, row)
                tokens = [next(encoded).astype(dtype) for _ in each]
                if empty := [part for part, found in zip(each, tokens, strict=True) if not len(found)]:
                    raise DataError(
                        f"{text.name}: the tokenizer makes no token of {shorten(empty[0].decode())}; leave that row out"
                    )
                if len(tokens) > 1 and not isinstance(separator, str) and text.source.labels != "tags":
                    tokens[0] = np.append(tokens[0], dtype.type(separator))
                if labels and not labels.keys() >= set(row.labels):
                    raise _changed(text)
                ends[row.split] += sum(map(len, tokens))
                first, tags = len(tokens[0]), b""
                if text.source.labels == "tags":
                    first, label = sum(map(len, tokens)), float(len(row.labels))
                    tags = _tag_tokens(tokens, [labels[tag] for tag in row.labels])
                else:
                    label = float(row.labels[0]) if text.source.labels == "number" else labels[row.labels[0]]
                sample = np.array((ends[row.split], first, label), dtype=SAMPLE)
                joined = b"".join(part.tobytes() for part in tokens)
                for kind, content in (("tokens", joined), ("samples", sample.tobytes()), ("tags", tags)):
                    hashes[f"{row.split}.{kind}"].update(content)
                    streams[f"{row.split}.{kind}"].write(content)
    if seen.hexdigest()[:16] != text.digest:
        raise _changed(text)
    return {name: sha256.hexdigest() for name, sha256 in hashes.items()}


def _changed(text: LabelledText) -> DataError:
    return DataError(f"{text.name}: changed while it was read; start again when nothing writes to it")


def _load(entry: Path, text: LabelledText, *, vocab_size: int) -> LabelledCorpus | None:
    """The corpus mapped from a cache entry; None where there is none or its digests do not match."""
    dtypes = {"tokens": np.min_scalar_type(vocab_size - 1), "samples": SAMPLE, "tags": TAG}
    arrays: dict[str, np.ndarray] = {}
    maps: list[mmap.mmap] = []
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        for name, digest in meta["hashes"].items():
            dtype = dtypes[name.partition(".")[2]]
            if not (entry / name).stat().st_size:  # of a split that has no rows; nothing can be mapped of it
                arrays[name] = np.zeros(0, dtype=dtype)
                continue
            mapped = map_file(entry / name, dtype=dtype, digest=digest)
            if mapped is None:
                return None
            arrays[name] = mapped[0]
            maps.append(mapped[1])
        samples = {split: arrays[f"{split}.samples"] for split in SPLITS}
        tokens = {split: arrays[f"{split}.tokens"] for split in SPLITS}
        tags = {split: arrays[f"{split}.tags"] for split in SPLITS}
        vocabulary_size, digest = int(meta["vocabulary_size"]), join_hashes(meta["hashes"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if any(len(samples[split]) != count for split, count in text.rows.items()):
        return None
    return LabelledCorpus(
        train=tokens[TRAIN],
        validation=tokens[VALIDATION],
        test=tokens[TEST],
        samples=samples,
        tags=tags,
        classes=text.classes,
        maps=tuple(maps),
        vocab_size=vocab_size,
        vocabulary_size=vocabulary_size,
        digest=text.digest,
        tokens_digest=digest,
        source=text.name,
        files=len(text.files),
        left_out=(),
        text_bytes=text.text_bytes,
    )


def _tag_tokens(words: list[np.ndarray], tags: list[int]) -> bytes:
    """The tag of each token of a sentence, from the tokens and the tag of each of its words, as they are stored."""
    values = np.full(sum(map(len, words)), IGNORED, dtype=TAG)
    values[np.cumsum([len(word) for word in words]) - 1] = tags
    return values.tobytes()


def _parts(row: Row, source: Source, *, separator: str) -> list[bytes]:
    """The texts of a row in UTF-8, as they are encoded: the separator behind the first of two, a space before each word but the first."""
    if source.labels == "tags":
        return [f"{' ' * bool(place)}{word}".encode() for place, word in enumerate(row.texts)]
    first, *second = row.texts
    return [f"{first}{separator}".encode(), second[0].encode()] if second else [first.encode()]
