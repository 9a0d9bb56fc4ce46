"""Checkpoints that several ranks write at once: whole or not there, read on any number of ranks, and one line for all that is damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.facts import list_warnings
from hvbench.errors import UsageError
from hvbench.plan.jobs import Job, Plan
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.sweep.prepare import check_checkpoints
from hvbench.training import checkpoints, pieces
from hvbench.training.checkpoints import (
    CheckpointHeader,
    check_checkpoint,
    describe_lost_own_state,
    find_checkpoint,
    identify_checkpoint,
    load_checkpoint,
    name_checkpoint,
    read_own_state,
    read_parameters,
)
from hvbench.training.shards import MANIFEST, ShardedArrays, read_manifest
from hvbench.training.weights import initial_weights
from hvbench.worker import checkpoints as savers
from hvbench.worker.checkpoints import Saver, resume_trainer
from tests import patience
from tests.unit.sample_records import make_rank, make_record

POINT = Point(model="tiny", world_size=3, micro_batch_size=2, gradient_accumulation_steps=2)
STEP = 7
Arrays = dict[str, np.ndarray]


class Team:
    """Ranks in threads of this process, which gather and wait as those of a launch do."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.values: list[float] = [0.0] * size
        self.meeting = threading.Barrier(size)

    def run(self, work: Callable[[Rank], Any]) -> list[Any]:
        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(work, [Rank(self, rank) for rank in range(self.size)]))


class Rank:
    def __init__(self, team: Team, rank: int) -> None:
        self.team, self.rank, self.world_size = team, rank, team.size

    def barrier(self) -> None:
        self.team.meeting.wait(patience.SECONDS)

    def gather(self, value: float) -> list[float]:
        self.team.values[self.rank] = value
        self.barrier()
        values = list(self.team.values)
        self.barrier()
        return values


class Holder:
    """A trainer that holds what it is given."""

    def __init__(self, state: Mapping[str, np.ndarray], own: Arrays | None = None) -> None:
        self.held, self.own = dict(state), own or {}

    def state(self) -> Arrays:
        return self.held

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.held = {name: state[name] for name in self.held}

    def own_state(self) -> Arrays:
        return self.own

    def load_own_state(self, state: Arrays) -> None:
        self.own = {name: state[name] for name in self.own}


def make_header(step: int = STEP) -> CheckpointHeader:
    return CheckpointHeader(
        step=step, samples=12 * step, global_batch_size=12, optimizer="adamw", loss_scale=1.0, clean_steps=step,
        tokens_digest="abc", seed=0, framework="pytorch",
    )  # fmt: skip


def make_state(seed: int = 0) -> Arrays:
    arrays = {f"parameters/{name}": value + seed for name, value in initial_weights(POINT).items()}
    moments = {f"optimizer/first_moments/{name}": value * 3 for name, value in initial_weights(POINT).items()}
    return arrays | moments | {"optimizer/updates": np.array(STEP, np.int64), "passes": np.array(2 * STEP, np.int64)}


def make_own(rank: int) -> Arrays:
    return {"residuals/a": np.full(5, rank, np.float32), "residuals/b": np.full((2, 3), -rank, np.float32)}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model in many pieces: what a model of gigabytes has in pieces of 4 MiB."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)
    monkeypatch.setattr(savers, "ONE_FILE_BYTES", 10_000)


def save(folder: Path, *, ranks: int = 3, own: bool = False, step: int = STEP, seed: int = 0) -> Path:
    state = make_state(seed)
    Team(ranks).run(
        lambda rank: Saver(folder, rank).save(make_header(step), Holder(state, make_own(rank.rank) if own else None))
    )
    return find_checkpoint(folder / name_checkpoint(step))


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("own", [False, True])
def test_what_all_ranks_write_reads_back_as_a_whole(tmp_path: Path, own: bool) -> None:
    path = save(tmp_path / "run", own=own)
    assert path == tmp_path / "run" / "step-0000007"
    kinds = [re.sub(r"-[0-9a-f]{12}\.", ".", name) for name in names(path)]
    ranks = [f"rank-000{rank}.safetensors" for rank in range(3)]
    owns = [f"own-000{rank}.safetensors" for rank in range(3)] if own else []
    assert kinds == sorted([MANIFEST, *ranks, *owns])
    for said in (str(path), f"{path}.safetensors"):
        checkpoint = load_checkpoint(said, POINT, tokens_digest="abc")
        assert checkpoint.header == make_header() == check_checkpoint(said, POINT)
        state = make_state()
        assert checkpoint.arrays.keys() == state.keys()
        for name, value in state.items():
            assert np.array_equal(checkpoint.arrays[name], value) and checkpoint.arrays[name].dtype == value.dtype
            assert checkpoint.arrays[name].shape == value.shape
    written = [sum(file.stat().st_size for file in path.glob(f"rank-000{rank}-*")) for rank in range(3)]
    assert min(written) > 0.2 * sum(written), "every rank writes its share"
    weights = initial_weights(POINT)
    assert all(np.array_equal(value, weights[name]) for name, value in read_parameters(str(path), POINT).items())
    assert names(tmp_path / "run") == [f"step-0000007/{name}" for name in names(path)], "nothing else is left"


def test_a_part_of_an_array_is_read_across_pieces(tmp_path: Path) -> None:
    path = save(tmp_path)
    arrays = ShardedArrays(path, read_manifest(path))
    name = "parameters/token_embedding"
    flat = make_state()[name].reshape(-1)
    for begin, end in ((0, 1), (249, 251), (100, 1200), (flat.size - 3, flat.size), (5, 5)):
        assert np.array_equal(arrays.read(name, begin, end), flat[begin:end])


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_small_state_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    monkeypatch.setattr(savers, "ONE_FILE_BYTES", checkpoints.ONE_FILE_BYTES)
    path = save(tmp_path, ranks=ranks)
    assert path.name == "step-0000007.safetensors" and names(tmp_path) == [path.name]
    assert load_checkpoint(str(path), POINT).header == make_header()


def test_one_rank_writes_one_file_of_any_size_and_its_own_state_beside_a_state(tmp_path: Path) -> None:
    assert save(tmp_path / "a", ranks=1).is_file()
    path = save(tmp_path / "b", ranks=1, own=True)
    assert path.is_dir() and read_own_state(str(path), rank=0, world_size=1).keys() == make_own(0).keys()


def test_ranks_that_do_not_see_the_folder_leave_it_to_the_first(tmp_path: Path) -> None:
    state = make_state()
    Team(3).run(lambda rank: Saver(tmp_path / f"host{rank.rank}", rank).save(make_header(), Holder(state, make_own(0))))
    assert names(tmp_path) == ["host0/step-0000007.safetensors"]


def test_ranks_that_train_for_themselves_leave_the_state_of_the_first(tmp_path: Path) -> None:
    Team(2).run(
        lambda rank: Saver(tmp_path, rank, is_common=False).save(
            make_header(), Holder(make_state(rank.rank), make_own(rank.rank))
        )
    )
    found = load_checkpoint(str(tmp_path / "step-0000007"), POINT).arrays
    assert all(np.array_equal(found[name], value) for name, value in make_state(0).items())
    assert read_own_state(str(tmp_path / "step-0000007"), rank=1, world_size=2)["residuals/a"][0] == 1


def test_each_rank_gets_its_own_state_back_and_another_number_of_ranks_a_line(tmp_path: Path) -> None:
    path = str(save(tmp_path, own=True))
    for rank in range(3):
        trainer = Holder(make_state(1), {name: np.zeros_like(value) for name, value in make_own(rank).items()})
        header, line = resume_trainer(trainer, path, POINT, rank=rank, tokens_digest="abc")
        assert header == make_header() and line is None
        assert all(np.array_equal(trainer.own[name], value) for name, value in make_own(rank).items())
        assert all(np.array_equal(trainer.held[name], value) for name, value in make_state().items())
    assert describe_lost_own_state(path, world_size=3) is None
    lost = describe_lost_own_state(path, world_size=2)
    assert "each of its 3 ranks" in lost and "training of 2: it starts from zero" in lost and "\n" not in lost
    others = {"ranks": POINT.model_copy(update={"world_size": 2, "micro_batch_size": 3}), "shapes": POINT}
    for kind, point in others.items():
        own = make_own(0) | ({"residuals/a": np.zeros(6, np.float32)} if kind == "shapes" else {})
        before = {name: value.copy() for name, value in own.items()}
        _, line = resume_trainer(Holder(make_state(), own), path, point, rank=0, tokens_digest="abc")
        assert "(residuals): it started from zero" in line and "\n" not in line
        assert all(np.array_equal(own[name], value) for name, value in before.items())
    _, line = resume_trainer(Holder(make_state()), path, POINT, rank=0, tokens_digest="abc")
    assert line is None, "a training without such a state misses nothing"
    assert describe_lost_own_state(str(save(tmp_path / "without")), world_size=2) is None


def test_the_same_step_again_replaces_what_was_there_and_other_ranks_may_write_it(tmp_path: Path) -> None:
    first = save(tmp_path, own=True)
    digest, before = identify_checkpoint(str(first))["digest"], names(first)
    assert save(tmp_path, own=True) == first and names(first) == before, "the same content has the same names"
    assert identify_checkpoint(str(first)) == {"framework": "pytorch", "seed": 0, "steps": STEP, "digest": digest}
    save(tmp_path, ranks=2, seed=1)
    assert len(names(first)) == 3 and identify_checkpoint(str(first))["digest"] != digest
    found = load_checkpoint(str(first), POINT).arrays
    assert all(np.array_equal(found[name], value) for name, value in make_state(1).items())


def test_a_file_and_a_folder_of_one_step_replace_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path)
    monkeypatch.setattr(savers, "ONE_FILE_BYTES", checkpoints.ONE_FILE_BYTES)
    file = save(tmp_path)
    assert file.is_file() and not folder.exists()
    save(tmp_path, own=True)
    assert folder.is_dir() and not file.exists()
    saver = Saver(tmp_path, Team(1).run(lambda rank: rank)[0])
    saver.remove(STEP)
    assert list(tmp_path.iterdir()) == []


class KilledError(Exception):
    """Stands for a rank's end: it does nothing more."""


@pytest.mark.parametrize("instant", ["pieces", "own", "manifest"])
@pytest.mark.parametrize("step", [STEP, STEP + 1])
def test_a_save_that_ends_half_way_leaves_the_checkpoint_before_and_none_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instant: str, step: int
) -> None:
    """At the same step, which an attempt before had reached, and at the next one."""
    before = save(tmp_path, own=True)
    kept = {name: (before / name).read_bytes() for name in names(before)}

    def end(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        if instant == "manifest":
            patch.setattr(savers, "write_manifest", end)
        else:
            write = getattr(savers, f"write_{instant}")
            patch.setattr(
                savers, f"write_{instant}", lambda *a, **named: end() if named["rank"] == 1 else write(*a, **named)
            )
        team, state = Team(3), make_state(5)

        def work(rank: Rank) -> None:
            try:
                Saver(tmp_path, rank).save(make_header(step), Holder(state, make_own(rank.rank + 7)))
            except KilledError:
                team.meeting.abort()  # as the others notice that a rank is gone
            except threading.BrokenBarrierError:
                pass

        team.run(work)
    assert all((before / name).read_bytes() == content for name, content in kept.items())
    assert load_checkpoint(str(before), POINT).header == make_header()
    assert np.array_equal(load_checkpoint(str(before), POINT).arrays["passes"], np.array(2 * STEP))
    if step != STEP:
        half = tmp_path / f"step-{step:07d}"
        assert half.is_dir() and not (half / MANIFEST).exists()
        with pytest.raises(UsageError, match="no manifest.json: not a checkpoint, or one that was never finished"):
            check_checkpoint(str(half), POINT)
    save(tmp_path, own=True, step=step + 5)
    assert not (tmp_path / f"step-{STEP + 1:07d}").exists(), "a later run removes what was left half"
    assert before.is_dir()


def shard(folder: Path, rank: int = 1, kind: str = "rank") -> Path:
    (path,) = folder.glob(f"{kind}-000{rank}-*")
    return path


def drop(folder: Path) -> None:
    shard(folder).unlink()


def truncate(folder: Path) -> None:
    os.truncate(shard(folder), 5000)


def damage(folder: Path) -> None:
    content = bytearray(shard(folder).read_bytes())
    content[-3] ^= 1
    shard(folder).write_bytes(content)


def link(folder: Path) -> None:
    shutil.copy(shard(folder), folder / "elsewhere")
    name = shard(folder)
    name.unlink()
    name.symlink_to(folder / "elsewhere")


def change(**changes: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        for key, value in changes.items():
            *way, last = key.split("__")
            place = manifest
            for part in way:
                place = place[int(part) if isinstance(place, list) else part]
            place[last] = value
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return apply


def other_step(folder: Path) -> None:
    other = save(folder.parent / "other", step=STEP + 1)
    shutil.copy(shard(other), folder)
    size = shard(other).stat().st_size
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][1] = {"name": shard(other).name, "size_bytes": size}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def leave_out(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["files"][2]
    (folder / MANIFEST).write_text(json.dumps(manifest))


def no_piece(folder: Path) -> None:
    path = shard(folder)
    arrays = load_file(path)
    save_file({**arrays, "stranger": np.zeros(3)}, path, metadata=metadata_of(path))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][1]["size_bytes"] = path.stat().st_size
    (folder / MANIFEST).write_text(json.dumps(manifest))


def metadata_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop, "missing: manifest.json names it"),
        (truncate, r"has 5000 bytes, manifest.json says \d+ \(truncated\?\)"),
        (damage, "damaged: its content has not the digest in its name"),
        (link, "missing: manifest.json names it"),
        (other_step, "is of step 8, the checkpoint is of step 7"),
        (leave_out, r"values \d+ to \d+ are in no file|has \d+ values of \d+|in its files"),
        (no_piece, '"stranger" is no piece of a checkpoint'),
        (change(arrays__passes={"shape": [3], "dtype": "I64"}), r'"passes" is I64 \[\] in its files, I64 \[3\] in'),
        (change(files=[]), "is not in its files"),
        (change(files=[{"name": "../../a", "size_bytes": 1}]), "must be a file that a rank wrote into this folder"),
        (change(files=[{"name": "rank-0000-0.safetensors", "size_bytes": 1}]), "must be a file that a rank wrote"),
        (change(format=3), "format = 3"),
        (change(header={"step": 3}), "is missing"),
        (change(world_size=-1), "world_size = -1"),
        (change(arrays=[]), "arrays ="),
        (lambda folder: (folder / MANIFEST).write_text("{"), "not JSON"),
        (lambda folder: (folder / MANIFEST).write_text("[" * 100_000), "not JSON"),
        (lambda folder: (folder / MANIFEST).unlink(), "no manifest.json"),
        (lambda folder: shard(folder, 0).write_bytes(b"x" * shard(folder, 0).stat().st_size), "not a safetensors file"),
    ],
)
def test_what_is_missing_or_damaged_is_one_line(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    path = save(tmp_path / "here")
    spoil(path)
    with pytest.raises(UsageError, match=message) as caught:
        load_checkpoint(str(path), POINT)
    assert "\n" not in str(caught.value)


def test_a_damaged_state_of_one_rank_is_one_line(tmp_path: Path) -> None:
    path = save(tmp_path, own=True)
    truncated = shard(path, 1, "own")
    os.truncate(truncated, truncated.stat().st_size - 1)
    assert read_own_state(str(path), rank=0, world_size=3).keys() == make_own(0).keys()
    with pytest.raises(UsageError, match=r"own-0001-\w+.safetensors: has \d+ bytes"):
        read_own_state(str(path), rank=1, world_size=3)


def test_terminal_and_report_say_what_ranks_did_not_take_from_a_checkpoint(tmp_path: Path) -> None:
    path = str(save(tmp_path, own=True))
    for world_size, said in ((3, 0), (1, 1)):
        point = POINT.model_copy(
            update={"initial_checkpoint": path, "world_size": world_size, "micro_batch_size": 6 // world_size}
        )
        jobs = [Job(point=point, repeat=repeat) for repeat in range(2)]
        lines = check_checkpoints(Plan(jobs=jobs, skipped=[], done=[]), MeasureSettings())
        assert len(lines) == said and all("starts from zero" in line for line in lines)
    records = [
        make_record([make_rank(step_seconds=[1.0])], environment={"lost_state": line}) for line in [*lines, None]
    ]
    assert [
        text for title, text in list_warnings(Run(records)) if title == "Not all of a checkpoint was continued."
    ] == lines
