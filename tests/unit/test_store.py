"""A run's folder: one writer at a time, complete records, and bad files that do not affect the good ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hvbench.errors import StorageError, UsageError
from hvbench.records.record import Record
from hvbench.records.store import RunFolder, latest_run_path, new_run_path, parse_record, read_record
from tests.unit.sample_records import make_ceiling, make_launch, make_rank, make_record


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    run = RunFolder(tmp_path / "run")
    run.open_for_writing()
    yield run
    run.close()


def refuse(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_record(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and len(message.splitlines()) == 1
    return message.removeprefix(f"{path}: ")


# Records


def test_a_record_is_read_back_as_written(folder: RunFolder) -> None:
    record = make_launch({"framework": "tensorflow"}, repeat=2)
    path = folder.write_record(record)
    assert path == folder.path / "records" / f"{record.point_id}.r2.json"
    assert read_record(path) == record
    assert folder.read_records() == ([record], [])


def test_a_record_is_plain_json(folder: RunFolder) -> None:
    path = folder.write_record(make_launch({"framework": "pytorch"}))
    assert json.loads(path.read_text())["outcome"]["status"] == "ok"


def test_records_come_ordered_by_name_whatever_the_order_of_writing(folder: RunFolder) -> None:
    records = [
        make_launch({"framework": "pytorch", "seed": seed}, repeat=repeat) for seed in range(3) for repeat in range(2)
    ]
    for record in reversed(records):
        folder.write_record(record)
    found, problems = folder.read_records()
    assert found == sorted(records, key=lambda record: (record.point_id, record.repeat))
    assert problems == []


def test_only_launches_that_ended_well_are_done(folder: RunFolder) -> None:
    good, bad = make_launch({"framework": "pytorch", "seed": 1}, repeat=1), make_record(status="oom", message="killed")
    for record in (good, bad):
        folder.write_record(record)
    assert folder.done_keys() == {f"{good.point_id}.r1"}


def test_a_second_try_takes_the_place_of_a_failure(folder: RunFolder) -> None:
    folder.write_record(make_record(status="failed", message="killed"))
    good = make_record([make_rank(rank, step_seconds=[0.1, 0.1]) for rank in range(2)])
    folder.write_record(good)
    assert folder.read_records() == ([good], [])


# Files that are no records


def as_json(**changes: Any) -> bytes:
    return json.dumps(make_record().model_dump() | changes).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (as_json()[:-20], "not JSON (truncated?)"),
        (b"", "not JSON (truncated?)"),
        (b"\xff\xfe", "not JSON (truncated?)"),
        (b"[" * 100_000, "not JSON (truncated?)"),
        (b"9" * 5000, "holds an integer of 5000 digits; not written by hvbench"),
        (b"3", "schema_version null; this hvbench reads 5"),
        (b'{"loss": 3}', "schema_version null; this hvbench reads 5"),
        (as_json(schema_version=6), "schema_version 6 is newer than this hvbench reads (5): upgrade hvbench"),
        (as_json(schema_version="1"), 'schema_version "1"; this hvbench reads 5'),
        (b'{"schema_version": 1}', "suite is missing"),
        (as_json(repeat="0"), 'repeat = "0": must be a valid integer'),
        (as_json(duration_seconds=float("nan")), "duration_seconds = NaN: must be a finite number"),
        (
            as_json(outcome={"status": "great"}),
            'outcome.status = "great": must be '
            "'ok', 'oom', 'failed', 'timeout', 'diverged', 'stopped', 'skipped' or 'interrupted'",
        ),
    ],
)
def test_a_file_that_is_no_record_of_this_schema_is_told_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert refuse(path) == message


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(as_json(repeats=0))
    assert refuse(path).startswith('unknown key "repeats" (did you mean "repeat"?); allowed: schema_version, suite, ')


def test_a_folder_named_like_a_record_is_an_error_of_one_line(tmp_path: Path) -> None:
    assert refuse(tmp_path) == "not a regular file; results are regular files"


def test_a_missing_record_is_an_error_of_one_line(tmp_path: Path) -> None:
    assert refuse(tmp_path / "a.json") == "cannot be read: No such file or directory"


def test_bad_files_are_listed_and_the_good_records_still_read(folder: RunFolder) -> None:
    record = make_launch({"framework": "pytorch"})
    good = folder.write_record(record)
    (folder.records_path / "a-foreign.json").write_text('{"loss": 3}')
    (folder.records_path / "b-newer.json").write_bytes(as_json(schema_version=9))
    (folder.records_path / "c-truncated.json").write_bytes(good.read_bytes()[:100])
    (folder.records_path / ".half-written.tmp").write_text("{")
    (folder.records_path / "notes.txt").write_text("mine")
    records, problems = folder.read_records()
    assert records == [record]
    assert [Path(problem.partition(": ")[0]).name for problem in problems] == [
        "a-foreign.json",
        "b-newer.json",
        "c-truncated.json",
    ]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
VERSIONED = st.dictionaries(st.sampled_from(list(Record.model_fields)), ANY_JSON, max_size=5).map(
    lambda changes: make_record().model_dump() | changes | {"schema_version": 1}
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=64) | (ANY_JSON | VERSIONED).map(lambda value: json.dumps(value).encode()))
@example(b'{"schema_version": ' + b"9" * 4000 + b"}")
def test_arbitrary_bytes_give_a_record_or_a_usage_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    try:
        assert isinstance(read_record(path), Record)
    except UsageError as error:
        assert str(error).removeprefix(str(path)).isprintable()


# The run itself


def test_run_json_reads_back_as_written(folder: RunFolder) -> None:
    folder.write_run({"suite": "smoke", "jobs": ["a.r0"]})
    assert folder.read_run() == {"schema_version": 5, "suite": "smoke", "jobs": ["a.r0"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "{folder}: not a run folder (run.json: No such file or directory)"),
        (b"{", "{folder}/run.json: not JSON (truncated?)"),
        (b"[]", "{folder}/run.json: schema_version null; this hvbench reads 5"),
        (
            b'{"schema_version": 6}',
            "{folder}/run.json: schema_version 6 is newer than this hvbench reads (5): upgrade hvbench",
        ),
    ],
)
def test_a_folder_that_is_no_run_is_an_error_of_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        RunFolder(tmp_path).read_run()
    assert str(caught.value) == message.format(folder=tmp_path)


def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught:
        RunFolder(tmp_path / "file" / "run").open_for_writing()
    assert (
        str(caught.value)
        == f"{tmp_path}/file/run: cannot be written: Not a directory; choose another folder with --out"
    )


def test_a_record_that_cannot_be_written_is_an_error_of_one_line(folder: RunFolder) -> None:
    folder.records_path.rmdir()
    with pytest.raises(
        StorageError, match=r"cannot be written: No such file or directory; what was measured before is safe$"
    ):
        folder.write_record(make_record())


# One owner at a time

HOLD = """
import sys
from hvbench.records.store import Path, RunFolder
folder = RunFolder(Path(sys.argv[1]))
folder.open_for_writing()
print("held", flush=True)
sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen:
    """Another process that owns the run folder until its standard input ends."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_is_refused_with_the_owner_of_the_lock(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        with pytest.raises(StorageError) as caught:
            RunFolder(tmp_path).open_for_writing()
        holder.stdin.close()
    assert str(caught.value).startswith(f'{tmp_path}: in use by "process {holder.pid} on ')
    assert str(caught.value).endswith("; wait for it or choose another folder with --out")


def test_a_killed_owner_releases_the_lock(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        holder.kill()
    RunFolder(tmp_path).open_for_writing()


def test_close_releases_the_lock(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.open_for_writing()
    with pytest.raises(StorageError, match="in use by"):
        second.open_for_writing()
    first.close()
    second.open_for_writing()
    second.close()


def test_reading_needs_no_lock(folder: RunFolder) -> None:
    folder.write_run({"suite": "smoke"})
    folder.write_record(make_record())
    reader = RunFolder(folder.path)
    assert reader.read_run()["suite"] == "smoke" and len(reader.read_records()[0]) == 1


# Names of runs


def test_a_new_run_has_a_new_folder(tmp_path: Path) -> None:
    paths = []
    for _ in range(3):
        paths.append(new_run_path(tmp_path, "smoke"))
    assert len(set(paths)) == 3
    assert {path.parent for path in paths} == {tmp_path / "smoke"}


def test_the_newest_run_is_the_one_to_resume(tmp_path: Path) -> None:
    assert latest_run_path(tmp_path, "smoke") is None
    for name in ("20240506T070000Z", "20250101T000000Z", "20240506T070000Z-2"):
        RunFolder(tmp_path / "smoke" / name).open_for_writing()
        RunFolder(tmp_path / "smoke" / name).write_run({})
    (tmp_path / "smoke" / "20990101T000000Z").mkdir()  # never begun
    assert latest_run_path(tmp_path, "smoke") == tmp_path / "smoke" / "20250101T000000Z"


def test_a_record_of_the_first_schema_is_still_read() -> None:
    values = json.loads(json.dumps(make_record([make_rank(step_seconds=[1.0, 1.0])]).model_dump()))
    del values["parity"], values["point"]["gemm"], values["ranks"][0]["ceiling"], values["ranks"][0]["ablation"]
    for name in ("ablation_rounds", "precision_target", "budget_seconds"):
        del values["measure"][name]
    record = parse_record(json.dumps(values | {"schema_version": 1}).encode(), where="old")
    assert (record.schema_version, record.point.gemm, record.parity) == (5, "default", None)


def test_a_ceiling_of_the_third_schema_has_no_readings() -> None:
    """It knew one reading of each rate, by all ranks at once."""
    rank = make_rank(step_seconds=[1.0, 1.0], ceiling=make_ceiling(5e9))
    values = json.loads(json.dumps(make_record([rank]).model_dump()))
    del values["ranks"][0]["ceiling"]["together_flops_per_second"]
    del values["ranks"][0]["ceiling"]["alone_flops_per_second"]
    ceiling = parse_record(json.dumps(values | {"schema_version": 3}).encode(), where="old").ranks[0].ceiling
    assert ceiling == rank.ceiling
    assert (ceiling.together_flops_per_second, ceiling.alone_flops_per_second) == ([], [])
