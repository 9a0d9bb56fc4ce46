"""Results from strangers: links, pipes, renamed and half-written files, other schemas. All listed, none followed, none lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hvbench.cli.display.report import write_report
from hvbench.errors import UsageError
from hvbench.records.store import MIGRATIONS, RunFolder, parse_record, read_record
from tests.unit.sample_records import make_rank, make_record

GOOD = make_record([make_rank(rank, step_seconds=[0.1, 0.1]) for rank in range(2)])


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.open_for_writing()
    return run


def only_problem(folder: RunFolder) -> str:
    records, problems = folder.read_records()
    assert records == [GOOD] and len(problems) == 1
    return problems[0]


def test_a_link_is_not_followed(folder: RunFolder, tmp_path: Path) -> None:
    path = folder.write_record(GOOD)
    secret = tmp_path / "secret.json"
    secret.write_bytes(path.read_bytes())
    (folder.records_path / "x.r0.json").symlink_to(secret)
    assert only_problem(folder).endswith("x.r0.json: a link; results are regular files")


def test_a_link_in_the_place_of_the_run_is_not_followed(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"schema_version": 1, "question": "secret"}')
    (folder.path / "run.json").symlink_to(tmp_path / "other.json")
    with pytest.raises(UsageError, match="run.json: a link; results are regular files"):
        folder.read_run()


@pytest.mark.parametrize("name", [".lock", "records", "logs", "tables", "plots"])
def test_a_link_in_the_place_of_the_runs_own_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("do not truncate me") if name == ".lock" else precious.mkdir()
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    (folder.path / name).symlink_to(precious)
    for use in (folder.open_for_writing, folder.read_run):
        with pytest.raises(UsageError, match=f"run/{name}: a link; results are regular files and folders$"):
            use()
    assert precious.read_text() == "do not truncate me" if name == ".lock" else list(precious.iterdir()) == []


def test_a_link_to_a_whole_run_is_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    folder = RunFolder(tmp_path / "run")
    folder.open_for_writing()
    folder.write_record(GOOD)
    assert folder.read_records() == ([GOOD], [])


def test_a_file_name_cannot_colour_the_terminal_that_lists_it(folder: RunFolder) -> None:
    folder.write_record(GOOD)
    folder.write_run({})
    (folder.records_path / "\x1b[2J\n.r0.json").write_text("{")
    shown = write_report(folder.path)
    assert "not a readable record: " in shown and "\\x1b[2J\\n.r0.json: not JSON (truncated?)" in shown
    assert all(each.isprintable() or each == "\n" for each in shown)


def test_a_description_of_a_run_may_hold_anything(folder: RunFolder) -> None:
    folder.write_record(GOOD)
    measure = {"steps": [1, 2], "repeats": [], "warmup_steps": {"x": "<script>"}, "x": None}
    folder.write_run(
        {"measure": measure, "suite": ["<b>"], "question": {"a": 1}, "jobs": 3, "skipped": "x", "command": 1e300}
    )
    write_report(folder.path)
    report = (folder.path / "report.md").read_text()
    assert "# hvbench: " in report and "<b>" not in report and "<script>" not in report


def test_a_pipe_does_not_block(folder: RunFolder) -> None:
    folder.write_record(GOOD)
    os.mkfifo(folder.records_path / "x.r0.json")
    assert only_problem(folder).endswith("x.r0.json: not a regular file; results are regular files")


def test_a_copy_under_another_name_counts_once(folder: RunFolder) -> None:
    path = folder.write_record(GOOD)
    (folder.records_path / "copy.r0.json").write_bytes(path.read_bytes())
    assert f'copy.r0.json: holds the record of "{GOOD.point_id}.r0", not of its name\'s' in only_problem(folder)


def test_a_name_that_leads_outside_is_never_written_or_believed(folder: RunFolder) -> None:
    path = folder.write_record(GOOD)
    values = json.loads(path.read_text()) | {"point_id": "../../escape"}
    (folder.records_path / "escape.r0.json").write_text(json.dumps(values))
    assert 'holds the record of "../../escape.r0"' in only_problem(folder)


def test_attempts_follow_each_other_and_the_newest_counts(folder: RunFolder) -> None:
    names = [
        folder.write_record(make_record(status=status, message="x")).name for status in ("failed", "oom", "interrupted")
    ]
    key = f"{make_record().point_id}.r0"
    assert names == [f"{key}.json", f"{key}.a2.json", f"{key}.a3.json"]
    assert [record.outcome.status for record in folder.read_records()[0]] == ["interrupted"]
    assert [(attempt, record.outcome.status) for attempt, record in folder.read_attempts()[0]] == [
        (1, "failed"),
        (2, "oom"),
        (3, "interrupted"),
    ]


def test_ten_attempts_are_still_in_order(folder: RunFolder) -> None:
    for number in range(11):
        folder.write_record(make_record(status="failed", message=str(number)))
    assert [record.outcome.message for record in folder.read_records()[0]] == ["10"]


def test_an_unreadable_attempt_is_listed_and_the_one_before_it_counts(folder: RunFolder) -> None:
    first = folder.write_record(GOOD)
    second = folder.write_record(make_record(status="failed", message="x"))
    second.write_bytes(second.read_bytes()[:50])
    assert only_problem(folder).endswith(f"{second.name}: not JSON (truncated?)")
    assert folder.write_record(GOOD).name.endswith(".a3.json"), "nothing is overwritten, not even garbage"
    assert first.exists() and second.exists()


def test_what_a_killed_process_left_half_written_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / ".x.r0.json-abc.tmp").write_text("{")
    folder = RunFolder(tmp_path)
    folder.open_for_writing()
    assert list(folder.records_path.iterdir()) == []


# Other schemas


def rename_loss(values: dict[str, Any]) -> dict[str, Any]:
    """What a migration looks like: version 0 called the outcome `result`."""
    return {("outcome" if key == "result" else key): value for key, value in values.items()}


def as_version_0() -> bytes:
    values = GOOD.model_dump() | {"schema_version": 0}
    values["result"] = values.pop("outcome")
    return json.dumps(values).encode()


def test_an_older_record_is_migrated_version_by_version() -> None:
    assert parse_record(as_version_0(), where="old.json", migrations={0: rename_loss, **MIGRATIONS}) == GOOD


def test_an_older_record_that_nobody_can_migrate_is_told() -> None:
    with pytest.raises(UsageError, match="^old.json: schema_version 0; this hvbench reads 5$"):
        parse_record(as_version_0(), where="old.json")


def test_a_record_that_only_claims_to_be_old_is_told_in_one_line() -> None:
    def fail(values: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": values["result"]["status"]}

    with pytest.raises(UsageError, match="^old.json: not of schema_version 0: "):
        parse_record(b'{"schema_version": 0}', where="old.json", migrations={0: fail})


@pytest.mark.parametrize("version", ["true", "1.0", '"1"', "[1]", "-1", "null", "1e999", "NaN"])
def test_a_version_that_is_no_version_is_told(version: str) -> None:
    with pytest.raises(UsageError, match="this hvbench reads 5"):
        parse_record(b'{"schema_version": ' + version.encode() + b"}", where="x.json")


# Sizes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "x" * 10_000_000}, "at most 4096 characters"),
        ({"environment": {"x": "y" * 10_000_000}}, "longer than 1000000 characters"),
        ({"environment": {"x": float("nan")}}, "environment holds NaN or an infinity"),
        ({"environment": {"x": float("inf")}}, "environment holds NaN or an infinity"),
        ({"duration_seconds": float("inf")}, "must be a finite number"),
        ({"environment": {"x": 10**400}}, "holds an integer of 401 digits; not written by hvbench"),
        ({"environment": {"x": [[[[[[[[[[[[0]]]]]]]]]]]]}}, "tables or lists nested more than 12 deep"),
        ({"ranks": [[]] * 2_000_001}, "more than 2000000 lists and objects; not written by hvbench"),
        ({"model": GOOD.model.model_dump() | {"tokens_per_step": 2**62}}, "must be less than 1099511627776"),
        ({"duration_seconds": 1e300}, "must be less than 1000000000000000"),
        ({"generation": 2**63}, "must be less than 9223372036854775808"),
        ({"repeat": -1}, "must be greater than or equal to 0"),
    ],
)
def test_absurd_values_are_told_in_one_short_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(GOOD.model_dump() | changes))
    with pytest.raises(UsageError) as caught:
        read_record(path)
    assert message in str(caught.value) and len(str(caught.value)) < 500
