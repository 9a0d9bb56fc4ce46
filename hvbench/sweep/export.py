"""`hvbench export`: a checkpoint of a run, found by its point, as a folder that transformers loads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hvbench.errors import MissingData, UsageError
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.spec.messages import shorten
from hvbench.spec.point import Point
from hvbench.training.checkpoints import find_checkpoint, name_checkpoint, read_parameters
from hvbench.training.huggingface.export import describe_tokenizer, require_exportable, require_room, write_model
from hvbench.training.shards import MANIFEST

CHECKPOINT = re.compile(r"step-(\d{7,12})(\.safetensors)?", re.ASCII)
MAX_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A checkpoint, and the launch that left it."""

    record: Record
    path: Path
    step: int


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which checkpoint of a run."""

    point: str  # a point_id, or a part of one alone
    repeat: int | None = None  # None: the first launch that left any
    step: int | None = None  # None: its last


def export_model(
    run: Path, wanted: Wanted, folder: Path, *, force: bool, with_tokenizer: bool
) -> tuple[Trained, list[str]]:
    """Write the folder; what is in it, and the names of its files.

    Raises:
        UsageError: the run, the point or the folder cannot be that, or the text of then is not there any more.
        MissingData: there is no such checkpoint.
        StorageError: the folder cannot be written.
    """
    trained = find_trained(run, wanted)
    point = trained.record.point
    require_exportable(point)
    require_room(folder, force=force)
    weights = read_parameters(str(trained.path), point)
    tokenizer = describe_tokenizer(point, trained.record.environment) if with_tokenizer else None
    return trained, write_model(folder, point, weights, tokenizer=tokenizer)


def find_trained(run: Path, wanted: Wanted) -> Trained:
    """The checkpoint that is meant. Raises UsageError or MissingData, with what there is."""
    folder = RunFolder(run)
    folder.read_run()
    records, _ = folder.read_records()
    chosen = choose_point(records, wanted.point, where=str(run))
    if not isinstance(chosen[0].point, Point):
        raise UsageError(f"{run}: {chosen[0].point_id} is of your own training, whose weights hvbench does not know")
    left = {record.repeat: (record, find_steps(run, record)) for record in chosen}
    left = {repeat: (record, steps) for repeat, (record, steps) in left.items() if steps}
    if not left:
        raise MissingData(
            f"{run}: no launch of {chosen[0].point_id} left a checkpoint; train with checkpoint_every = STEPS"
        )
    repeat = min(left) if wanted.repeat is None else wanted.repeat
    if repeat not in left:
        raise MissingData(
            f"{run}: repeat {repeat} of {chosen[0].point_id} left no checkpoint; there are of {list(left)}"
        )
    record, steps = left[repeat]
    step = max(steps) if wanted.step is None else wanted.step
    if step not in steps:
        raise MissingData(f"{run}: {record.key} left no checkpoint after step {step}; there are of {steps}")
    return Trained(record=record, path=find_checkpoint(folder_of(run, record) / name_checkpoint(step)), step=step)


def choose_point(records: Sequence[Record], wanted: str, *, where: str) -> list[Record]:
    """The launches of the one point whose id is, or contains, what is wanted. Raises UsageError or MissingData."""
    ids = sorted({record.point_id for record in records})
    found = [wanted] if wanted in ids else [each for each in ids if wanted in each]
    if len(found) == 1:
        return [record for record in records if record.point_id == found[0]]
    listed = ", ".join((found or ids)[:MAX_SHOWN]) + (", …" if len(found or ids) > MAX_SHOWN else "")
    if found:
        raise UsageError(f"{where}: {shorten(wanted)} is part of {len(found)} points' ids: {listed}")
    raise MissingData(f"{where}: no point's id contains {shorten(wanted)}; it has {listed or 'no readable record'}")


def find_steps(run: Path, record: Record) -> list[int]:
    """After which steps a launch left checkpoints, files or folders with a manifest."""
    paths = [path for path in folder_of(run, record).glob("step-*") if path.is_file() or (path / MANIFEST).is_file()]
    return sorted({int(match[1]) for path in paths if (match := CHECKPOINT.fullmatch(path.name))})


def folder_of(run: Path, record: Record) -> Path:
    """The launch's folder of checkpoints."""
    return run / "checkpoints" / record.key
