"""Without evidence no command ends with exit code 0: records that cannot be read, launches that all failed, no launch at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hvbench.cli import run as run_command
from hvbench.communication.record import Case
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from tests.unit.sample_records import make_record
from tests.unit.test_allreduce import make as make_allreduce

POINTS = [{"framework": name, "precision": precision} for name in ("pytorch", "tensorflow") for precision in ("fp32", "bf16")]


def write_sweep(path: Path, records: list[Record]) -> list[Path]:
    folder = RunFolder(path)
    folder.open_for_writing()
    folder.write_run({"suite": "smoke", "created_at": "2026-01-01T00:00:00+00:00", "jobs": [one.key for one in records]})
    paths = [folder.write_record(record) for record in records]
    folder.close()
    return paths


def with_garbage(content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        for record in write_sweep(path, [make_record(**fields) for fields in POINTS]):
            record.write_bytes(content(record.read_bytes()))

    return write


SWEEPS: dict[str, Callable[[Path], None]] = {
    "zeros": with_garbage(lambda content: b"\0" * len(content)),
    "empty files": with_garbage(lambda content: b""),
    "cut short": with_garbage(lambda content: content[: len(content) // 2]),
    "of a newer schema": with_garbage(lambda content: content.replace(b'"schema_version": 3', b'"schema_version": 99')),
    "no record": lambda path: write_sweep(path, []) and None,
    "all failed": lambda path: write_sweep(path, [make_record(status="failed", message="x", **one) for one in POINTS]) and None,
    "all out of memory": lambda path: write_sweep(path, [make_record(status="oom", message="x", **one) for one in POINTS]) and None,
    "all interrupted": lambda path: write_sweep(path, [make_record(status="interrupted", **one) for one in POINTS]) and None,
}
RUN, OTHER = "results/smoke/20260101T000000Z", "results/smoke/20250101T000000Z"
READERS = {
    "report": ["report", RUN],
    "compare": ["compare", OTHER, RUN],
    "compare, the reference": ["compare", RUN, OTHER],
    "compare, latest": ["compare", OTHER, "smoke@latest"],
    "compare by": ["compare", RUN, "--by", "framework"],
    "gate": ["gate", RUN, "--baseline", OTHER],
    "gate, the reference": ["gate", OTHER, "--baseline", RUN],
    "gate, stored baseline": ["gate", RUN],
    "baseline set": ["baseline", "set", RUN],
    "predict": ["predict", RUN],
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_end(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends with 5 and says why in one line, the last on standard error."""
    code = run_command(words)
    captured = capsys.readouterr()
    assert code == 5, captured
    assert captured.err.splitlines()[-1].startswith("hvbench: ") and "Traceback" not in captured.err


@pytest.mark.parametrize("write", SWEEPS.values(), ids=SWEEPS)
@pytest.mark.parametrize("words", READERS.values(), ids=READERS)
def test_a_run_without_a_launch_that_ended_in_ok_is_no_evidence(
    place: Path, words: list[str], write: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write(place / RUN)
    write_sweep(place / OTHER, [make_record(**fields) for fields in POINTS])
    check_end(words, capsys)


@pytest.mark.parametrize("write", SWEEPS.values(), ids=SWEEPS)
def test_a_history_of_such_runs_alone_is_none(
    place: Path, write: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ruptures")
    write(place / RUN)
    check_end(["history", "--suite", "smoke"], capsys)
