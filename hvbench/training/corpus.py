"""The training corpus: text tokenised once, kept in a cache, and memory-mapped from it.

`data` is one of three things:

- `"stdlib"`: the .py files of the running interpreter's standard library, without what differs between installations
  of the same Python: installed packages, tests (many distributions leave them out), build-time configuration.
- `"synthetic"`: uniformly random tokens, for when only throughput matters.
- a path (`~` is expanded; write `./stdlib` for a file of that name): a text file, or a folder with all text files
  below it (`text` and `files` say what counts as text).

With a vocabulary of 256 the tokens are the raw bytes; a larger one is a byte-level BPE trained on the training split. No
token spans two files. The same text and settings give the same `digest` on every machine.

Importing this module loads neither numpy nor tokenizers, so a launcher can `check` a path before it starts anything.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hvbench.errors import DataError
from hvbench.io.cache import cache_root
from hvbench.training.decoding import UTF8
from hvbench.training.files import LeftOut, find_files
from hvbench.training.text import (
    VALIDATION_PERCENT,
    Text,
    check,
    cut_files,
    cut_into_chunks,
    describe_loss,
    examine,
)

__all__ = ["Corpus", "check", "count_file_tokens", "count_samples", "prepare", "require_enough"]

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

BYTE_VOCABULARY = 256
CHUNKS_PER_BATCH = 64  # chunks that are encoded in parallel; bounds the encoder's memory
MAX_WORD_BYTES = 64  # longer words are cut: training a BPE on them would take minutes
VOCABULARY_SAMPLE_BYTES = 1 << 22  # the BPE's training sample, taken evenly from the training split

# Part of the digest: to be raised whenever a change of the code turns the same text into other tokens.
FORMAT = 1

SYNTHETIC_SEED = 0
SYNTHETIC_TRAIN_TOKENS = 1 << 22
SYNTHETIC_VALIDATION_TOKENS = 1 << 18

Report = Callable[[str], None]


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

    @property
    def loss(self) -> str | None:
        """One line about what of the text is left out, and how much is read; None where nothing is left out."""
        return describe_loss(self.source, files=self.files, size_bytes=self.text_bytes, left_out=self.left_out)


def prepare(
    data: str,
    *,
    vocab_size: int,
    encoding: str = UTF8,
    cache: Path | None = None,
    report: Report = lambda line: None,
) -> Corpus:
    """The tokens of `data`: built at the first call on a host, then memory-mapped from the cache.

    Any number of processes may call this at once: one builds, the others wait for it.

    Args:
        data: `"stdlib"`, `"synthetic"`, or the path of a text file or folder.
        vocab_size: 256 for bytes, more for a BPE.
        encoding: Of files without a byte order mark.
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
    text = examine(find_files(data), encoding=encoding, settings=_describe_settings(vocab_size))
    folder = (cache or cache_root()) / "corpus"
    entry = folder / f"{text.digest}-{vocab_size}"
    corpus = _load(entry, text, vocab_size=vocab_size)
    if corpus is not None:
        return corpus
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{entry.name}.lock", report):
            corpus = _load(entry, text, vocab_size=vocab_size)  # another process may have built it meanwhile
            if corpus is None:
                _build(entry, text, vocab_size=vocab_size, report=report)
                corpus = _load(entry, text, vocab_size=vocab_size)
    except OSError as error:
        raise DataError(
            f"the cache {str(folder)!r} cannot be used: {error.strerror or error}; "
            "set HVBENCH_CACHE to a local folder that can be written"
        ) from None
    if corpus is None:
        raise DataError(f"the cache entry {str(entry)!r} does not read back as written; check the disk")
    return corpus


def count_file_tokens(
    data: str, *, vocab_size: int, encoding: str = UTF8, cache: Path | None = None
) -> list[tuple[str, int, int]]:
    """(relative path, training tokens, validation tokens) of every file, in the order of the corpus' tokens.

    With a BPE the first call encodes all text again; the counts are then kept in the cache. Raises DataError.
    """
    prepared = prepare(data, vocab_size=vocab_size, encoding=encoding, cache=cache)
    text = examine(find_files(data), encoding=encoding, settings=_describe_settings(vocab_size))
    entry = (cache or cache_root()) / "corpus" / f"{text.digest}-{vocab_size}"
    path, tokenizer = entry / "files.json", None
    try:
        if vocab_size > BYTE_VOCABULARY:
            if path.exists():
                return [
                    (str(name), int(train), int(held))
                    for name, train, held in json.loads(path.read_text(encoding="utf-8"))
                ]
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(entry / "vocabulary.json"))
        counts = []
        for held_out in (False, True):
            parts = ((file, list(chunks)) for file, chunks in cut_files(text, held_out=held_out))
            counts.append(
                [(file.relative, len(_encode(chunks, tokenizer=tokenizer)) if chunks else 0) for file, chunks in parts]
            )
        totals = [sum(count for _, count in side) for side in counts]
        if totals != [len(prepared.train), len(prepared.validation)]:
            raise DataError(
                f"{text.source}: its files have {totals} tokens, its corpus another number; it changed meanwhile"
            )
        found = [(name, train, held) for (name, train), (_, held) in zip(*counts, strict=True)]
        if tokenizer:
            building = path.with_name(f"{path.name}.{os.getpid()}")
            building.write_text(json.dumps(found), encoding="utf-8")
            building.replace(path)
        return found
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"the counts of tokens {str(path)!r} cannot be used: {error}; remove that file") from None


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


def _describe_settings(vocab_size: int) -> str:
    """Everything besides the text that determines the tokens, as JSON; part of the digest."""
    return json.dumps(
        {
            "format": FORMAT,
            "validation_percent": VALIDATION_PERCENT,
            "vocab_size": vocab_size,
            "tokeniser": "bytes" if vocab_size == BYTE_VOCABULARY else f"bpe of {VOCABULARY_SAMPLE_BYTES} bytes",
        }
    )


def _train_vocabulary(text: Text, *, vocab_size: int) -> Tokenizer:
    """A byte-level BPE (Sennrich et al., arXiv:1508.07909, over GPT-2's byte alphabet); deterministic.

    Every byte is in the alphabet, so any text can be encoded without an unknown token.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    stride = -(-text.size_bytes // VOCABULARY_SAMPLE_BYTES)
    sample = itertools.islice(cut_into_chunks(text, held_out=False), 0, None, stride)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.FixedLength(length=MAX_WORD_BYTES)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((chunk.decode() for chunk in sample), trainer=trainer)
    return tokenizer


def _encode(chunks: list[bytes], *, tokenizer: Tokenizer | None) -> np.ndarray:
    """The concatenated tokens of `chunks`; without a tokenizer, their bytes."""
    import numpy as np

    if tokenizer is None:
        return np.frombuffer(b"".join(chunks), dtype=np.uint8)
    encodings = tokenizer.encode_batch_fast([chunk.decode() for chunk in chunks], add_special_tokens=False)
    return np.concatenate([np.asarray(encoding.ids, dtype=np.uint32) for encoding in encodings])


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
        tokens_digest=_join_hashes(hashes),
        source=source,
        files=0,
        left_out=(),
        text_bytes=0,
    )


def _join_hashes(hashes: list[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


@contextmanager
def _locked(path: Path, report: Report) -> Iterator[None]:
    """Hold the lock file at `path`, waiting (and reporting so) while another process holds it."""
    with open(path, "ab") as lock:  # the kernel releases the lock when the file is closed or the process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that tokenises the same text")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(entry: Path, text: Text, *, vocab_size: int, report: Report) -> None:
    """Write the cache entry to a temporary folder and rename it, so that a reader never sees an incomplete one."""
    import numpy as np

    # One name per host: leftovers of a killed process are removed here, and hosts that share the folder over a file
    # system without shared locks do not write into each other's.
    building = entry.with_name(f"{entry.name}.building-{socket.gethostname()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        tokenizer = None
        if vocab_size > BYTE_VOCABULARY:
            megabytes = text.size_bytes / 1e6
            report(f"training a BPE vocabulary of {vocab_size} on {megabytes:.1f} MB of text, once")
            tokenizer = _train_vocabulary(text, vocab_size=vocab_size)
            (building / "vocabulary.json").write_text(tokenizer.to_str(), encoding="utf-8")
            report(f"tokenising {megabytes:.1f} MB of text, once")
        dtype = np.min_scalar_type(vocab_size - 1)
        meta: dict[str, object] = {"vocabulary_size": tokenizer.get_vocab_size() if tokenizer else BYTE_VOCABULARY}
        for name, held_out in (("train", False), ("validation", True)):
            chunks = cut_into_chunks(text, held_out=held_out)
            sha256 = hashlib.sha256()
            with open(building / f"{name}.bin", "wb") as stream:
                while batch := list(itertools.islice(chunks, CHUNKS_PER_BATCH)):
                    tokens = _encode(batch, tokenizer=tokenizer).astype(dtype).tobytes()
                    sha256.update(tokens)
                    stream.write(tokens)
            meta[name] = sha256.hexdigest()
        (building / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)  # there is one only if it did not load
        try:
            building.rename(entry)
        except OSError:
            if not entry.is_dir():
                raise  # otherwise another host, without a shared lock, was faster: with the same content
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _load(entry: Path, text: Text, *, vocab_size: int) -> Corpus | None:
    """The corpus mapped from a cache entry; None where there is none or its digests do not match."""
    import numpy as np

    dtype = np.min_scalar_type(vocab_size - 1)
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        sides = {name: np.memmap(entry / f"{name}.bin", dtype=dtype, mode="r") for name in ("train", "validation")}
        hashes = [hashlib.sha256(tokens.data).hexdigest() for tokens in sides.values()]
        if hashes != [meta["train"], meta["validation"]]:
            return None
        vocabulary_size = int(meta["vocabulary_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Corpus(
        train=sides["train"],
        validation=sides["validation"],
        vocab_size=vocab_size,
        vocabulary_size=vocabulary_size,
        digest=text.digest,
        tokens_digest=_join_hashes(hashes),
        source=text.source,
        files=len(text.files),
        left_out=text.left_out,
        text_bytes=text.size_bytes,
    )
