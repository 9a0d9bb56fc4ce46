"""Trackers that follow a sweep: what they read of its files, what they show, and what becomes of it when the records are there."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hvbench.cli.display.lines import Quiet
from hvbench.errors import StorageError
from hvbench.launch.messages import Progress
from hvbench.plan.jobs import Job, Plan
from hvbench.records.journal import JournalWriter, Progressed
from hvbench.records.record import Record
from hvbench.records.steps import COLUMNS, INTERVAL_SECONDS, StepWriter
from hvbench.records.store import RunFolder
from hvbench.sweep.journal import Journalled
from hvbench.tracking import wandb as wandb_tracker
from hvbench.tracking.export import make_run, pair_with_figures, track
from hvbench.tracking.live import Follower
from hvbench.tracking.process import LiveTrackers
from hvbench.tracking.runs import Value
from hvbench.tracking.steps import StepReader
from hvbench.tracking.tensorboard import LiveRuns
from hvbench.tracking.trackers import STEPS_FOLDER
from tests.unit.sample_records import make_launch
from tests.unit.sample_scripts import make_script_records
from tests.unit.sample_tracking import read_settings, read_tensorboard, read_wandb
from tests.unit.test_display import MEMBERS, make_sweep, message

LOSSES = [3.0, None, 2.0, 1.5]


def write_steps(path: Path, losses: list[float | None], *, writer: StepWriter | None = None) -> StepWriter:
    """Append that many steps of 1, 2, 3, … s with waits of half a second, in one line."""
    writer = writer or StepWriter(str(path))
    first = writer.steps + 1
    seconds = [float(first + place) for place in range(len(losses))]
    rest = dict.fromkeys(COLUMNS, [])  # as of a script that logs nothing else
    writer.write(rest | {"step_seconds": seconds, "data_seconds": [0.5] * len(losses), "loss": losses})
    return writer


def test_steps_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    reader = StepReader(path)
    assert reader.read() == []
    begun = time.time()
    writer = write_steps(path, LOSSES)
    assert writer.steps == 4 and not writer.is_due, f"not before {INTERVAL_SECONDS} s"
    (batch,) = reader.read()
    curves = batch.curves()
    assert set(curves) == {"step_seconds", "loss"}
    assert [(one.step, one.value) for one in curves["loss"]] == [(1, 3.0), (3, 2.0), (4, 1.5)]
    times = [one.seconds for one in curves["step_seconds"]]
    assert begun <= times[3] <= time.time()
    assert [later - time for time, later in zip(times, times[1:], strict=False)] == pytest.approx([2.5, 3.5, 4.5])
    write_steps(path, [1.0, 0.5], writer=writer)
    (batch,) = reader.read()
    assert [one.step for one in batch.curves()["loss"]] == [5, 6] and reader.read() == []


def test_what_is_no_line_of_steps_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    writer = write_steps(path, LOSSES)
    line = path.read_text()
    spoiled = [
        "",
        "x",
        "{}",
        "[" * 50,
        '{"step": -1, "at": 1.0, "step_seconds": [1.0]}',
        '{"step": 9}',
        "\xff",
        line[:-1],
    ]
    path.write_text(line + "\n".join(spoiled) + "\n")
    write_steps(path, [1.0], writer=writer)
    assert [batch.step for batch in StepReader(path).read()] == [0, 4]


def test_a_file_that_cannot_be_written_is_tried_once_and_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "none" / "x", tmp_path / "pipe", tmp_path / "link", Path("/dev/full")):
        writer = write_steps(path, LOSSES)
        writer._written = 0.0
        assert not writer.is_due, path
    assert not (tmp_path / "elsewhere").exists()
    assert StepReader(tmp_path / "pipe").read() == []


def make_folder(path: Path) -> RunFolder:
    """The folder of a run whose sweep begins."""
    folder = RunFolder(path)
    folder.open_for_writing()
    folder.write_run({"suite": "s", "question": "q"})
    (path / STEPS_FOLDER).mkdir(parents=True)
    return folder


def test_a_tracker_sees_each_step_and_the_record_replaces_what_it_saw(tmp_path: Path) -> None:
    """Two launches of a plan, of which one has ended; an earlier session of the run is not looked at."""
    folder = make_folder(tmp_path / "run")
    plan, records = make_sweep()
    with JournalWriter(folder.path) as journal:
        Journalled(Quiet(), journal).start(plan, MEMBERS)
    place = (folder.path / "journal.jsonl").stat().st_size
    tracker = folder.path / "tracking" / "tensorboard"
    follower = Follower(folder.path, LiveRuns(tracker), suite="quickstart", place=place)
    first, second = (record.key for record in records[:2])
    with JournalWriter(folder.path) as journal:
        assert follower.look() and not tracker.exists()
        observer = Journalled(Quiet(), journal)
        observer.start(plan, MEMBERS)
        for job, record in list(zip(plan.jobs, records, strict=True))[:2]:
            observer.progress(job, begun(record))
        journal.write(Progressed(at=1.0, key="unknown.r0", phase="measure", started_at=records[0].started_at))
        writer = write_steps(folder.path / STEPS_FOLDER / f"{first}.jsonl", LOSSES)
        assert follower.look() and [path.name for path in tracker.iterdir()] == [first]
        assert steps_of(tracker / first) == [1, 3, 4] and "| status | running |" in read_settings(tracker / first)
        assert set(follower.launches) == {first, second}
        write_steps(folder.path / STEPS_FOLDER / f"{first}.jsonl", [1.0, 0.5], writer=writer)
        folder.write_record(records[0])
        observer.finish_job(plan.jobs[0], records[0])
        write_steps(folder.path / STEPS_FOLDER / f"{second}.jsonl", LOSSES)
        assert follower.look() and set(follower.launches) == {second}
        assert steps_of(tracker / first) == [1, 3, 4, 5, 6]
    assert not follower.look() and steps_of(tracker / second) == [1, 3, 4]
    for where in (folder.path, tmp_path / "other"):
        track(where, records[:2], ["tensorboard"])
    for name in (first, second):
        live, afterwards = (
            read_tensorboard(each / "tracking/tensorboard" / name) for each in (folder.path, tmp_path / "other")
        )
        assert live == afterwards and len(live["loss"]) == len(records[0].ranks[0].loss)


def begun(record: Record) -> Progress:
    """The first report of a launch, with when it began."""
    return replace(message(), started_at=record.started_at)


def steps_of(folder: Path) -> list[int]:
    return [step for step, _, _ in read_tensorboard(folder)["loss"]]


@pytest.mark.parametrize("records", [make_sweep()[1], make_script_records(repeats=2)], ids=["twins", "scripts"])
def test_a_run_that_is_followed_is_that_of_its_record(records: list[Record], tmp_path: Path) -> None:
    """But for the revision of a script, which the record will say."""
    folder = make_folder(tmp_path / "run")
    jobs = [Job(point=record.point, repeat=record.repeat) for record in records]
    follower = Follower(folder.path, LiveRuns(tmp_path), suite=records[0].suite, place=0)
    with JournalWriter(folder.path) as journal:
        observer = Journalled(Quiet(), journal)
        observer.start(Plan(jobs=jobs, skipped=[], done=[]), MEMBERS)
        for job, record in zip(jobs, records, strict=True):
            observer.progress(job, begun(record))
        follower.look()
    assert len(follower.launches) == 4
    for record, row in pair_with_figures(records):
        final, live = make_run(record, row), follower.launches[record.key].run
        own = {"revision": None} if record.is_script else {}
        assert live.settings == final.settings | own
        assert (live.id, live.name, live.start_seconds) == (final.id, final.name, final.start_seconds)


def test_wandb_shows_steps_apart_from_the_records_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    record = make_launch({"framework": "pytorch"})
    ((_, row),) = pair_with_figures([record])
    run, folder = make_run(record, row), tmp_path / "tracking" / "wandb"
    live = wandb_tracker.LiveRuns(folder)
    live.begin(run)
    live.add(run, {"loss": [Value(step=step, seconds=1e9 + step, value=9.0) for step in (1, 2)]})
    live.end(run)
    shown = read_wandb(folder / wandb_tracker.LIVE)[run.name]
    assert shown.id == run.id and shown.history["loss"] == {1: 9.0, 2: 9.0}
    assert read_wandb(folder) == {}, "no run of the records"
    track(tmp_path, [record], ["wandb"])
    assert read_wandb(folder)[run.name].history["loss"] == {one.step: one.value for one in run.curves["loss"]}
    assert not (folder / wandb_tracker.LIVE).exists()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """A file that may not grow is one: it takes a part, and then no more."""
    record = make_launch({"framework": "pytorch"})
    ((_, row),) = pair_with_figures([record])
    run, live = make_run(record, row), LiveRuns(tmp_path)
    live.begin(run)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot be written: File too large$") as caught:
            live.add(run, {"loss": [Value(step=step, seconds=1.0, value=9.0) for step in range(1, 1000)]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        live.end(run)
    assert str(caught.value).startswith(str(tmp_path))


def test_a_folder_in_the_way_is_a_warning(tmp_path: Path) -> None:
    folder, lines = RunFolder(tmp_path / "run"), []
    folder.open_for_writing()
    (folder.path / "tracking").write_text("in the way")
    with LiveTrackers(folder.path, ["tensorboard"], environment={}, warn=lines.append) as trackers:
        assert trackers.steps_folder is None
        trackers.check()
    (line,) = lines
    assert line.startswith("no tracking while the sweep runs: ") and "Not a directory" in line


def test_nothing_follows_where_no_tracker_can(tmp_path: Path) -> None:
    for names in ([], ["mlflow"]):
        with LiveTrackers(tmp_path, names, environment={}, warn=lambda line: None) as trackers:
            assert trackers.steps_folder is None
    assert list(tmp_path.iterdir()) == []
