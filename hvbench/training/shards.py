"""A checkpoint that all ranks write at once: a folder of safetensors files, one a rank, and a manifest that is written last.

    step-0000100/manifest.json                       what is whole: arrays, files, their sizes and digests
                 rank-0000-3f….safetensors           the pieces of rank 0 (`hvbench.training.pieces`)
                 own-0000-9b….safetensors            what rank 0 has that no other rank has, where there is such a state

A file's name has the digest of its content, so a checkpoint that is written again replaces no file that the manifest before names, and
what is damaged is found. Without a manifest the folder is no checkpoint: a rank that is killed leaves the one before whole, and what it
left half is removed by the next save. Nothing is unpickled, and what is read is bounded by the sizes of the files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from hvbench.errors import UsageError
from hvbench.io.atomic import sync_folder, write_bytes, write_text
from hvbench.io.untrusted import load_json, read_regular_file
from hvbench.spec.knob import Spec
from hvbench.spec.messages import shorten, validate
from hvbench.training.pieces import Piece, count_values, find_gap, read_piece_name

MANIFEST = "manifest.json"
KEY = "hvbench"  # of a file's metadata
FORMAT = 2
DIGEST_DIGITS = 12  # of a file's SHA-256, hexadecimal: 48 bits, which a float64 holds
FILE_NAME = re.compile(rf"(rank|own)-\d{{4,7}}-(?P<digest>[0-9a-f]{{{DIGEST_DIGITS}}})\.safetensors", re.ASCII)
MAX_MANIFEST_BYTES = 2**26
MAX_DEPTH = 4
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32", "U64": "uint64", "U32": "uint32",
          "I8": "int8", "U8": "uint8", "BOOL": "bool"}  # fmt: skip

StoredShape = Annotated[list[Annotated[int, Field(ge=1, lt=2**48)]], Field(max_length=8)]
Arrays = dict[str, np.ndarray]


def _require_name(name: str) -> str:
    if not FILE_NAME.fullmatch(name):
        raise ValueError("must be a file that a rank wrote into this folder")
    return name


class StoredFile(Spec):
    """One file of the folder."""

    name: Annotated[str, AfterValidator(_require_name)]
    size_bytes: int = Field(ge=0, lt=2**60)

    @property
    def digest(self) -> str:
        """The first digits of the SHA-256 of its content, by its name."""
        return FILE_NAME.fullmatch(self.name)["digest"]


class StoredArray(Spec):
    """What all pieces of an array make."""

    shape: StoredShape
    dtype: Literal[*DTYPES]


class Manifest(Spec):
    """What a folder holds; `header` is a `hvbench.training.checkpoints.CheckpointHeader`."""

    format: Literal[2] = FORMAT
    header: dict[str, Any]
    world_size: int = Field(ge=1, lt=2**24, description="ranks that wrote it")
    arrays: dict[str, StoredArray]
    files: list[StoredFile]
    own: dict[str, StoredFile] = Field({}, description="by rank: what that rank alone has")


class ShardLabel(Spec):
    """Metadata of one file: which rank wrote it after which step, and the whole arrays that its pieces are of."""

    step: int = Field(ge=0, lt=2**40)
    rank: int = Field(ge=0, lt=2**24)
    shapes: dict[str, StoredShape]


# Writing


def write_pieces(folder: Path, pieces: Iterable[Piece], *, step: int, rank: int) -> str:
    """Write what `rank` holds of the state after `step`; the digest by which `name_file` finds the file. Raises OSError."""
    arrays, shapes = {}, {}
    for piece in pieces:
        arrays[piece.key] = np.ascontiguousarray(piece.values)
        shapes[piece.name] = list(piece.shape)
    return _write_file(folder, "rank", arrays, ShardLabel(step=step, rank=rank, shapes=shapes))


def write_own(folder: Path, arrays: Mapping[str, np.ndarray], *, step: int, rank: int) -> str:
    """Write what `rank` alone has after `step`; the digest by which `name_file` finds the file. Raises OSError."""
    arrays = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    return _write_file(folder, "own", arrays, ShardLabel(step=step, rank=rank, shapes={}))


def name_file(kind: Literal["rank", "own"], rank: int, digest: str) -> str:
    """The file's name in the folder."""
    return f"{kind}-{rank:04d}-{digest}.safetensors"


def write_manifest(
    folder: Path, header: Mapping[str, Any], *, digests: Sequence[str], own_digests: Sequence[str | None]
) -> None:
    """Make a checkpoint of the files that all ranks have written, and remove what the manifest before named.

    Args:
        folder: in which they are.
        header: of the checkpoint, as JSON.
        digests: what `write_pieces` said, by rank.
        own_digests: what `write_own` said, by rank; None of a rank that wrote none.

    Raises:
        OSError: it cannot be written.
        UsageError: a file is not there, or the pieces are no whole.
    """
    files = [_describe_file(folder / name_file("rank", rank, digest)) for rank, digest in enumerate(digests)]
    own = {
        str(rank): _describe_file(folder / name_file("own", rank, digest))
        for rank, digest in enumerate(own_digests)
        if digest is not None
    }
    arrays, _ = _join(folder, files, step=header["step"])
    manifest = Manifest(header=dict(header), world_size=len(files), arrays=arrays, files=files, own=own)
    sync_folder(folder.parent)
    write_text(folder / MANIFEST, json.dumps(manifest.model_dump(), allow_nan=False, separators=(",", ":")))
    named = {each.name for each in [*files, *own.values()]}
    for path in folder.iterdir():
        if FILE_NAME.fullmatch(path.name) and path.name not in named:
            path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a checkpoint, its manifest first, and nothing else that lies in its folder. Raises OSError."""
    if folder.is_symlink() or not folder.is_dir():
        return
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in folder.iterdir():
        if FILE_NAME.fullmatch(path.name) or path.name.startswith("."):
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _write_file(folder: Path, kind: Literal["rank", "own"], arrays: Arrays, label: ShardLabel) -> str:
    from safetensors.numpy import save

    content = save(arrays, metadata={KEY: label.model_dump_json()})
    digest = hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS]
    path = folder / name_file(kind, label.rank, digest)
    write_bytes(path, content)
    return digest


def _describe_file(path: Path) -> StoredFile:
    return StoredFile(name=path.name, size_bytes=path.stat().st_size)


# Reading


class ShardedArrays(Mapping[str, np.ndarray]):
    """Name -> array of a folder, each read when it is asked for; a part of one with `read`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Raises UsageError where a file is missing, truncated or of another step, or the pieces are no whole."""
        self.folder = folder
        self.manifest = manifest
        arrays, self._pieces = _join(folder, manifest.files, step=manifest.header.get("step"))
        for name in sorted(arrays.keys() | manifest.arrays.keys()):
            if arrays.get(name) != manifest.arrays.get(name):
                found, said = (_describe(each.get(name)) for each in (arrays, manifest.arrays))
                raise UsageError(f"{folder}: {shorten(name)} is {found} in its files, {said} in {MANIFEST}")
        self._files: dict[str, Any] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        stored = self.manifest.arrays[name]
        return self.read(name, 0, count_values(stored.shape)).reshape(stored.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifest.arrays)

    def __len__(self) -> int:
        return len(self.manifest.arrays)

    def read(self, name: str, begin: int, end: int) -> np.ndarray:
        """Values `begin` to `end` - 1 of the flat array: of its files only what they have of these."""
        values = np.empty(end - begin, dtype=DTYPES[self.manifest.arrays[name].dtype])
        for first, count, file in self._pieces[name]:
            low, high = max(first, begin), min(first + count, end)
            if low < high:
                piece = self._open(file).get_slice(f"{name}@{first}")
                values[low - begin : high - begin] = piece[low - first : high - first]
        return values

    def _open(self, file: str) -> Any:
        if file not in self._files:
            self._files[file] = _open(self.folder / file)
        return self._files[file]


def read_manifest(folder: Path) -> Manifest:
    """What the folder says that it holds. Raises UsageError."""
    path = folder / MANIFEST
    try:
        content = read_regular_file(path, max_bytes=MAX_MANIFEST_BYTES, kind=f"at most {MAX_MANIFEST_BYTES} bytes")
    except FileNotFoundError:
        raise UsageError(f"{folder}: no {MANIFEST}: not a checkpoint, or one that was never finished") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    return validate(Manifest, load_json(content, where=str(path), max_depth=MAX_DEPTH), where=str(path))


def digest_of(manifest: Manifest) -> str:
    """A digest of all that the folder holds, by which ranks hold it or how often it was written aside."""
    arrays = {name: stored.model_dump() for name, stored in sorted(manifest.arrays.items())}
    text = json.dumps([manifest.header, arrays, [each.digest for each in manifest.files]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def require_intact(folder: Path, files: Iterable[StoredFile]) -> None:
    """Raise UsageError unless each file's content has the digest that the manifest names."""
    for file in files:
        _require_size(folder, file)
        with (folder / file.name).open("rb") as stream:
            if not hashlib.file_digest(stream, "sha256").hexdigest().startswith(file.digest):
                raise UsageError(f"{folder / file.name}: damaged: its content has not the digest in its name")


def read_own(folder: Path, manifest: Manifest, *, rank: int) -> Arrays:
    """What `rank` alone had; nothing where it had nothing. Raises UsageError."""
    stored = manifest.own.get(str(rank))
    if stored is None:
        return {}
    require_intact(folder, [stored])
    file = _open(folder / stored.name)
    _require_label(_read_label(file, folder / stored.name), folder / stored.name, step=manifest.header.get("step"))
    return {name: file.get_tensor(name) for name in file.keys()}


def _join(
    folder: Path, files: Iterable[StoredFile], *, step: Any
) -> tuple[dict[str, StoredArray], dict[str, list[tuple[int, int, str]]]]:
    """The arrays that the pieces in `files` make, and of each its pieces (begin, count, file). Raises UsageError."""
    shapes: dict[str, list[int]] = {}
    dtypes: dict[str, str] = {}
    pieces: dict[str, list[tuple[int, int, str]]] = {}
    for stored in files:
        path = folder / stored.name
        _require_size(folder, stored)
        file = _open(path)
        label = _read_label(file, path)
        _require_label(label, path, step=step)
        for key in file.keys():
            name, begin = read_piece_name(key) or ("", -1)
            view = file.get_slice(key)
            dtype, count = view.get_dtype(), count_values(view.get_shape())
            shape = label.shapes.get(name)
            if shape is None or len(view.get_shape()) != 1 or dtype not in DTYPES:
                raise UsageError(f"{path}: {shorten(key)} is no piece of a checkpoint of hvbench")
            if shapes.setdefault(name, shape) != shape or dtypes.setdefault(name, dtype) != dtype:
                raise UsageError(f"{path}: {shorten(name)} has another shape or type than in the other files")
            pieces.setdefault(name, []).append((begin, count, stored.name))
    for name, found in pieces.items():
        if gap := find_gap([(begin, count) for begin, count, _ in found], size=count_values(shapes[name])):
            raise UsageError(f"{folder}: {shorten(name)}: {gap}")
    return {name: StoredArray(shape=shapes[name], dtype=dtypes[name]) for name in pieces}, pieces


def _require_size(folder: Path, file: StoredFile) -> None:
    path = folder / file.name
    if path.is_symlink() or not path.is_file():
        raise UsageError(f"{path}: missing: {MANIFEST} names it")
    if (size := path.stat().st_size) != file.size_bytes:
        raise UsageError(f"{path}: has {size} bytes, {MANIFEST} says {file.size_bytes} (truncated?)")


def _require_label(label: ShardLabel, path: Path, *, step: Any) -> None:
    if label.step != step:
        raise UsageError(f"{path}: is of step {label.step}, the checkpoint is of step {shorten(step)}")


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(path), framework="numpy")
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path}: not a safetensors file: {shorten(str(error), limit=200)}") from None


def _read_label(file: Any, path: Path) -> ShardLabel:
    text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise UsageError(f"{path}: a safetensors file, but no part of a checkpoint of hvbench")
    return validate(ShardLabel, load_json(text.encode(), where=str(path), max_depth=MAX_DEPTH), where=str(path))


def _describe(stored: StoredArray | None) -> str:
    return f"{stored.dtype} {stored.shape}" if stored else "not"
