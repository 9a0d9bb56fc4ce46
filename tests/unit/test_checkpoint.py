"""Checkpoint files: they read back as written, and one of another training is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hvbench.errors import UsageError
from hvbench.spec.point import Point
from hvbench.training.checkpoints import (
    Checkpoint,
    CheckpointHeader,
    check_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from hvbench.training.weights import initial_weights

POINT = Point(model="tiny", world_size=2, micro_batch_size=4)
HEADER = CheckpointHeader(
    step=7, samples=56, global_batch_size=8, optimizer="adamw", loss_scale=1.0, clean_steps=7, tokens_digest="abc", seed=0,
    framework="pytorch",
)  # fmt: skip


def write(path: Path, *, header: CheckpointHeader = HEADER, point: Point = POINT) -> str:
    arrays = {f"parameters/{name}": value for name, value in initial_weights(point).items()}
    save_checkpoint(path, Checkpoint(header=header, arrays=arrays | {"optimizer/updates": np.array(7)}))
    return str(path)


def test_a_checkpoint_reads_back_as_written(tmp_path: Path) -> None:
    path = write(tmp_path / "new" / "a.safetensors")
    checkpoint = load_checkpoint(path, POINT, tokens_digest="abc")
    assert checkpoint.header == HEADER == check_checkpoint(path, POINT)
    weights = initial_weights(POINT)
    assert all(np.array_equal(checkpoint.arrays[f"parameters/{name}"], value) for name, value in weights.items())
    assert checkpoint.arrays["optimizer/updates"].shape == () and checkpoint.arrays["optimizer/updates"] == 7
    assert [each.name for each in path_names(tmp_path)] == ["a.safetensors"], "nothing half written is left"


def path_names(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 3}, "seed was 0, the point has 3"),
        ({"gradient_accumulation_steps": 2}, "global_batch_size was 8, the point has 16"),
        ({"adaptation": "lora"}, 'adaptation was "full", the point has "lora of alpha 16"'),
        ({"adaptation": "last_layers", "trained_layers": 2}, 'the point has "2 last_layers"'),
        ({"hidden_size": 64}, "has shape"),
        ({"num_layers": 1}, "has shape"),
        ({"num_layers": 3}, "has shape"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_with_the_difference(
    tmp_path: Path, changes: dict, message: str
) -> None:
    path = write(tmp_path / "a.safetensors")
    other = Point(**POINT.model_dump() | changes)
    for refuse in (check_checkpoint, load_checkpoint):
        with pytest.raises(UsageError, match=message) as caught:
            refuse(path, other)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='tokens_digest was "abc", the point has "xyz"'):
        load_checkpoint(write(tmp_path / "a.safetensors"), POINT, tokens_digest="xyz")


def test_micro_batch_accumulation_ranks_and_framework_may_change(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors")
    for changes in (
        {"world_size": 1, "micro_batch_size": 8},
        {"framework": "tensorflow"},
        {"micro_batch_size": 2, "gradient_accumulation_steps": 2},
    ):
        assert check_checkpoint(path, Point(**POINT.model_dump() | changes)).step == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file on this host"),
        (b"", "not a checkpoint"),
        (b"\xff" * 100, "not a checkpoint"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00nonsense", "not a checkpoint"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_an_error_of_one_line(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        check_checkpoint(str(path), POINT)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        check_checkpoint(str(tmp_path), POINT)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "no checkpoint of hvbench"),
        ({"other": "1"}, "no checkpoint of hvbench"),
        ({"hvbench": "{"}, "not JSON"),
        ({"hvbench": "[" * 100_000}, "not JSON"),
        ({"hvbench": '{"step": 3}'}, "is missing"),
        ({"hvbench": HEADER.model_dump_json().replace('"step":7', '"step":-7')}, "step = -7"),
    ],
)
def test_an_invalid_header_is_an_error_of_one_line(tmp_path: Path, metadata: dict | None, message: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": np.zeros(3)}, path, metadata=metadata)
    with pytest.raises(UsageError, match=message) as caught:
        check_checkpoint(str(path), POINT)
    assert "\n" not in str(caught.value)
