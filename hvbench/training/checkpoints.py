"""Checkpoints: where a training stands, in a file that either twin can go on from.

One safetensors file: `parameters/NAME` and `optimizer/…` with the canonical names of `training.weights`, in the precision that
they are trained in (fp32), and in its header the step, how far the text was read, and the loss scale. Nothing in it is
of a framework, and nothing in it is code. The learning rate and the batches follow from the step and the point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from hvbench.errors import UsageError
from hvbench.io.atomic import write_bytes
from hvbench.io.untrusted import load_json
from hvbench.spec.knob import Count, Spec
from hvbench.spec.messages import describe_validation_error, shorten
from hvbench.spec.point import Point
from hvbench.training.schedule import samples_before
from hvbench.training.weights import parameter_shapes

KEY = "hvbench"  # of the header
FORMAT = 1
MAX_DEPTH = 2
PARAMETERS, OPTIMIZER = "parameters/", "optimizer/"


class Standing(Spec):
    """How far a training had come; all that is not an array."""

    format: int = FORMAT
    step: int = Field(ge=0, lt=2**40, description="updates done, skipped ones included")
    samples: int = Field(ge=0, lt=2**60, description="training samples read, over all ranks")
    global_batch_size: Count
    optimizer: str = Field(max_length=100)
    loss_scale: float = Field(gt=0)
    clean_steps: int = Field(ge=0, description="steps since the loss scale last changed")
    tokens_digest: str = Field(max_length=100, description="of the text that `samples` counts in")
    seed: int = Field(ge=0, description="of the order of the samples")
    framework: str = Field(max_length=100, description="that wrote it; for readers, nothing depends on it")


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A standing and the arrays that belong to it."""

    standing: Standing
    arrays: Mapping[str, np.ndarray]


def name_checkpoint(step: int) -> str:
    """File name of the checkpoint after `step` updates."""
    return f"step-{step:07d}.safetensors"


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write it whole or not at all, its folder included. Raises OSError."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(value, order="C") for name, value in checkpoint.arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(arrays, metadata={KEY: checkpoint.standing.model_dump_json()}))


def load_checkpoint(path: str, point: Point, *, tokens_digest: str | None = None) -> Checkpoint:
    """Read and check a checkpoint that `point` is to go on from; raises UsageError with one line.

    `tokens_digest`: of the text that it is to go on with; None: not known yet.
    """
    with _open(path) as file:
        standing = _read_standing(file, path)
        require_fitting(standing, _read_shapes(file), point, where=path, tokens_digest=tokens_digest)
        return Checkpoint(standing=standing, arrays={name: file.get_tensor(name) for name in file.keys()})


def check_checkpoint(path: str, point: Point) -> Standing:
    """The standing in a checkpoint's header, its arrays' shapes checked against `point`; raises UsageError."""
    with _open(path) as file:
        standing = _read_standing(file, path)
        require_fitting(standing, _read_shapes(file), point, where=path)
        return standing


def require_fitting(
    standing: Standing, shapes: Mapping[str, Any], point: Point, *, where: str, tokens_digest: str | None = None
) -> None:
    """Raise UsageError unless `point` can go on from there: same sizes, optimizer, batch and order of the same text."""
    expected = {f"{PARAMETERS}{name}": shape for name, shape in parameter_shapes(point).items()}
    found = {name: tuple(shape) for name, shape in shapes.items() if name.startswith(PARAMETERS)}
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise UsageError(
                f"{where}: {shorten(name)} has shape {shorten(found.get(name))}, the point's has {expected.get(name)}; "
                "set the same model sizes"
            )
    wanted = {"optimizer": point.optimizer, "seed": point.seed, "global_batch_size": point.global_batch_size}
    wanted["samples"] = samples_before(
        point, standing.step
    )  # a batch that warmed up otherwise stands elsewhere in the text
    if tokens_digest is not None:
        wanted["tokens_digest"] = tokens_digest
    for name, value in wanted.items():
        if getattr(standing, name) != value:
            raise UsageError(f"{where}: {name} was {shorten(getattr(standing, name))}, the point has {shorten(value)}")


def _open(path: str) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise UsageError(f"initial_checkpoint = {shorten(path)}: no such file on this host") from None
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{shorten(path)}: not a checkpoint: {shorten(str(error), limit=200)}") from None


def _read_standing(file: Any, path: str) -> Standing:
    header = (file.metadata() or {}).get(KEY)
    if header is None:
        raise UsageError(f"{path}: a safetensors file, but no checkpoint of hvbench")
    try:
        return Standing.model_validate(load_json(header.encode(), where=path, max_depth=MAX_DEPTH))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"{path}: {describe_validation_error(first, allowed=list(Standing.model_fields))}") from None


def _read_shapes(file: Any) -> dict[str, Any]:
    return {name: file.get_slice(name).get_shape() for name in file.keys()}
