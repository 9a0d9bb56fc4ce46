"""The training corpus: text tokenised once, kept in a cache, and memory-mapped from it.

`data` is one of three things:

- `"stdlib"`: the .py files of the running interpreter's standard library, without what differs between installations
  of the same Python: installed packages, tests (many distributions leave them out), build-time configuration.
- `"synthetic"`: uniformly random tokens, for when only throughput matters.
- a path (`~` is expanded; write `./stdlib` for a file of that name): a text file, or a folder with all text files
  below it (`text` and `files` say what counts as text).

With a vocabulary of 256 the tokens are the raw bytes; a larger one is a byte-level BPE trained on the training split; a
pretrained model reads text with its own tokenizer. No token spans two files. The same text and settings give the same `digest` on every machine.

Importing this module loads neither numpy nor tokenizers, so a launcher can `check` a path before it starts anything.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hvbench.errors import DataError
from hvbench.io.cache import cache_root
from hvbench.training.corpus_cache import (
    BYTE_VOCABULARY,
    VOCABULARY,
    VOCABULARY_SAMPLE_BYTES,
    FileTokens,
    Report,
    build,
    join_hashes,
    load,
    locked,
    read_file_tokens,
)
from hvbench.training.decoding import UTF8
from hvbench.training.files import LeftOut, find_files
from hvbench.training.text import VALIDATION_PERCENT, Text, check, describe_loss, examine
from hvbench.training.tokenizer_file import identify_tokenizer

__all__ = [
    "Corpus",
    "check",
    "count_file_tokens",
    "count_samples",
    "describe_settings",
    "find_vocabulary",
    "load_or_build",
    "prepare",
    "read_vocabulary",
    "require_enough",
]

if TYPE_CHECKING:
    import numpy as np

# Part of the digest: to be raised whenever a change of the code turns the same text into other tokens.
FORMAT = 1

Found = TypeVar("Found")  # what a cache entry is read as

SYNTHETIC_SEED = 0
SYNTHETIC_TRAIN_TOKENS = 1 << 22
SYNTHETIC_VALIDATION_TOKENS = 1 << 18


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Tokens of both splits [tokens], read-only, in the smallest unsigned dtype that holds `vocab_size`.

    `digest` identifies the text and the settings; `tokens_digest` the tokens themselves, so that ranks on several hosts
    can check that they train on the same ones.
    """

    train: np.ndarray
    validation: np.ndarray
    vocab_size: int
    vocabulary_size: int  # entries of the vocabulary: fewer than vocab_size where a short text yields fewer merges
    digest: str
    tokens_digest: str
    source: str
    files: int
    left_out: tuple[LeftOut, ...]
    text_bytes: int
    maps: tuple[mmap.mmap, ...] = ()  # what the tokens lie in, where they are mapped from the cache

    def forget_pages(self) -> None:
        """Give back the memory of what was read of mapped tokens; the kernel keeps as much of it as it has room for."""
        for mapped in self.maps:
            mapped.madvise(mmap.MADV_DONTNEED)

    @property
    def loss(self) -> str | None:
        """One line about what of the text is left out, and how much is read; None where nothing is left out."""
        return describe_loss(self.source, files=self.files, size_bytes=self.text_bytes, left_out=self.left_out)


def prepare(
    data: str,
    *,
    vocab_size: int,
    encoding: str = UTF8,
    tokenizer: str | None = None,
    cache: Path | None = None,
    report: Report = lambda line: None,
) -> Corpus:
    """The tokens of `data`: built at the first call on a host, then memory-mapped from the cache.

    Any number of processes may call this at once: one builds, the others wait for it.

    Args:
        data: `"stdlib"`, `"synthetic"`, or the path of a text file or folder.
        vocab_size: 256 for bytes, more for a BPE.
        encoding: Of files without a byte order mark.
        tokenizer: Path of a tokenizer.json; None: bytes or a BPE, by `vocab_size`.
        cache: Its folder; None: $HVBENCH_CACHE, else $XDG_CACHE_HOME/hvbench, else ~/.cache/hvbench.
        report: Called with a line of text before each thing that takes seconds.

    Returns:
        The tokens of both splits and what identifies them.

    Raises:
        DataError: The text cannot be used, or the cache cannot be written.
    """
    if vocab_size < BYTE_VOCABULARY:
        raise DataError(f"vocab_size = {vocab_size}: must be at least {BYTE_VOCABULARY}, one token per byte value")
    if data == "synthetic":
        return _draw_synthetic(vocab_size)
    text = examine(find_files(data), encoding=encoding, settings=describe_settings(vocab_size, tokenizer))
    entry = _entry_of(text, vocab_size=vocab_size, cache=cache)

    def write() -> None:
        build(entry, text, vocab_size=vocab_size, tokenizer_file=tokenizer, report=report)

    return load_or_build(entry, lambda: _load(entry, text, vocab_size=vocab_size), write, report=report)


def load_or_build(entry: Path, load: Callable[[], Found | None], write: Callable[[], None], *, report: Report) -> Found:
    """What `load` reads of a cache entry, which one process of a host writes where it finds None. Raises DataError."""
    folder = entry.parent
    found = load()
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f"{entry.name}.lock", report):
            found = load()  # another process may have built it meanwhile
            if found is None:
                write()
                found = load()
    except OSError as error:
        raise DataError(
            f"the cache {str(folder)!r} cannot be used: {error.strerror or error}; "
            "set HVBENCH_CACHE to a local folder that can be written"
        ) from None
    if found is None:
        raise DataError(f"the cache entry {str(entry)!r} does not read back as written; check the disk")
    return found


def count_file_tokens(
    data: str, *, vocab_size: int, encoding: str = UTF8, tokenizer: str | None = None, cache: Path | None = None
) -> list[FileTokens]:
    """(relative path, training tokens, validation tokens) of every file, in the order of the corpus' tokens. Raises DataError."""
    prepared = prepare(data, vocab_size=vocab_size, encoding=encoding, tokenizer=tokenizer, cache=cache)
    text = examine(find_files(data), encoding=encoding, settings=describe_settings(vocab_size, tokenizer))
    entry = _entry_of(text, vocab_size=vocab_size, cache=cache)
    try:
        files = read_file_tokens(entry, text, vocab_size=vocab_size)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"the counts of tokens in {str(entry)!r} cannot be used: {error}; remove that folder") from None
    if [sum(each[side] for each in files) for side in (1, 2)] != [len(prepared.train), len(prepared.validation)]:
        raise DataError(f"{text.source}: its files have other tokens than its corpus; it changed meanwhile")
    return files


def find_vocabulary(
    data: str,
    *,
    vocab_size: int,
    encoding: str = UTF8,
    tokenizer: str | None = None,
    cache: Path | None = None,
    report: Report = lambda line: None,
) -> Path | None:
    """The tokenizer.json of the BPE, or of the given tokenizer, that reads `data`; None for bytes and synthetic tokens. Raises DataError."""
    if data == "synthetic" or (tokenizer is None and vocab_size == BYTE_VOCABULARY):
        return None
    prepare(data, vocab_size=vocab_size, encoding=encoding, tokenizer=tokenizer, cache=cache, report=report)
    text = examine(find_files(data), encoding=encoding, settings=describe_settings(vocab_size, tokenizer))
    return _entry_of(text, vocab_size=vocab_size, cache=cache) / VOCABULARY


def read_vocabulary(data: str, **tokenization: Any) -> str | None:
    """What is in that file: arguments of `find_vocabulary`. Raises DataError."""
    path = find_vocabulary(data, **tokenization)
    try:
        return None if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}; remove that folder") from None


def _entry_of(text: Text, *, vocab_size: int, cache: Path | None) -> Path:
    return (cache or cache_root()) / "corpus" / f"{text.digest}-{vocab_size}"


def require_enough(corpus: Corpus, *, sequence_length: int, global_batch_size: int, stride: int | None = None) -> None:
    """Raise DataError unless the training split fills one global batch and the validation split one sample.

    `stride`: between training samples; None: their length.
    """
    samples = count_samples(corpus.train, sequence_length, stride=stride)
    if samples < global_batch_size:
        raise DataError(
            f"too little text for one batch on every rank: {corpus.source} has {samples} training samples of "
            f"{sequence_length} tokens, the global batch needs {global_batch_size}; "
            "bring more text or lower micro_batch_size, gradient_accumulation_steps, sequence_length or the ranks"
        )
    if count_samples(corpus.validation, sequence_length) < 1:
        raise DataError(
            f"too little text for validation: {corpus.source} holds out {len(corpus.validation)} tokens, "
            f"one sample needs {sequence_length + 1}; bring more text or lower sequence_length"
        )


def count_samples(tokens: np.ndarray, sequence_length: int, *, stride: int | None = None) -> int:
    """Number of windows of `sequence_length + 1` tokens, a window's last token being only a target.

    `stride`: tokens from one window's begin to the next; None: `sequence_length`, so that every token is a target once.
    """
    stride = stride or sequence_length
    return max(0, (len(tokens) - 1 - sequence_length) // stride + 1)


def describe_settings(vocab_size: int, tokenizer: str | None) -> str:
    """Everything besides the text that determines the tokens, as JSON; part of the digest. Raises DataError."""
    kind = "bytes" if vocab_size == BYTE_VOCABULARY else f"bpe of {VOCABULARY_SAMPLE_BYTES} bytes"
    if tokenizer is not None:
        kind = f"tokenizer.json of digest {identify_tokenizer(tokenizer)}"
    return json.dumps(
        {
            "format": FORMAT,
            "validation_percent": VALIDATION_PERCENT,
            "vocab_size": vocab_size,
            "tokeniser": kind,
        }
    )


def _draw_synthetic(vocab_size: int) -> Corpus:
    import numpy as np

    random = np.random.Generator(np.random.PCG64(SYNTHETIC_SEED))
    dtype = np.min_scalar_type(vocab_size - 1)
    train = random.integers(vocab_size, size=SYNTHETIC_TRAIN_TOKENS, dtype=dtype)
    validation = random.integers(vocab_size, size=SYNTHETIC_VALIDATION_TOKENS, dtype=dtype)
    for tokens in (train, validation):
        tokens.flags.writeable = False
    source = f"synthetic text (uniform tokens below {vocab_size}, numpy PCG64 seed {SYNTHETIC_SEED})"
    hashes = [hashlib.sha256(tokens.data).hexdigest() for tokens in (train, validation)]
    return Corpus(
        train=train,
        validation=validation,
        vocab_size=vocab_size,
        vocabulary_size=vocab_size,
        digest=hashlib.sha256(f"{source} {len(train)} {len(validation)}".encode()).hexdigest()[:16],
        tokens_digest=join_hashes(hashes),
        source=source,
        files=0,
        left_out=(),
        text_bytes=0,
    )


def _load(entry: Path, text: Text, *, vocab_size: int) -> Corpus | None:
    """The corpus mapped from a cache entry; None where there is none or its digests do not match."""
    found = load(entry, vocab_size=vocab_size)
    if found is None:
        return None
    return Corpus(
        **found.sides,
        maps=found.maps,
        vocab_size=vocab_size,
        vocabulary_size=found.vocabulary_size,
        digest=text.digest,
        tokens_digest=found.tokens_digest,
        source=text.source,
        files=len(text.files),
        left_out=text.left_out,
        text_bytes=text.size_bytes,
    )
