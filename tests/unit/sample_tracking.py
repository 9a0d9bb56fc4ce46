"""Reads back what was written to trackers, with each tracker's own reader or message types."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests import patience

LEVELDB_BLOCK = 32768


def read_tensorboard(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Tag -> (step, value, seconds since 1970) of every scalar of one run."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        tag: [(one.step, one.value, one.wall_time) for one in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]
    }


def read_settings(folder: Path) -> str:
    """The text about one run of TensorBoard."""
    reader = EventAccumulator(str(folder))
    reader.Reload()
    (text,) = reader.Tensors("point/text_summary")
    return text.tensor_proto.string_val[0].decode()


@dataclass(frozen=True)
class Session:
    """One run of Weights & Biases."""

    id: str
    history: dict[str, dict[int, float]]  # curve -> step -> value
    summary: dict[str, Any]
    config: dict[str, Any]


def read_wandb(folder: Path) -> dict[str, Session]:
    """Name -> run, of all that are in a folder; no two may have the same name."""
    found: dict[str, Session] = {}
    for path in (folder / "wandb").glob("offline-run-*/*.wandb"):
        messages = await_end(path)
        (begun,) = (message.run for message in messages if message.WhichOneof("record_type") == "run")
        history: dict[str, dict[int, float]] = {}
        summary: dict[str, Any] = {}
        for message in messages:
            items = read_items(message.history.item)
            step = items.get("_step", message.history.step.num)
            for name, value in items.items():
                history.setdefault(name, {})[step] = value
            summary |= read_items(message.summary.update)
        assert begun.display_name not in found, "two runs of one launch"
        config = {item.key: json.loads(item.value_json) for item in begun.config.update}
        found[begun.display_name] = Session(begun.run_id, history, summary, config)
    return found


def read_items(items: Any) -> dict[str, Any]:
    """The values of a message, by their names."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def await_end(path: Path) -> list[Any]:
    """The messages of a run that is finished: W&B's own process may still write when `finish` has returned."""
    deadline = time.monotonic() + patience.SECONDS
    while time.monotonic() < deadline:
        messages = read_messages(path)
        if any(message.WhichOneof("record_type") == "exit" for message in messages):
            return messages
        time.sleep(0.05)
    raise AssertionError(f"{path}: not finished within {patience.SECONDS:.0f} s")


def read_messages(path: Path) -> list[Any]:
    """The messages of a .wandb file: LevelDB's log format (after a header of 7 bytes), W&B's own message type."""
    from wandb.proto import wandb_internal_pb2

    content, position, part, messages = path.read_bytes(), 7, b"", []
    while position + 7 <= len(content):
        if (left := LEVELDB_BLOCK - position % LEVELDB_BLOCK) < 7:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", content[position : position + 7])
        piece = content[position + 7 : position + 7 + size]
        position += 7 + size
        part = piece if kind in (1, 2) else part + piece  # whole, first; middle, last
        if kind in (1, 4) and position <= len(content):  # else the end is not written yet
            messages.append(wandb_internal_pb2.Record.FromString(part))
    return messages
