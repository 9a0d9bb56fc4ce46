"""A tokenizer that somebody else made: the tokenizer.json of a pretrained model, as the `tokenizers` library writes it.

Importing this module loads no tokenizers. It holds no code: pickled and Python tokenizers are not read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from hvbench.errors import DataError
from hvbench.io.untrusted import read_regular_file
from hvbench.spec.messages import shorten

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_BYTES = 1 << 28  # those of vocabularies with 250,000 tokens have a tenth of it
KIND = "a tokenizer.json is what the tokenizers library writes"


def read_bytes(path: str) -> bytes:
    """The file's content. Raises DataError."""
    found = Path(path).expanduser().resolve()  # the Hub's cache has links to its files
    try:
        return read_regular_file(found, max_bytes=MAX_BYTES, kind=KIND)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; a text is read with the tokenizer of its model: save it there "
            '(AutoTokenizer.from_pretrained(…).save_pretrained(folder)), or set data to "synthetic"'
        ) from None


def identify_tokenizer(path: str) -> str:
    """Digest of the file. Raises DataError."""
    return hashlib.sha256(read_bytes(path)).hexdigest()[:16]


def load_tokenizer(path: str, *, vocab_size: int) -> Tokenizer:
    """The tokenizer, which neither cuts nor pads. Raises DataError where it is none, or has tokens beyond `vocab_size`."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(read_bytes(path))
    except DataError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"{path}: not a tokenizer: {shorten(str(error), limit=200)}; {KIND}") from None
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= largest < vocab_size:
        raise DataError(
            f"{path}: has tokens up to number {largest}, vocab_size is {vocab_size}: set vocab_size to that of the model"
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
