"""`initial_weights`: whether a folder is of a point's model, and its tensors as the parameters that both twins start from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from hvbench.errors import DataError
from hvbench.spec.messages import shorten
from hvbench.spec.point import Point
from hvbench.training.huggingface.families import FAMILIES, Family, family_of
from hvbench.training.huggingface.folder import (
    CONFIG,
    DTYPES,
    MAX_PATH,
    Tensor,
    WeightsFolder,
    identify_folder,
    open_folder,
)
from hvbench.training.tokenizer_file import identify_tokenizer


def check_weights(point: Point) -> str:
    """Compare a folder with the point that starts from it; one line on what is taken. Raises DataError, one line on what does not fit."""
    folder = open_folder(point.initial_weights)
    tensors = require_fitting(folder, point)
    most = folder.config.get(family_of(point).positions, family_of(point).defaults[family_of(point).positions])
    taken = [f"{len(tensors)} tensors from {folder.where}"]
    if most > point.sequence_length:
        taken.append(f"the first {point.sequence_length} of its {most} positions")
    if point.is_classifier:
        taken.append("the classifier's own projection from the seed")
    return f"initial_weights: {', '.join(taken)}"


def load_weights(point: Point) -> dict[str, np.ndarray]:
    """Parameter -> float32 values, of all that the folder holds; a classifier's projection is not among them. Raises DataError."""
    folder = open_folder(point.initial_weights)
    tensors = require_fitting(folder, point)
    shapes = family_of(point).tensor_shapes(point)
    return {name: _first_rows(tensor.read(), shapes[name][1]) for name, tensor in tensors.items()}


def identify_weights(point: Point) -> dict[str, str]:
    """Digests of what a point takes from its folder, as records and run.json have them. Raises DataError."""
    found = {"digest": identify_folder(point.initial_weights)}
    return found if point.data == "synthetic" else found | {"tokenizer_digest": identify_tokenizer(point.tokenizer)}


def require_fitting(folder: WeightsFolder, point: Point) -> dict[str, Tensor]:
    """Parameter -> its tensor. Raises DataError where the folder is not of the point's model."""
    family = family_of(point)
    where = f"initial_weights = {shorten(folder.where, limit=MAX_PATH)}"
    found = folder.config.get("model_type")
    if found != family.model_type:
        known = ", ".join(FAMILIES)
        raise DataError(
            f"{where}: {CONFIG} is of model_type {shorten(found)}, not {family.model_type}; read are: {known}"
        )
    config = {**family.defaults, **folder.config}
    require_config(config, family, point, where=where)
    tensors = {name.removeprefix(family.prefix): tensor for name, tensor in folder.tensors.items()}
    chosen = require_tensors(tensors, config, family, point, where=where)
    require_tied(tensors, config, family, where=where)
    return chosen


def require_config(config: Mapping[str, Any], family: Family, point: Point, *, where: str) -> None:
    """Raise DataError for sizes other than the point's, all in one line with what would fit, or for what the twins do not compute."""
    fields = {field: config[key] for field, key in family.sizes.items()}
    for field, value in fields.items():
        if type(value) is not int or value < 1:
            raise DataError(
                f"{where}: {CONFIG}: {family.sizes[field]} = {shorten(value)}: must be a whole number above 0"
            )
    named = config[family.activation]
    if named not in family.activations:
        raise DataError(
            f"{where}: {CONFIG}: {family.activation} = {shorten(named)}: computed are {', '.join(family.activations)}"
        )
    fields["activation"] = family.activations[named]
    other = {
        field: value
        for field, value in fields.items()
        if getattr(point, field) != value and not (field == "sequence_length" and point.sequence_length < value)
    }
    if other:
        differ = ", ".join(f"{field} {value} (the point: {getattr(point, field)})" for field, value in other.items())
        fitting = " ".join(f"-s {field}={value}" for field, value in other.items())
        raise DataError(f"{where}: its {CONFIG} says {differ}; it fits with {fitting}")
    if not_computed := list(family.other_computations(config)):
        raise DataError(f"{where}: {CONFIG}: {', '.join(not_computed)}: another computation than the twins'")


def require_tensors(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], family: Family, point: Point, *, where: str
) -> dict[str, Tensor]:
    """Parameter -> its tensor; raises DataError for one that is missing, spare, of another shape or dtype."""
    wanted = family.tensor_shapes(point)
    spare = sorted(
        name
        for name in tensors.keys() - {tensor for tensor, _ in wanted.values()} - {family.head}
        if not re.fullmatch(family.buffers, name)
    )
    missing = [tensor for tensor, _ in wanted.values() if tensor not in tensors]
    for what, names in (("lacks", missing), ("has, and the model has no place for,", spare)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise DataError(f"{where}: {what} the tensor {shorten(names[0])}{more}")
    for name, (tensor, shape) in wanted.items():
        if name == "position_embedding":
            shape = (config[family.positions], *shape[1:])
        found = tensors[tensor]
        if found.shape != shape:
            raise DataError(f"{found.file}: {tensor} has shape {list(found.shape)}, its {CONFIG} means {list(shape)}")
        if found.dtype not in DTYPES:
            raise DataError(f"{found.file}: {tensor} is of dtype {shorten(found.dtype)}; read are {', '.join(DTYPES)}")
    return {name: tensors[tensor] for name, (tensor, _) in wanted.items()}


def require_tied(tensors: Mapping[str, Tensor], config: Mapping[str, Any], family: Family, *, where: str) -> None:
    """Raise DataError where the output projection is not the token embedding, as it is in the twins."""
    head, embedding = tensors.get(family.head), tensors[family.tensors["token_embedding"]]
    is_tied = config["tie_word_embeddings"] is True if head is None else head.shape == embedding.shape
    if head is not None and is_tied:
        is_tied = head.dtype in DTYPES and np.array_equal(head.read(), embedding.read())
    if not is_tied:
        raise DataError(
            f"{where}: its output projection {family.head} is not its token embedding: the twins have one matrix for both"
        )


def _first_rows(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The rows that the point has: fewer positions than the folder's where its sequences are shorter."""
    return np.ascontiguousarray(values[: shape[0]])
