"""Checkpoints: the state of a training, from which either framework can continue, on any number of ranks.

A small one is one safetensors file, which is simple to copy; a large one, or one with states that differ from rank to rank, is a folder
that all ranks write at once (`hvbench.training.shards`).

The arrays are `parameters/NAME` and `optimizer/…` with the canonical names of `training.weights`, in the precision of the
master weights (fp32); the header (`CheckpointHeader`) holds the step, the samples read and the loss scale. The learning rate and
the batches follow from the step and the point. The file depends on no framework and contains no code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from hvbench.errors import UsageError
from hvbench.io.atomic import write_bytes
from hvbench.io.untrusted import load_json
from hvbench.spec.knob import Count, Spec
from hvbench.spec.messages import shorten, validate
from hvbench.spec.point import Point
from hvbench.spec.rounds import is_common
from hvbench.training.schedule import samples_before
from hvbench.training.shards import (
    KEY,
    MANIFEST,
    Manifest,
    ShardedArrays,
    digest_of,
    read_manifest,
    read_own,
    require_intact,
)
from hvbench.training.weights import parameter_shapes

FORMAT = 1
MAX_DEPTH = 2
ONE_FILE_BYTES = 32 * 2**20  # a state up to this size is one file: its pieces would be few and quick
PARAMETERS, OPTIMIZER = "parameters/", "optimizer/"
SUFFIX = ".safetensors"


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
    """The whole content of a checkpoint, but for what only one rank has."""

    header: CheckpointHeader
    arrays: Mapping[str, np.ndarray]  # of one that was loaded each is read when it is asked for


def name_checkpoint(step: int) -> str:
    """The file's name after `step` updates; without its suffix that of a folder."""
    return f"step-{step:07d}{SUFFIX}"


def find_checkpoint(path: Path) -> Path:
    """Where the checkpoint is that is called `path`: the file, or the folder of that name without its suffix; `path` where neither is."""
    folder = path.with_suffix("") if path.suffix == SUFFIX else path
    return folder if not path.exists() and (folder / MANIFEST).is_file() else path


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
    stored = _open(path)
    require_fitting(stored.header, stored.shapes, point, where=path, tokens_digest=tokens_digest)
    if stored.manifest:
        require_intact(stored.path, stored.manifest.files)
    return Checkpoint(header=stored.header, arrays=stored.arrays)


def check_checkpoint(path: str, point: Point) -> CheckpointHeader:
    """Check a checkpoint as `load_checkpoint` does, without reading its arrays; its header. Raises UsageError."""
    stored = _open(path)
    require_fitting(stored.header, stored.shapes, point, where=path)
    return stored.header


def read_parameters(path: str, point: Point) -> dict[str, np.ndarray]:
    """Canonical name -> value of the parameters in a checkpoint of `point`, wherever its training was. Raises UsageError."""
    stored = _open(path)
    require_shapes(stored.shapes, point, where=path)
    if stored.manifest:
        require_intact(stored.path, stored.manifest.files)
    return {name: stored.arrays[f"{PARAMETERS}{name}"] for name in parameter_shapes(point)}


def read_own_state(path: str, *, rank: int, world_size: int) -> dict[str, np.ndarray]:
    """What `rank` alone had when a training of as many ranks left the checkpoint; nothing where ranks had nothing, or were others. Raises UsageError."""
    manifest = _open(path).manifest
    if manifest is None or manifest.world_size != world_size:
        return {}
    return read_own(find_checkpoint(Path(path)), manifest, rank=rank)


def describe_lost_own_state(path: str, *, world_size: int) -> str | None:
    """A line where the states of single ranks in a checkpoint (residuals of compression, say) are of another number of ranks. Raises UsageError."""
    manifest = _open(path).manifest
    if manifest is None or not manifest.own or manifest.world_size == world_size:
        return None
    return (
        f"{path}: what each of its {manifest.world_size} ranks had for itself (residuals, say) fits no training of "
        f"{world_size}: it starts from zero"
    )


def identify_checkpoint(path: str) -> dict[str, str | int]:
    """Which framework wrote a checkpoint, after how many steps from which seed, and the digest of its content. Raises UsageError."""
    stored = _open(path)
    if stored.manifest:
        digest = digest_of(stored.manifest)
    else:
        with stored.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    header = stored.header
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
    if not is_common(point, header.step):
        raise UsageError(
            f"{where}: {header.step} updates end in the middle of a round of sync_every {point.sync_every}, where no training may begin"
        )
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stored:
    """A checkpoint whose arrays are still where they are."""

    path: Path
    header: CheckpointHeader
    shapes: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    manifest: Manifest | None = None  # of a folder


class _FileArrays(Mapping[str, np.ndarray]):
    """Name -> array of one file, each read when it is asked for."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.names = dict.fromkeys(file.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        return self.file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _open(path: str) -> _Stored:
    from safetensors import SafetensorError, safe_open

    found = find_checkpoint(Path(path))
    if found.is_dir():
        manifest = read_manifest(found)
        header = validate(CheckpointHeader, manifest.header, where=str(found / MANIFEST))
        shapes = {name: stored.shape for name, stored in manifest.arrays.items()}
        arrays = ShardedArrays(found, manifest)
        return _Stored(path=found, header=header, shapes=shapes, arrays=arrays, manifest=manifest)
    try:
        file = safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise UsageError(f"initial_checkpoint = {shorten(path)}: no such file on this host") from None
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{shorten(path)}: not a checkpoint: {shorten(str(error), limit=200)}") from None
    text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise UsageError(f"{path}: a safetensors file, but no checkpoint of hvbench")
    header = validate(CheckpointHeader, load_json(text.encode(), where=path, max_depth=MAX_DEPTH), where=path)
    shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
    return _Stored(path=found, header=header, shapes=shapes, arrays=_FileArrays(file))
