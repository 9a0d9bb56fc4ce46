"""`initial_weights`: whether a folder is of a point's model, and its tensors as the parameters that both twins start from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from hvbench.errors import DataError
from hvbench.spec.messages import shorten
from hvbench.spec.point import Point
from hvbench.training.huggingface.families import FAMILIES, Family, family_of, value_of
from hvbench.training.huggingface.folder import (
    CONFIG,
    DTYPES,
    MAX_PATH,
    Tensor,
    WeightsFolder,
    identify_folder,
    open_folder,
)
from hvbench.training.masking import special_names, special_token
from hvbench.training.tokenizer_file import identify_tokenizer

POSITIONS = "position_embedding"
KINDS = {int: "a whole number above 0", float: "a number", bool: "true or false", str: "a word"}


def check_weights(point: Point) -> str:
    """Compare a folder with the point that starts from it; one line on what is taken. Raises DataError, one line on what does not fit."""
    folder = open_folder(point.initial_weights)
    tensors = require_fitting(folder, point)
    family = family_of(point)
    key = family.keys["sequence_length"]
    most = folder.config.get(key, family.defaults[key])
    taken = [f"{sum(map(len, tensors.values()))} tensors from {folder.where}"]
    if most > point.sequence_length:
        taken.append(f"the first {point.sequence_length} of its {most} positions")
    lacking = family.stored(point).keys() - tensors.keys()
    if lacking:
        taken.append(f"{', '.join(sorted(lacking))}, which it lacks, from the seed")
    key = family.causal_key
    if key and point.is_causal and not folder.config.get(key, family.defaults[key]):
        taken.append(f"a causal mask, which its {CONFIG} does not say")
    if point.predicts_labels:
        taken.append("the labels' own projection from the seed")
    for name in special_names(point):
        special_token(name, point)
    return f"initial_weights: {', '.join(taken)}"


def load_weights(point: Point) -> dict[str, np.ndarray]:
    """Parameter -> float32 values, of all that the folder holds; a classifier's projection is not among them. Raises DataError."""
    folder, family = open_folder(point.initial_weights), family_of(point)
    chosen = require_fitting(folder, point)
    weights = {name: family.join(name, [tensor.read() for tensor in tensors]) for name, tensors in chosen.items()}
    if POSITIONS in weights:  # fewer than the folder's where sequences are shorter
        weights[POSITIONS] = weights[POSITIONS][: point.sequence_length].copy()
    return weights


def identify_weights(point: Point) -> dict[str, str]:
    """Digests of what a point takes from its folder, as records and run.json have them. Raises DataError."""
    found = {"digest": identify_folder(point.initial_weights)}
    return found if point.data == "synthetic" else found | {"tokenizer_digest": identify_tokenizer(point.tokenizer)}


def require_fitting(folder: WeightsFolder, point: Point) -> dict[str, list[Tensor]]:
    """Parameter -> its tensors. Raises DataError where the folder is not of the point's model."""
    family = family_of(point)
    where = f"initial_weights = {shorten(folder.where, limit=MAX_PATH)}"
    found = folder.config.get("model_type")
    if found != family.model_type:
        hint = f"; it fits with -s family={found}" if found in FAMILIES else f"; read are {', '.join(FAMILIES)}"
        raise DataError(f"{where}: {CONFIG} is of model_type {shorten(found)}, not {family.model_type}{hint}")
    config = family.complete({**family.defaults, **folder.config})
    require_config(config, family, point, where=where)
    tensors = {family.own_name(name): tensor for name, tensor in folder.tensors.items()}
    chosen = require_tensors(tensors, config, family, point, where=where)
    if point.tied_embeddings:
        require_tied(tensors, config, family, where=where)
    return chosen


def require_config(config: Mapping[str, Any], family: Family, point: Point, *, where: str) -> None:
    """Raise DataError for sizes other than the point's, all in one line with what would fit, or for what the twins do not compute."""
    other: dict[str, tuple[Any, Any]] = {}
    for field, key in family.keys.items():
        named, mine = config[key], value_of(point, field)
        if key in family.words and (not isinstance(named, str) or named not in family.words[key]):
            raise DataError(f"{where}: {CONFIG}: {key} = {shorten(named)}: computed are {', '.join(family.words[key])}")
        value = family.words[key][named] if key in family.words else named
        if type(value) is not type(mine) or (type(value) is int and value < 1):
            raise DataError(f"{where}: {CONFIG}: {key} = {shorten(named)}: must be {KINDS[type(mine)]}")
        if value != mine and not (field == "sequence_length" and mine < value):
            other[field] = value, mine
    if other:
        differ = ", ".join(
            f"{field} {_word(value)} (the point: {_word(mine)})" for field, (value, mine) in other.items()
        )
        fitting = " ".join(f"-s {field}={_word(value)}" for field, (value, _) in other.items())
        raise DataError(f"{where}: its {CONFIG} says {differ}; it fits with {fitting}")
    if not_computed := list(family.others(config)):
        raise DataError(f"{where}: {CONFIG}: {', '.join(not_computed)}: another computation than the twins'")
    if family.causal_key:
        require_mask(config, family.causal_key, point, where=where)


def require_mask(config: Mapping[str, Any], key: str, point: Point, *, where: str) -> None:
    """Raise DataError for weights that learned behind a causal mask, where the point has none and was not asked for none."""
    if type(config[key]) is not bool:
        raise DataError(f"{where}: {CONFIG}: {key} = {shorten(config[key])}: must be {KINDS[bool]}")
    is_asked = point.predicts_labels and point.attention_mask != "auto"
    if config[key] and not point.is_causal and not is_asked:
        fitting = "attention_mask=causal" if point.predicts_labels else "objective=causal_lm"
        raise DataError(
            f"{where}: its {CONFIG} says {key}: it is a causal language model, which {point.objective} would show what comes after; "
            f"it fits with -s {fitting}"
        )


def require_tensors(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], family: Family, point: Point, *, where: str
) -> dict[str, list[Tensor]]:
    """Parameter -> its tensors; raises DataError for one that is missing, spare, of another shape or dtype."""
    wanted = {
        name: parts
        for name, parts in family.stored(point).items()
        if not re.fullmatch(family.optional, name) or any(tensor in tensors for tensor, _ in parts)
    }
    if POSITIONS in wanted:
        ((tensor, shape),) = wanted[POSITIONS]
        wanted[POSITIONS] = [(tensor, (config[family.keys["sequence_length"]], *shape[1:]))]
    shapes = {tensor: shape for parts in wanted.values() for tensor, shape in parts}
    known = f"{family.buffers}|{family.unread}"
    spare = sorted(name for name in tensors.keys() - shapes.keys() - {family.head} if not re.fullmatch(known, name))
    missing = [tensor for tensor in shapes if tensor not in tensors]
    for what, names in (("lacks", missing), ("has, and the model has no place for,", spare)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise DataError(f"{where}: {what} the tensor {shorten(names[0])}{more}")
    for tensor, shape in shapes.items():
        found = tensors[tensor]
        if found.shape != shape:
            raise DataError(f"{found.file}: {tensor} has shape {list(found.shape)}, its {CONFIG} means {list(shape)}")
        if found.dtype not in DTYPES:
            raise DataError(f"{found.file}: {tensor} is of dtype {shorten(found.dtype)}; read are {', '.join(DTYPES)}")
    return {name: [tensors[tensor] for tensor, _ in parts] for name, parts in wanted.items()}


def require_tied(tensors: Mapping[str, Tensor], config: Mapping[str, Any], family: Family, *, where: str) -> None:
    """Raise DataError where the output projection is not the token embedding, as it is in the twins."""
    head, embedding = tensors.get(family.head), tensors[str(family.tensors["token_embedding"])]
    is_tied = config["tie_word_embeddings"] is True if head is None else head.shape == embedding.shape
    if head is not None and is_tied:
        is_tied = head.dtype in DTYPES and np.array_equal(head.read(), embedding.read())
    if not is_tied:
        raise DataError(
            f"{where}: its output projection {family.head} is not its token embedding, and the point has one for both"
        )


def _word(value: Any) -> str:
    """A value as the command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
