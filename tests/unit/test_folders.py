"""A command writes into folders of its own: a user's folder stays as it is, two runs never share one, the newest is found."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hvbench.cli import run as run_command
from hvbench.comparison.baseline import set_baseline
from hvbench.comparison.runs import find_run, list_runs
from hvbench.errors import UsageError
from hvbench.io.atomic import write_named_file, write_text
from hvbench.io.folders import lock_folder, make_new_folder, remove_abandoned
from hvbench.records.store import RunFolder, latest_run_path
from tests.unit.sample_records import make_rank, make_record

TIME = "20260101T000000Z"


def read_tree(folder: Path) -> dict[str, bytes | None]:
    """Path below `folder` -> content, None for a folder."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


# What is the user's


USERS = {
    "a report": {"report.md": "mine", "plots/loss.png": "mine", "tables/a.csv": "mine"},
    "temporary files": {".notes.tmp": "mine", "draft.tmp": "mine"},
    "a record of somebody else": {"records/mine.json": "{}"},
    "a log": {"logs/mine.log": "mine"},
    "another command's run": {"other.json": "{}", "records/a.r0.json": "{}"},
    "a lock file": {".lock": "mine"},
    "a hidden file": {".gitkeep": ""},
}
COMMANDS = {
    "sweep": ["sweep", "smoke", "--np", "2"],
    "sweep --resume": ["sweep", "smoke", "--np", "2", "--resume"],
    "run": ["run", "model=tiny", "data=synthetic", "--np", "2"],
    "ab": ["ab", "smoke", "--np", "2", "--b", "env:HOROVOD_FUSION_THRESHOLD=0"],
    "tune": ["tune", "model=tiny", "data=synthetic", "--np", "2"],
    "allreduce": ["allreduce", "--np", "2", "--implementation", "pytorch", "--controller", "gloo"],
    "allreduce --resume": ["allreduce", "--np", "2", "--controller", "gloo", "--resume"],
}


@pytest.mark.parametrize("content", USERS.values(), ids=USERS)
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_no_command_touches_a_folder_that_is_not_its_own(
    tmp_path: Path, words: list[str], content: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    before = read_tree(folder)
    assert run_command([*words, "--out", str(folder)]) == 2
    assert read_tree(folder) == before
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith(f"hvbench: {folder}: is not empty and is no run of this command")


@pytest.mark.parametrize(
    ("words", "marker"),
    [(COMMANDS["sweep"], "allreduce.json"), (COMMANDS["allreduce"], "run.json"), (COMMANDS["ab"], "run.json")],
    ids=["sweep", "allreduce", "ab"],
)
def test_a_run_of_another_command_is_not_written_into(tmp_path: Path, words: list[str], marker: str) -> None:
    (tmp_path / marker).write_text("{}")
    assert run_command([*words, "--out", str(tmp_path)]) == 2
    assert read_tree(tmp_path) == {marker: b"{}"}


def test_a_folder_is_made_only_for_a_run_that_can_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["run", "data=synthetic", "world_size=4", "--np", "2"]) == 2
    assert run_command(["run", "data=synthetic", "world_size=4", "--np", "2", "--out", "named"]) == 2
    (tmp_path / "empty").mkdir()
    assert run_command(["run", "data=synthetic", "world_size=4", "--np", "2", "--out", "empty"]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"results", "empty"}
    assert list((tmp_path / "results" / "run").iterdir()) == []


def test_what_a_killed_run_left_before_it_had_a_request_is_used_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open_for_writing()
    folder.close()
    RunFolder(tmp_path).open_for_writing()
    assert set(read_tree(tmp_path)) == {".lock", "records", "logs"}


def test_only_half_written_files_of_dead_processes_of_hvbench_are_deleted(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-S", "-c", ""])
    dead.wait()
    names = {
        f".run.json-hvbench-{dead.pid}-0123abcd.tmp": False,
        ".tiny-n2.r0.json-abcd1234.tmp": False,  # as earlier versions named them
        f".run.json-hvbench-{os.getppid()}-0123abcd.tmp": True,  # it lives
        ".notes.tmp": True,
        "draft.tmp": True,
        ".run.json-draft.tmp": True,
        ".report.md-hvbench-.tmp": True,
    }
    RunFolder(tmp_path).write_run({})
    for name in names:
        (tmp_path / name).write_text("")
    RunFolder(tmp_path).open_for_writing()
    assert {name: (tmp_path / name).exists() for name in names} == names


def test_what_is_half_written_is_named_as_hvbenchs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(os, "unlink", lambda path: None)  # as if killed
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "run.json", "{}")
    monkeypatch.undo()
    assert [path.name.partition("-hvbench-")[0] for path in tmp_path.iterdir()] == [".run.json"]
    remove_abandoned([tmp_path])
    assert list(tmp_path.iterdir()) == []


def test_a_new_baseline_keeps_what_the_user_put_beside_the_old_one(tmp_path: Path) -> None:
    for _ in range(2):
        run = RunFolder(make_new_folder(tmp_path / "smoke"))
        run.open_for_writing()
        run.write_run({"suite": "smoke"})
        run.write_record(make_record([make_rank(step_seconds=[0.2, 0.1, 0.11])]))
        kept = set_baseline(run.path, root=tmp_path)
        (kept.path / "why.md").write_text("mine")
        (kept.path / "records" / "mine.txt").write_text("mine")
        (kept.path / "tables").mkdir(exist_ok=True)
        (kept.path / "tables" / "mine.csv").write_text("mine")
    assert [name for name in read_tree(kept.path) if name.endswith(("md", "csv", "txt"))] == [
        "records/mine.txt",
        "tables/mine.csv",
        "why.md",
    ]
    assert {path.name for path in kept.path.parent.iterdir()} == {"smoke"}


# Files that the user named


def test_a_named_file_is_written_as_a_shell_writes_it(tmp_path: Path) -> None:
    target = tmp_path / "kept.md"
    target.write_text("old")
    target.chmod(0o640)
    link = tmp_path / "link.md"
    link.symlink_to("kept.md")
    write_named_file(link, "new")
    assert link.is_symlink() and target.read_text() == "new" and target.stat().st_mode & 0o777 == 0o640
    write_named_file(Path("/dev/null"), "gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(IsADirectoryError):
        write_named_file(tmp_path, "x")


def test_a_pipe_gets_the_text(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write_named_file, args=(pipe, "text"))
    writer.start()
    assert pipe.read_text() == "text"
    writer.join()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_that_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


# Names by time


def test_processes_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hvbench.io.folders import make_new_folder\n"
        "for _ in range(60): print(make_new_folder(Path(sys.argv[1])).name)"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "runs")], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    names = [name for process in racing for name in process.communicate()[0].split()]
    assert len(names) == len(set(names)) == 120


def test_more_than_a_hundred_runs_may_begin_in_one_second(tmp_path: Path) -> None:
    assert len({make_new_folder(tmp_path) for _ in range(120)}) == 120


NAMES = {
    "tens after ones": [f"{TIME}-9", f"{TIME}-10"],
    "the first has no number": [TIME, f"{TIME}-2", f"{TIME}-11", f"{TIME}-100"],
    "time before number": [f"{TIME}-12", "20260101T000001Z"],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_the_newest_folder_is_found_by_time_and_number(tmp_path: Path, names: list[str]) -> None:
    for name in reversed(names):
        RunFolder(tmp_path / "smoke" / name).open_for_writing()
        run = RunFolder(tmp_path / "smoke" / name)
        run.write_run({"created_at": "2026-01-01T00:00:00+00:00"})
        run.write_record(make_record())
        (tmp_path / "ab" / "smoke" / name).mkdir(parents=True)
        (tmp_path / "ab" / "smoke" / name / "ab.json").write_text("{}")
    assert latest_run_path(tmp_path, "smoke").name == names[-1]
    assert find_run("smoke@latest", root=tmp_path).name == names[-1]
    assert find_run("smoke@ab", root=tmp_path).name == names[-1]
    assert [name for name, _, _ in list_runs(tmp_path, "smoke")[0]] == names


def test_a_folder_with_a_name_of_the_users_counts_by_when_its_run_was_begun(tmp_path: Path) -> None:
    for name, created_at in (
        ("zebra", "2025-12-31T23:59:59+00:00"),
        (TIME, "2026-01-01T00:00:00+00:00"),
        ("broken", None),
    ):
        RunFolder(tmp_path / "smoke" / name).open_for_writing()
        RunFolder(tmp_path / "smoke" / name).write_run({"created_at": created_at})
    assert latest_run_path(tmp_path, "smoke").name == TIME
    RunFolder(tmp_path / "smoke" / "aardvark").open_for_writing()
    RunFolder(tmp_path / "smoke" / "aardvark").write_run({"created_at": "2026-01-01T00:00:05+00:00"})
    assert latest_run_path(tmp_path, "smoke").name == "aardvark"


def test_a_locked_folder_is_refused(tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(Exception, match="in use by"):
        lock_folder(tmp_path)


def test_a_lock_that_is_released_can_be_taken(tmp_path: Path) -> None:
    lock_folder(tmp_path).close()
    lock_folder(tmp_path).close()


def test_a_link_is_no_skeleton(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "records").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        RunFolder(tmp_path / "run").open_for_writing()
