"""A trained model as a folder that transformers loads: config.json, model.safetensors, and its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvbench.errors import DataError, UsageError
from hvbench.io.atomic import explaining_write_errors, json_text, write_bytes
from hvbench.spec.adaptation import ADAPTATIONS
from hvbench.spec.messages import shorten
from hvbench.spec.model import FAMILIES
from hvbench.spec.point import Point
from hvbench.training import corpus
from hvbench.training.adaptation import merge_low_rank
from hvbench.training.corpus_cache import BYTE_VOCABULARY
from hvbench.training.huggingface.families import family_of, value_of
from hvbench.training.huggingface.folder import CONFIG, WEIGHTS
from hvbench.training.labelled.corpus import read_labelled_vocabulary
from hvbench.training.packages import prepare_text
from hvbench.training.tokenizer_file import identify_tokenizer, read_bytes

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


def describe_difference(point: Point) -> str:
    """What a model does that no class of transformers of its family does, in words that finish "no model that ..."."""
    if point.is_classifier:
        of = "the last position" if FAMILIES[point.family].has_heads else "the mean over all positions"
        return f"classifies by {of}"
    return "predicts such labels" if point.predicts_labels else "sees what comes after"


def require_exportable(point: Point) -> None:
    """Raise UsageError for a model that transformers has no class for."""
    is_known = point.objective in family_of(point).architectures
    is_blind = is_known and point.predicts_labels and point.is_causal  # transformers' BERT reads [CLS] behind any mask
    if is_blind or not is_known:
        raise UsageError(
            f"objective {point.objective}{' with a causal mask' if is_blind else ''}: transformers has no {point.family} model that "
            f"{describe_difference(point)}; "
            f"exported are models of objective {' or '.join(family_of(point).architectures)}"
        )
    if point.adaptation in ("adapter", "prefix"):
        raise UsageError(
            f"adaptation {point.adaptation}: transformers has no {point.family} model with {ADAPTATIONS[point.adaptation]}, which are no part "
            "of its weights; LoRA is exported, merged into them"
        )


def require_room(folder: Path, *, force: bool) -> None:
    """Raise UsageError where `folder` has content that `force` does not allow to overwrite, or is none."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: not a folder; name a new one")
    if folder.is_dir() and not force and (found := next(iter(sorted(folder.iterdir())), None)):
        raise UsageError(
            f"{folder}: is not empty (it has {found.name}); name a new folder, or write into it with --force"
        )


def write_model(folder: Path, point: Point, weights: Mapping[str, np.ndarray], *, tokenizer: str | None) -> list[str]:
    """Write the folder; the names of the files in it. Raises StorageError.

    Args:
        folder: Made where it is missing; files of the same names are replaced.
        point: What was trained.
        weights: Parameter -> value; what LoRA adds is merged into the weights that it is of.
        tokenizer: Content of tokenizer.json; None: the folder has none.
    """
    from safetensors.numpy import save

    family = family_of(point)
    tensors: dict[str, np.ndarray] = {}
    for name, value in merge_low_rank(weights, point).items():
        tensors |= family.split(name, np.asarray(value, dtype=np.float32), point)
    # The metadata is what transformers asks of every file of tensors.
    files: dict[str, bytes] = {CONFIG: json_text(describe_model(point)).encode()}
    files[WEIGHTS] = save(tensors, metadata={"format": "pt"})
    if tokenizer is not None:
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": point.sequence_length}
        files |= {TOKENIZER: tokenizer.encode(), TOKENIZER_CONFIG: json_text(about).encode()}
    with explaining_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_bytes(folder / name, content)
    return list(files)


def describe_model(point: Point) -> dict[str, Any]:
    """config.json of the point's model."""
    family = family_of(point)
    sizes = {key: value_of(point, field) for field, key in family.keys.items()}
    for key, words in family.words.items():
        sizes[key] = next(word for word, value in words.items() if value == sizes[key])
    return {
        "model_type": family.model_type,
        "architectures": [
            family.architecture_of_pairs if point.judges_pairs else family.architectures[point.objective]
        ],
        "dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": None,
        **sizes,
        **family.written(point),
    }


def describe_tokenizer(point: Point, environment: Mapping[str, Any]) -> str | None:
    """Content of tokenizer.json for the text of a point; None where it has no text.

    `environment`: of the point's record. Raises DataError where the text or the tokenizer is not the one of then.
    """
    if point.data == "synthetic":
        return None
    if point.tokenizer:
        start = environment.get("initial_weights")
        known = start.get("tokenizer_digest") if isinstance(start, Mapping) else None
        _require_same(point.tokenizer, identify_tokenizer(point.tokenizer), known)
        return read_bytes(point.tokenizer).decode()
    if point.vocab_size == BYTE_VOCABULARY:
        return make_byte_tokenizer()
    from tokenizers import Tokenizer, decoders

    text = prepare_text(point)
    _require_same(text.source, text.digest, environment.get("data_digest"))
    if point.has_label_file:
        vocabulary = read_labelled_vocabulary(point)
    else:
        vocabulary = corpus.read_vocabulary(point.data, **point.tokenization)
    tokenizer = Tokenizer.from_str(vocabulary)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str()


def make_byte_tokenizer() -> str:
    """tokenizer.json of tokens that are bytes: token n is byte n, by GPT-2's letter for it (Radford et al., 2019, section 2.2)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(BYTE_VOCABULARY) if byte not in shown]
    letters = {chr(byte): byte for byte in shown}
    letters |= {chr(BYTE_VOCABULARY + place): byte for place, byte in enumerate(others)}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str()


def _require_same(source: str, found: str, known: Any) -> None:
    if known is not None and found != known:
        raise DataError(
            f"{source}: has digest {found}, and had {shorten(known)} when it was trained on: its tokens may be others; "
            "export without it with --no-tokenizer"
        )
