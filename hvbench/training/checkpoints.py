"""Checkpoints: the state of a training in one safetensors file, from which either framework can continue.

The arrays are `parameters/NAME` and `optimizer/…` with the canonical names of `training.weights`, in the precision of the
master weights (fp32); the header (`CheckpointHeader`) holds the step, the samples read and the loss scale. The learning rate and
the batches follow from the step and the point. The file depends on no framework and contains no code.
"""

from __future__ import annotations

import hashlib
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

KEY = "hvbench"  # of the header's metadata
FORMAT = 1
MAX_DEPTH = 2
PARAMETERS, OPTIMIZER = "parameters/", "optimizer/"


class CheckpointHeader(Spec):
    """The scalars of a checkpoint: how far the training was, and what it was a training of."""

    format: int = FORMAT
    step: int = Field(ge=0, lt=2**40, description="updates done, skipped ones included")
    samples: int = Field(ge=0, lt=2**60, description="training samples read, over all ranks")
    global_batch_size: Count
    optimizer: str = Field(max_length=100)
    adaptation: str = Field("full", max_length=100, description="what trained; only that has state of the optimizer")
    loss_scale: float = Field(gt=0)
    clean_steps: int = Field(ge=0, description="steps since the loss scale last changed")
    tokens_digest: str = Field(max_length=100, description="of the text that `samples` counts in")
    seed: int = Field(ge=0, description="of the order of the samples")
    framework: str = Field(max_length=100, description="that wrote it; for readers, nothing depends on it")


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """The whole content of a checkpoint file."""

    header: CheckpointHeader
    arrays: Mapping[str, np.ndarray]


def name_checkpoint(step: int) -> str:
    """The file's name after `step` updates."""
    return f"step-{step:07d}.safetensors"


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file atomically, making its folder. Raises OSError."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(value, order="C") for name, value in checkpoint.arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(arrays, metadata={KEY: checkpoint.header.model_dump_json()}))


def load_checkpoint(path: str, point: Point, *, tokens_digest: str | None = None) -> Checkpoint:
    """Read a checkpoint and check that `point` can continue from it.

    Args:
        path: The file.
        point: The training that continues, with a known world_size.
        tokens_digest: Of the text that it continues on; None where it is not known yet.

    Raises:
        UsageError: The file cannot be read, or belongs to another training; one line that names the first difference.
    """
    with _open(path) as file:
        header = _read_header(file, path)
        require_fitting(header, _read_shapes(file), point, where=path, tokens_digest=tokens_digest)
        return Checkpoint(header=header, arrays={name: file.get_tensor(name) for name in file.keys()})


def check_checkpoint(path: str, point: Point) -> CheckpointHeader:
    """Check a checkpoint as `load_checkpoint` does, without reading its arrays; its header. Raises UsageError."""
    with _open(path) as file:
        header = _read_header(file, path)
        require_fitting(header, _read_shapes(file), point, where=path)
        return header


def read_parameters(path: str, point: Point) -> dict[str, np.ndarray]:
    """Canonical name -> value of the parameters in a checkpoint of `point`, wherever its training was. Raises UsageError."""
    with _open(path) as file:
        _read_header(file, path)
        require_shapes(_read_shapes(file), point, where=path)
        return {name: file.get_tensor(f"{PARAMETERS}{name}") for name in parameter_shapes(point)}


def identify_checkpoint(path: str) -> dict[str, str | int]:
    """Which framework wrote a checkpoint, after how many steps from which seed, and the digest of the file. Raises UsageError."""
    with _open(path) as file:
        header = _read_header(file, path)
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    return {"framework": header.framework, "seed": header.seed, "steps": header.step, "digest": digest}


def require_fitting(
    header: CheckpointHeader, shapes: Mapping[str, Any], point: Point, *, where: str, tokens_digest: str | None = None
) -> None:
    """Raise UsageError unless the model sizes, optimizer, global batch, seed and text are those of `point`."""
    if header.adaptation != point.trained_part:  # before the shapes: it may add parameters
        raise UsageError(
            f"{where}: adaptation was {shorten(header.adaptation)}, the point has {shorten(point.trained_part)}"
        )
    require_shapes(shapes, point, where=where)
    wanted = {"optimizer": point.optimizer, "seed": point.seed, "global_batch_size": point.global_batch_size}
    wanted["samples"] = samples_before(point, header.step)  # differs after another batch warm-up
    if tokens_digest is not None:
        wanted["tokens_digest"] = tokens_digest
    for name, value in wanted.items():
        if getattr(header, name) != value:
            raise UsageError(f"{where}: {name} was {shorten(getattr(header, name))}, the point has {shorten(value)}")


def require_shapes(shapes: Mapping[str, Any], point: Point, *, where: str) -> None:
    """Raise UsageError unless the parameters are those of `point`'s model."""
    expected = {f"{PARAMETERS}{name}": shape for name, shape in parameter_shapes(point).items()}
    found = {name: tuple(shape) for name, shape in shapes.items() if name.startswith(PARAMETERS)}
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise UsageError(
                f"{where}: {shorten(name)} has shape {shorten(found.get(name))}, the point's has {expected.get(name)}; "
                "set the same model sizes"
            )


def _open(path: str) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise UsageError(f"initial_checkpoint = {shorten(path)}: no such file on this host") from None
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{shorten(path)}: not a checkpoint: {shorten(str(error), limit=200)}") from None


def _read_header(file: Any, path: str) -> CheckpointHeader:
    text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise UsageError(f"{path}: a safetensors file, but no checkpoint of hvbench")
    try:
        return CheckpointHeader.model_validate(load_json(text.encode(), where=path, max_depth=MAX_DEPTH))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(
            f"{path}: {describe_validation_error(first, allowed=list(CheckpointHeader.model_fields))}"
        ) from None


def _read_shapes(file: Any) -> dict[str, Any]:
    return {name: file.get_slice(name).get_shape() for name in file.keys()}
