"""The files of a folder of weights: config.json, and tensors in one safetensors file or several with an index.

Only safetensors is read: nothing is ever unpickled. What a header says is checked by the safetensors library against the
file's size before a tensor is read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hvbench.errors import DataError, UsageError
from hvbench.io.untrusted import load_json, read_regular_file
from hvbench.spec.messages import shorten

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MAX_PATH = 300  # characters of it in a message
MAX_CONFIG_BYTES, MAX_INDEX_BYTES, MAX_DEPTH = 1 << 20, 1 << 26, 12
DTYPES = ("F32", "F16", "BF16")
OTHER_FORMATS = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt*", "*.h5", "*.msgpack", "*.gguf")
HOW_TO_CONVERT = "convert them once, with transformers: model.save_pretrained(folder, safe_serialization=True)"


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Where a tensor lies, and what it is."""

    file: Path
    name: str
    dtype: str  # in safetensors' words
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """Its values in float32. Raises DataError."""
        try:
            if self.dtype != "BF16":
                with _open(self.file) as file:
                    return file.get_tensor(self.name).astype(np.float32)
            # numpy has no bfloat16: a float32 without its lower 16 bits.
            return (self._read_halves().astype(np.uint32) << 16).view(np.float32).reshape(self.shape)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{self.file}: {shorten(self.name)} cannot be read: {error}") from None

    def _read_halves(self) -> np.ndarray:
        with open(self.file, "rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            begin, _ = json.loads(stream.read(size))[self.name]["data_offsets"]
        return np.fromfile(self.file, dtype="<u2", count=math.prod(self.shape), offset=8 + size + begin)


@dataclass(frozen=True, kw_only=True)
class WeightsFolder:
    """What a folder holds, read but for the tensors' values."""

    where: str  # the folder, as it was given
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    tensors: Mapping[str, Tensor]


def open_folder(path: str) -> WeightsFolder:
    """Read the config, the index and the headers of the tensors. Raises DataError, one line."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder on this host"
        raise DataError(
            f"initial_weights = {shorten(path, limit=MAX_PATH)}: {what}; it is one with {CONFIG} and {WEIGHTS}"
        )
    config = _read_json(folder / CONFIG, max_bytes=MAX_CONFIG_BYTES)
    files, index = _find_files(folder)
    tensors: dict[str, Tensor] = {}
    for file in files:
        for tensor in _read_header(file):
            if tensor.name in tensors:
                raise DataError(f"{file}: has {shorten(tensor.name)}, and so has {tensors[tensor.name].file.name}")
            tensors[tensor.name] = tensor
    for name, file in index.items():
        if name not in tensors or tensors[name].file.name != file:
            raise DataError(f"{folder / INDEX}: {shorten(name)} is not in {file}, where the index says it is")
    return WeightsFolder(where=path, config=config, files=files, tensors=tensors)


def identify_folder(path: str) -> str:
    """Digest of the files that hold the tensors. Raises DataError."""
    files, _ = _find_files(Path(path).expanduser())
    try:
        stamps = [(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return _digest(tuple(stamps))
    except OSError as error:
        raise DataError(
            f"initial_weights = {shorten(path, limit=MAX_PATH)}: cannot be read: {error.strerror}"
        ) from None


@cache
def _digest(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """Once a process, for files of the same size and time."""
    whole = hashlib.sha256()
    for path, *_ in stamps:
        with open(path, "rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]


def _find_files(folder: Path) -> tuple[tuple[Path, ...], dict[str, str]]:
    """The files with the tensors, sorted, and tensor -> file as the index says, empty without one. Raises DataError."""
    if (folder / INDEX).exists():
        index = _read_json(folder / INDEX, max_bytes=MAX_INDEX_BYTES).get("weight_map")
        if not isinstance(index, dict) or not index or not all(isinstance(name, str) for name in index.values()):
            raise DataError(f"{folder / INDEX}: has no weight_map from tensors to files")
        for name in sorted(set(index.values())):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise DataError(f"{folder / INDEX}: names {shorten(name)}: must be a .safetensors file of this folder")
            if not (folder / name).is_file():
                raise DataError(f"{folder / INDEX}: names {shorten(name)}, which is not in the folder")
        return tuple(folder / name for name in sorted(set(index.values()))), index
    found = sorted(folder.glob("*.safetensors"))
    if (folder / WEIGHTS) in found:
        return (folder / WEIGHTS,), {}
    if len(found) == 1:
        return (found[0],), {}
    if found:
        raise DataError(f"{folder}: has {len(found)} safetensors files and neither {WEIGHTS} nor {INDEX}")
    others = sorted(path.name for pattern in OTHER_FORMATS for path in folder.glob(pattern))
    if others:
        raise DataError(f"{folder / others[0]}: only safetensors is read, for a pickle runs code; {HOW_TO_CONVERT}")
    raise DataError(f"{folder}: has no {WEIGHTS}; {HOW_TO_CONVERT}")


def _read_json(path: Path, *, max_bytes: int) -> dict[str, Any]:
    try:
        content = read_regular_file(path.resolve(), max_bytes=max_bytes, kind="written by transformers")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UsageError as error:
        raise DataError(str(error)) from None
    try:
        values = load_json(content, where=str(path), max_depth=MAX_DEPTH)
    except UsageError as error:
        raise DataError(str(error)) from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: must hold an object")
    return values


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(path), framework="numpy")
    except (SafetensorError, OSError, ValueError) as error:
        reason = shorten(str(error), limit=200)
        raise DataError(f"{path}: not a whole safetensors file: {reason}; copy it again") from None


def _read_header(path: Path) -> list[Tensor]:
    with _open(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        tensors = [
            Tensor(file=path, name=name, dtype=str(each.get_dtype()), shape=tuple(each.get_shape()))
            for name, each in slices.items()
        ]
    return tensors
