"""Watching a sweep from its run folder: another display shows what its own showed, whatever else stands in the journal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hvbench.cli import run as run_command
from hvbench.cli.display.lines import Display
from hvbench.cli.display.live import Live
from hvbench.cli.display.watching import follow, watch_run
from hvbench.errors import MissingData, UsageError
from hvbench.io.folders import is_locked, lock_folder
from hvbench.records.journal import NAME, Began, JournalReader, JournalWriter, Progressed
from hvbench.records.store import RunFolder
from hvbench.sweep.journal import Journalled
from tests.unit.test_display import MEMBERS, drawn, make_sweep, message, show_on

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def sweep_into(folder: RunFolder, *, display: Display | None = None, launches: int = 4) -> str:
    """A session that writes records and a journal; what its own display printed."""
    display = display or Display()
    screen = show_on(display)
    plan, records = make_sweep()
    with JournalWriter(folder.path) as journal:
        observer = Journalled(display, journal)
        observer.prepare("text")
        observer.start(plan, MEMBERS)
        for job, record in list(zip(plan.jobs, records, strict=True))[:launches]:
            observer.progress(job, message())
            folder.write_record(record)
            observer.finish_job(job, record)
        observer.extend([plan.jobs[0].__class__(point=plan.jobs[0].point, repeat=2)], "a reason")
    return without_times(screen.getvalue())


def without_times(text: str) -> str:
    """What is shown, but for how long the rest may take."""
    return re.sub(r"~\d+ s left", "~ left", text)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.open_for_writing()
    made.write_run({"suite": "s", "question": "q"})
    return made


def watched(folder: RunFolder) -> str:
    display = Display()
    screen = show_on(display)
    assert follow(JournalReader(folder.path), display, folder) is not None
    return without_times(screen.getvalue())


def test_who_watches_sees_the_same_lines(folder: RunFolder) -> None:
    own = sweep_into(folder)
    folder.close()
    assert "loss" in own and "failed on rank 1" in own and watched(folder) == own


def test_the_live_view_is_the_same_too(folder: RunFolder) -> None:
    own, other = Live(), Live()
    sweep_into(folder, display=own, launches=3)
    folder.close()
    show_on(other)
    follow(JournalReader(folder.path), other, folder)
    assert "3/5 launches on 2 ranks" in drawn(other) and without_times(drawn(other)) == without_times(drawn(own))


def test_only_the_last_session_is_shown(folder: RunFolder) -> None:
    sweep_into(folder, launches=1)
    with (folder.path / NAME).open("a") as file:  # a process that was killed in the middle of a line
        file.write('{"event": "prog')
    own = sweep_into(folder)
    folder.close()
    assert watched(folder) == own


def test_what_is_no_event_is_left_out(folder: RunFolder) -> None:
    own = sweep_into(folder)
    folder.close()
    path = folder.path / NAME
    spoiled = [
        "",
        "x",
        "[" * 50,
        "{}",
        '{"event": "launch", "at": 1, "key": "../../etc/passwd"}',
        '{"event": "no", "at": 1}',
    ]
    spoiled += [json.dumps({"event": "progress", "at": 1.0, "key": "unknown.r0", "phase": "measure"}), "\xff"]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *spoiled, *lines[1:-1], *spoiled, lines[-1], ""]))
    assert watched(folder) == own


def test_a_line_is_read_once_it_is_whole(folder: RunFolder) -> None:
    reader, path = JournalReader(folder.path), folder.path / NAME
    assert list(reader.read()) == []
    line = Progressed(at=1.0, key="k.r0", phase="measure", step=3).model_dump_json()
    path.write_text(Began(at=0.5).model_dump_json() + "\n" + line[:20])
    assert [event.event for event in reader.read()] == ["begin"]
    with path.open("a") as file:
        file.write(line[20:] + "\n")
    assert [event.event for event in reader.read()] == ["progress"] and list(reader.read()) == []


def test_a_process_that_is_gone_without_a_word_is_told(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep_into(folder, launches=1)
    path = folder.path / NAME
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:-1]))
    folder.close()
    answers = iter([True, True, False])
    monkeypatch.setattr("hvbench.cli.display.watching.is_locked", lambda path: next(answers))
    with pytest.raises(MissingData, match=r"is gone; what it measured is safe: go on with --resume"):
        watch_run(folder.path, Display())


def test_a_journal_that_cannot_be_written_ends_nothing(folder: RunFolder) -> None:
    (folder.path / NAME).mkdir()
    assert "failed on rank 1" in sweep_into(folder)


def test_whether_somebody_writes_a_folder(tmp_path: Path) -> None:
    assert not is_locked(tmp_path) and not is_locked(tmp_path / "none")
    lock = lock_folder(tmp_path)
    assert is_locked(tmp_path)
    lock.close()
    assert not is_locked(tmp_path)


def test_a_run_that_has_ended_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["watch", str(REFERENCE / "convergence")]) == 0
    out, err = capsys.readouterr()
    assert "nats" in out and err == ""


def test_what_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["watch", str(tmp_path)]) == UsageError.exit_code
    assert "not a run folder" in capsys.readouterr().err
