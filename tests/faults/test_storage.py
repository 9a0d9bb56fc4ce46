"""Disks that are full or read-only, and runs that changed: one line each, and what was measured stays."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvbench.errors import UsageError
from hvbench.records.store import RunFolder
from hvbench.spec.suite import parse_suite
from hvbench.sweep.options import SweepOptions
from hvbench.sweep.prepare import prepare_sweep
from tests.faults.sweeps import read_outcomes, run_sweep, suite_text
from tests.unit.sample_records import make_record

PYTORCH = ("pytorch",)


def can_mount() -> bool:
    """Whether this process may mount a file system of its own (root, and not confined)."""
    probe = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    return (
        os.geteuid() == 0
        and shutil.which("unshare") is not None
        and not subprocess.run(probe, capture_output=True).returncode
    )


needs_mounts = pytest.mark.skipif(not can_mount(), reason="needs root, to mount small and read-only file systems")


def mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, mounted where the run folder will be."""
    folder = tmp_path / "run"
    folder.mkdir()
    mount(folder, "size=256k")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.root
@needs_mounts
def test_a_disk_that_fills_up_ends_the_sweep_in_one_line_and_resume_goes_on(small_disk: Path) -> None:
    text, folder = suite_text(2, frameworks=PYTORCH), RunFolder(small_disk)
    (small_disk / "logs").mkdir()
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        try:
            while file.write(b"x" * 4096) and (os.statvfs(small_disk).f_bavail > 5):
                file.flush()
        except OSError as error:
            assert error.errno == errno.ENOSPC
    code, output = run_sweep(text, small_disk.parent)
    assert code == 5, output
    lines = [line for line in output.splitlines() if line.startswith("hvbench:")]
    assert len(lines) == 1 and "cannot be written: No space left on device" in lines[0]
    assert "Traceback" not in output
    before = read_outcomes(folder)
    assert len(before) < 2

    ballast.unlink()
    code, output = run_sweep(text, small_disk.parent, options=["--resume"])
    assert [record.outcome.status for record in read_outcomes(folder).values()] == ["ok"] * 2, output


@pytest.mark.root
@needs_mounts
def test_a_read_only_folder_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    mount(tmp_path / "run", "ro")
    try:
        code, output = run_sweep(suite_text(2, frameworks=PYTORCH), tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path / "run")], check=True)
    assert code == 5
    assert output == "hvbench: run: cannot be written: Read-only file system; choose another folder with --out\n"


WRITE_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
from hvbench.errors import StorageError
from hvbench.records.store import RunFolder
from tests.unit.sample_records import make_record
folder = RunFolder(Path(sys.argv[1]))
folder.open_for_writing()
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    folder.write_record(make_record(status="failed", message="x" * 1000))
except StorageError as error:
    print(error)
"""


def test_a_record_that_does_not_fit_leaves_nothing_half_written(tmp_path: Path) -> None:
    first = RunFolder(tmp_path)
    first.open_for_writing()
    first.write_run({})
    first.write_record(make_record())
    first.close()
    done = subprocess.run(
        [sys.executable, "-c", WRITE_UNDER_A_LIMIT, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.rstrip().endswith("cannot be written: File too large; what was measured before is safe")
    assert [path.name for path in first.records_path.iterdir()] == [f"{make_record().point_id}.r0.json"]


class Silent:
    """An observer of a sweep that remembers what was said before the first point."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def prepare(self, message: str) -> None:
        self.said.append(message)


def begin(text: str, path: Path, *, force: bool = False) -> tuple[RunFolder, Silent]:
    """Everything that happens before workers start."""
    folder, observer = RunFolder(path), Silent()
    suite = parse_suite(text, name="chaos", where="chaos.toml")
    prepare_sweep(suite, folder, SweepOptions(resume=True, force=force), world_size=2, observer=observer)
    folder.close()
    return folder, observer


def test_a_run_that_changed_is_refused_field_by_field_unless_forced(tmp_path: Path) -> None:
    text = suite_text(2, frameworks=PYTORCH)
    folder, _ = begin(text, tmp_path / "run")
    asked = json.loads((folder.path / "run.json").read_text())
    changed = asked | {"environment": asked["environment"] | {"cpu_model": "Another CPU", "packages": {"torch": "1.0"}}}
    (folder.path / "run.json").write_text(json.dumps(changed))
    longer = text.replace("steps = 3", "steps = 4").replace("micro_batch_size = 2", "micro_batch_size = 4")
    code, output = run_sweep(longer, tmp_path, options=["--resume"])
    assert code == 2
    (line,) = output.splitlines()
    assert line.startswith(
        "hvbench: run: has changed since it was begun: measure.steps was 3, is 4; base.micro_batch_size was 2, is 4; "
    )
    assert (
        'environment.cpu_model was "Another CPU", is "' in line and 'environment.packages.torch was "1.0", is "' in line
    )
    assert line.endswith("start a new run, or go on all the same with --force")
    assert json.loads((folder.path / "run.json").read_text()) == changed

    _, observer = begin(longer, tmp_path / "run", force=True)
    assert observer.said[0].startswith("going on although it has changed: measure.steps was 3, is 4; ")
    asked = folder.read_run()
    assert asked["sessions"][0]["changes"] and asked["measure"]["steps"] == 4


def test_a_timeout_is_no_change(tmp_path: Path) -> None:
    text = suite_text(2, frameworks=PYTORCH)
    folder, _ = begin(text, tmp_path / "run")
    begin(text + "timeout_seconds = 9.0\n", tmp_path / "run")
    assert [session["changes"] for session in folder.read_run()["sessions"]] == [[]]


def test_another_text_under_the_same_path_is_a_change(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    text = suite_text(2, frameworks=PYTORCH).replace("synthetic", str(book))
    book.write_text("It was the best of times. " * 4000)
    begin(text, tmp_path / "run")
    book.write_text("It was the worst of times. " * 4000)
    with pytest.raises(
        UsageError, match="its text has changed since it was begun: data.*; start a new run, or go on all the same"
    ):
        begin(text, tmp_path / "run")
    begin(text, tmp_path / "run", force=True)


def test_options_of_resume_alone_are_refused_without_it(tmp_path: Path) -> None:
    for option in (
        ["--force"],
        ["--retry", "oom"],
        ["--resume", "--retry", "slow"],
        ["--memory-limit", "much"],
        ["--timeout", "0"],
    ):
        code, output = run_sweep(suite_text(2, frameworks=PYTORCH), tmp_path, options=option)
        assert code == 2 and len(output.splitlines()) == 1, output


def test_only_the_outcomes_that_are_asked_for_are_retried(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open_for_writing()
    for seed, status in enumerate(("ok", "failed", "oom", "timeout", "interrupted")):
        folder.write_record(make_record(status=status, message="x", seed=seed))
    done = {record.outcome.status for record in folder.read_records()[0]}
    assert done == {"ok", "failed", "oom", "timeout", "interrupted"}
    keys = {
        status: f"{make_record(seed=seed).point_id}.r0"
        for seed, status in enumerate(("ok", "failed", "oom", "timeout", "interrupted"))
    }
    assert folder.done_keys() == {keys["ok"]}
    assert folder.done_keys(retry={"oom", "failed"}) == {keys["ok"], keys["timeout"], keys["interrupted"]}
    assert folder.done_keys(retry=set()) == set(keys.values())
    folder.close()
