"""Without evidence no command ends with exit code 0: records that cannot be read, launches that all failed, no launch at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hvbench.cli import run as run_command
from hvbench.communication.record import Case
from hvbench.communication.run import write_record
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from tests.unit.sample_records import make_rank, make_record
from tests.unit.test_allreduce import make as make_allreduce

POINTS = [
    {"framework": name, "precision": precision} for name in ("pytorch", "tensorflow") for precision in ("fp32", "bf16")
]


def make_good() -> list[Record]:
    return [make_record([make_rank(step_seconds=[0.2, 0.1, 0.11, 0.12])], **fields) for fields in POINTS]


def write_sweep(path: Path, records: list[Record]) -> list[Path]:
    folder = RunFolder(path)
    folder.open_for_writing()
    folder.write_run(
        {"suite": "smoke", "created_at": "2026-01-01T00:00:00+00:00", "jobs": [one.key for one in records]}
    )
    paths = [folder.write_record(record) for record in records]
    folder.close()
    return paths


def with_garbage(content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        for record in write_sweep(path, make_good()):
            record.write_bytes(content(record.read_bytes()))

    return write


SWEEPS: dict[str, Callable[[Path], None]] = {
    "zeros": with_garbage(lambda content: b"\0" * len(content)),
    "empty files": with_garbage(lambda content: b""),
    "cut short": with_garbage(lambda content: content[: len(content) // 2]),
    "of a newer schema": with_garbage(lambda content: content.replace(b'"schema_version": ', b'"schema_version": 99')),
    "no record": lambda path: write_sweep(path, []) and None,
    "ok, but nothing timed": lambda path: write_sweep(path, [make_record(**one) for one in POINTS]) and None,
    "ok, but all warm-up": lambda path: (
        write_sweep(path, [make_record([make_rank(step_seconds=[1.0])], **one) for one in POINTS]) and None
    ),
    "all failed": lambda path: (
        write_sweep(path, [make_record(status="failed", message="x", **one) for one in POINTS]) and None
    ),
    "all out of memory": lambda path: (
        write_sweep(path, [make_record(status="oom", message="x", **one) for one in POINTS]) and None
    ),
    "all interrupted": lambda path: (
        write_sweep(path, [make_record(status="interrupted", **one) for one in POINTS]) and None
    ),
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
    write_sweep(place / OTHER, make_good())
    check_end(words, capsys)


@pytest.mark.parametrize("write", SWEEPS.values(), ids=SWEEPS)
def test_a_history_of_such_runs_alone_is_none(
    place: Path, write: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write(place / RUN)
    check_end(["history", "--suite", "smoke"], capsys)


def write_cases(path: Path, *, status: str | None) -> None:
    (path / "records").mkdir(parents=True)
    (path / "allreduce.json").write_text("{}")
    for size in (2**10, 2**20) if status else ():
        case = Case(implementation="pytorch", controller="gloo", compression="none", world_size=2, payload_bytes=size)
        write_record(path, make_allreduce([], case=case, status=status, message="x"))


def write_zeros(path: Path) -> None:
    write_cases(path, status=None)
    (path / "records" / "x.r0.json").write_bytes(b"\0" * 99)


ALLREDUCES: dict[str, Callable[[Path], None]] = {
    "all failed": lambda path: write_cases(path, status="failed"),
    "no record": lambda path: write_cases(path, status=None),
    "zeros": write_zeros,
}


@pytest.mark.parametrize("write", ALLREDUCES.values(), ids=ALLREDUCES)
def test_nothing_is_predicted_from_all_reduces_that_failed(
    place: Path, write: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write(place / "run")
    check_end(["predict", "run"], capsys)


def test_baselines_that_are_not_there_are_missing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_end(["baseline", "show"], capsys)
    write_sweep(place / RUN, make_good())
    check_end(["gate", RUN], capsys)
    assert run_command(["baseline", "set", RUN]) == 0 and run_command(["baseline", "show"]) == 0
    for record in (place / "results" / "baselines").rglob("*.r0.json"):
        record.write_bytes(b"\0")
    check_end(["baseline", "show"], capsys)
    check_end(["gate", RUN], capsys)


def test_a_broken_run_or_baseline_costs_no_other(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(place / RUN, make_good())
    assert run_command(["baseline", "set", RUN]) == 0
    (place / OTHER).mkdir()
    (place / OTHER / "run.json").write_bytes(b"\0" * 10)
    (place / "results" / "baselines" / "0" / "smoke").mkdir(parents=True)
    (place / "results" / "baselines" / "0" / "smoke" / "run.json").write_text("{")
    capsys.readouterr()
    for words, whose in ((["history"], OTHER), (["baseline", "show"], "results/baselines/0/smoke")):
        assert run_command(words) == 0
        captured = capsys.readouterr()
        assert captured.out and len(captured.err.splitlines()) == 1 and f"{whose}/run.json" in captured.err


def test_an_earlier_report_stays_where_no_record_can_be_read(place: Path) -> None:
    (record,) = write_sweep(place / RUN, make_good()[:1])
    assert run_command(["report", RUN]) == 0
    before = (place / RUN / "report.md").read_text()
    record.write_bytes(b"\0")
    assert run_command(["report", RUN]) == 5
    assert (place / RUN / "report.md").read_text() == before


def test_a_plan_in_which_nothing_can_run_ends_as_its_sweep_does(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "wide.toml").write_text('question = "x"\n[point]\nmodel = "tiny"\ndata = "synthetic"\nworld_size = 64\n')
    ends = []
    for command in ("plan", "sweep"):
        code = run_command([command, "wide.toml", "--np", "2"])
        ends.append((code, capsys.readouterr().err))
    assert ends[0] == ends[1] and ends[0][0] == 2 and "none of its 1 points can run: " in ends[0][1]
