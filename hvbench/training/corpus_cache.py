"""The cache of tokenised texts: a text is tokenised once, in a stream, and its tokens are mapped from then on.

An entry is a folder, `DIGEST-VOCABULARY`: `train.bin` and `validation.bin` with the tokens, `meta.json` with their hashes, `files.json`
with the tokens of each file, `vocabulary.json` with a BPE or the tokenizer that was given. However long the text, only blocks of it are in memory.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import mmap
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hvbench.training.text import Chunk, Text, cut_into_chunks
from hvbench.training.tokenizer_file import load_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

BYTE_VOCABULARY = 256
VOCABULARY = "vocabulary.json"  # of an entry whose tokens are not bytes
CHUNKS_PER_BATCH = 64  # chunks that are encoded in parallel; bounds the encoder's memory
MAX_WORD_BYTES = 64  # longer words are cut: training a BPE on them would take minutes
VOCABULARY_SAMPLE_BYTES = 1 << 22  # the BPE's training sample, taken evenly from the training split
SIDES = ("train", "validation")

Report = Callable[[str], None]
T = TypeVar("T")
FileTokens = tuple[str, int, int]  # relative path, training tokens, validation tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """What an entry of the cache holds."""

    sides: dict[str, np.ndarray]  # name of a split -> its tokens, read-only
    maps: tuple[mmap.mmap, ...]  # what these lie in
    tokens_digest: str
    vocabulary_size: int


@contextmanager
def locked(path: Path, report: Report) -> Iterator[None]:
    """Hold the lock file at `path`, waiting (and reporting so) while another process holds it."""
    with open(path, "ab") as lock:  # the kernel releases the lock when the file is closed or the process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that tokenises the same text")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(entry: Path, text: Text, *, vocab_size: int, tokenizer_file: str | None = None, report: Report) -> None:
    """Write the cache entry to a temporary folder and rename it, so that a reader never sees an incomplete one.

    `tokenizer_file`: a tokenizer.json; None: the text has its own tokens, bytes or a BPE.
    """
    with building(entry) as folder:
        tokenizer = make_tokenizer(
            (chunk.content for chunk in cut_into_chunks(text) if not chunk.is_held_out),
            size_bytes=text.size_bytes,
            vocab_size=vocab_size,
            tokenizer_file=tokenizer_file,
            report=report,
        )
        if tokenizer:
            (folder / VOCABULARY).write_text(tokenizer.to_str(), encoding="utf-8")
        hashes, files = _write_tokens(folder, text, tokenizer=tokenizer, vocab_size=vocab_size)
        meta = {"vocabulary_size": tokenizer.get_vocab_size() if tokenizer else BYTE_VOCABULARY, **hashes}
        (folder / "files.json").write_text(json.dumps(files), encoding="utf-8")
        (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


@contextmanager
def building(entry: Path) -> Iterator[Path]:
    """A folder to write a cache entry into, which gets the entry's name at the end."""
    # One name per host: leftovers of a killed process are removed here, and hosts that share the folder over a file
    # system without shared locks do not write into each other's.
    folder = entry.with_name(f"{entry.name}.building-{socket.gethostname()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        shutil.rmtree(entry, ignore_errors=True)  # there is one only if it did not load
        try:
            folder.rename(entry)
        except OSError:
            if not entry.is_dir():
                raise  # otherwise another host, without a shared lock, was faster: with the same content
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_tokenizer(
    training: Iterable[bytes], *, size_bytes: int, vocab_size: int, tokenizer_file: str | None, report: Report
) -> Tokenizer | None:
    """The tokenizer of `tokenizer_file`, or a BPE of the texts `training` of `size_bytes` together; None where tokens are bytes."""
    megabytes = size_bytes / 1e6
    if tokenizer_file is not None:
        tokenizer = load_tokenizer(tokenizer_file, vocab_size=vocab_size)
    elif vocab_size > BYTE_VOCABULARY:
        report(f"training a BPE vocabulary of {vocab_size} on {megabytes:.1f} MB of text, once")
        tokenizer = _train_vocabulary(training, size_bytes=size_bytes, vocab_size=vocab_size)
    else:
        return None
    report(f"tokenising {megabytes:.1f} MB of text, once")
    return tokenizer


def load(entry: Path, *, vocab_size: int) -> Entry | None:
    """The tokens mapped from a cache entry; None where there is none or its digests do not match."""
    import numpy as np

    dtype, sides, maps = np.min_scalar_type(vocab_size - 1), {}, []
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        for name in SIDES:
            mapped = map_file(entry / f"{name}.bin", dtype=dtype, digest=meta[name])
            if mapped is None:
                return None
            sides[name] = mapped[0]
            maps.append(mapped[1])
        vocabulary_size, digest = int(meta["vocabulary_size"]), join_hashes([meta[name] for name in SIDES])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Entry(sides=sides, maps=tuple(maps), tokens_digest=digest, vocabulary_size=vocabulary_size)


def map_file(path: Path, *, dtype: np.dtype, digest: str) -> tuple[np.ndarray, mmap.mmap] | None:
    """The values of a file, read-only, and what they lie in; None where it has another digest. Raises OSError and ValueError."""
    import numpy as np

    with open(path, "rb") as stream:
        # Read, and not through the map: what is touched there would count as this process's memory.
        if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
            return None
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype=dtype), mapped


def read_file_tokens(entry: Path, text: Text, *, vocab_size: int) -> list[FileTokens]:
    """The tokens of every file, in their order; counted anew, and kept, where an entry does not have them.

    Raises OSError, ValueError or TypeError for an entry that cannot be used.
    """
    path = entry / "files.json"
    if path.exists():
        files = json.loads(path.read_text(encoding="utf-8"))
        return [(str(name), int(train), int(held_out)) for name, train, held_out in files]
    tokenizer = None
    if (entry / VOCABULARY).exists():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(entry / VOCABULARY))
    counts = _Counts(text)
    for batch in batched(cut_into_chunks(text), CHUNKS_PER_BATCH):
        counts.add(batch, encode([chunk.content for chunk in batch], tokenizer=tokenizer))
    building = path.with_name(f"{path.name}.{os.getpid()}")
    building.write_text(json.dumps(counts.files), encoding="utf-8")
    building.replace(path)
    return counts.files


def join_hashes(hashes: Iterable[str]) -> str:
    """The digest of both splits' tokens."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def batched(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` values, the last one shorter."""
    values = iter(values)
    while batch := list(itertools.islice(values, size)):
        yield batch


class _Counts:
    """Tokens of each file, added up batch by batch."""

    def __init__(self, text: Text) -> None:
        self._names = [file.relative for file in text.files]
        self._tokens = [[0, 0] for _ in text.files]

    def add(self, batch: Sequence[Chunk], encoded: Sequence[np.ndarray]) -> None:
        for chunk, tokens in zip(batch, encoded, strict=True):
            self._tokens[chunk.file][chunk.is_held_out] += len(tokens)

    @property
    def files(self) -> list[FileTokens]:
        return [(name, train, held_out) for name, (train, held_out) in zip(self._names, self._tokens, strict=True)]


def _write_tokens(
    folder: Path, text: Text, *, tokenizer: Tokenizer | None, vocab_size: int
) -> tuple[dict[str, str], list[FileTokens]]:
    """Write the tokens of both splits to `folder`, a batch of chunks at a time; the hash of each split, the tokens of each file."""
    import numpy as np

    dtype, counts = np.min_scalar_type(vocab_size - 1), _Counts(text)
    hashes = {name: hashlib.sha256() for name in SIDES}
    with open(folder / "train.bin", "wb") as train, open(folder / "validation.bin", "wb") as validation:
        streams = {"train": train, "validation": validation}
        for batch in batched(cut_into_chunks(text), CHUNKS_PER_BATCH):
            encoded = encode([chunk.content for chunk in batch], tokenizer=tokenizer)
            counts.add(batch, encoded)
            for chunk, ids in zip(batch, encoded, strict=True):
                side, tokens = SIDES[chunk.is_held_out], ids.astype(dtype).tobytes()
                hashes[side].update(tokens)
                streams[side].write(tokens)
    return {name: sha256.hexdigest() for name, sha256 in hashes.items()}, counts.files


def _train_vocabulary(training: Iterable[bytes], *, size_bytes: int, vocab_size: int) -> Tokenizer:
    """A byte-level BPE (Sennrich et al., arXiv:1508.07909, over GPT-2's byte alphabet); deterministic.

    Every byte is in the alphabet, so any text can be encoded without an unknown token.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    stride = max(1, -(-size_bytes // VOCABULARY_SAMPLE_BYTES))
    sample = itertools.islice(training, 0, None, stride)
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
    tokenizer.train_from_iterator((content.decode() for content in sample), trainer=trainer)
    return tokenizer


def encode(contents: Sequence[bytes], *, tokenizer: Tokenizer | None) -> list[np.ndarray]:
    """The tokens of each text in UTF-8; without a tokenizer, its bytes."""
    import numpy as np

    if tokenizer is None:
        return [np.frombuffer(content, dtype=np.uint8) for content in contents]
    encodings = tokenizer.encode_batch_fast([content.decode() for content in contents], add_special_tokens=False)
    return [np.asarray(encoding.ids, dtype=np.uint32) for encoding in encodings]
