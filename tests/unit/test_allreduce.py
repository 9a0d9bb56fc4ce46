"""All-reduces by themselves: the cases, the check of their results, their records, the table and the plot."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hvbench.cli.group import hvbench
from hvbench.communication.calls import LARGEST, ROUNDOFF, Pattern, time_case
from hvbench.communication.plan import CaseAxes, list_cases, list_sizes, make_task, plan_jobs
from hvbench.communication.plot import plot_bandwidth
from hvbench.communication.record import AllreduceRecord, CallSettings, Case, RankCalls, read_records
from hvbench.communication.run import make_record, write_record
from hvbench.communication.summary import seconds_of_calls, slowest_rank, summarize
from hvbench.communication.table import render_table
from hvbench.launch.placement import Member
from hvbench.launch.task import TaskEnd
from hvbench.records.record import Outcome
from hvbench.spec.compression import WIRE_FORMATS
from hvbench.training.products import allreduce_busbw

SETTINGS = CallSettings()
CASE = Case(implementation="pytorch", controller="gloo", compression="fp16", world_size=2, payload_bytes=1 << 20)


def make_rank(rank: int, seconds: list[float], **changes: object) -> RankCalls:
    values = {
        "rank": rank, "host": "a", "local_rank": rank, "threads": 1, "cores": 2, "ranks_on_host": 2,
        "call_seconds": seconds, "wrong_elements": 0, "largest_relative_error": 0.0,
    }  # fmt: skip
    return RankCalls(**(values | changes))


def make(seconds: list[list[float]], *, repeat: int = 0, case: Case = CASE, **outcome: object) -> AllreduceRecord:
    return AllreduceRecord(
        case=case, repeat=repeat, settings=SETTINGS, outcome=Outcome(**({"status": "ok"} | outcome)), environment={},
        ranks=[make_rank(rank, each) for rank, each in enumerate(seconds)],
        started_at="2024-05-06T07:00:00+00:00", duration_seconds=1.0,
    )  # fmt: skip


# Cases


def test_sizes_grow_by_the_factor_up_to_the_end() -> None:
    assert list_sizes(1024, 2**28, factor=4) == [4**power for power in range(5, 15)]
    assert list_sizes(1024, 1024, factor=2) == [1024]
    assert all(size % 4 == 0 for size in list_sizes(4, 10_000, factor=3))


def test_the_references_use_mpi_and_no_compression() -> None:
    axes = CaseAxes(
        implementations=("pytorch", "ring", "mpi4py"), controllers=("gloo", "mpi"), compressions=("none", "fp16", "bf16"),
        world_sizes=(2, 4), sizes=(1024,),
    )  # fmt: skip
    cases = list_cases(axes)
    paths = [case.path for case in cases if case.world_size == 4]
    assert paths == [
        "pytorch gloo none", "pytorch gloo fp16", "pytorch gloo bf16",
        "pytorch mpi none", "pytorch mpi fp16", "pytorch mpi bf16", "ring mpi none", "mpi4py mpi none",
    ]  # fmt: skip
    assert len({case.case_id for case in cases}) == len(cases) == 16


def test_jobs_are_grouped_by_shared_workers_within_each_repeat() -> None:
    choices = {"implementations": ("pytorch", "ring"), "controllers": ("gloo", "mpi"), "compressions": ("none", "fp16")}
    cases = list_cases(CaseAxes(**choices, world_sizes=(2,), sizes=(1024, 4096)))
    jobs = plan_jobs(cases, repeats=2)
    groups = [make_task(job, SETTINGS).group for job in jobs]
    assert len(jobs) == 2 * len(cases) and len(set(groups)) == sum(a != b for a, b in itertools.pairwise(groups)) + 1
    assert [job.repeat for job in jobs] == sorted(job.repeat for job in jobs)
    left = plan_jobs(cases, repeats=2, done={jobs[0].key})
    assert [job.key for job in left] == [job.key for job in jobs[1:]]


def test_a_task_of_the_mpi_controller_needs_mpirun() -> None:
    tasks = {
        job.case.controller: make_task(job, SETTINGS)
        for job in plan_jobs([CASE, CASE.model_copy(update={"controller": "mpi"})], repeats=1)
    }
    assert not tasks["gloo"].by_mpirun and tasks["mpi"].by_mpirun
    assert tasks["mpi"].world_size == 2 and tasks["mpi"].job["case"] == {**CASE.model_dump(), "controller": "mpi"}


# What is checked


@pytest.mark.parametrize("world_size", [2, 3, 8, 16])
def test_the_mean_of_all_contributions_is_right_and_exact_on_the_wire(world_size: int) -> None:
    size = (1 << 20) + 777
    patterns = [Pattern(rank=rank, world_size=world_size) for rank in range(world_size)]
    values = np.empty((world_size, size), dtype=np.float32)
    for rank, pattern in enumerate(patterns):
        pattern.fill(values[rank], call=5)
    assert values.max() <= LARGEST and (values == np.round(values)).all()
    assert values.sum(axis=0).max() <= 256, "sums are exact with bf16's 8 bits"
    mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    assert patterns[0].check(mean, call=5, tolerance=ROUNDOFF["none"]) == (0, 0.0)


def test_a_wrong_result_is_detected() -> None:
    patterns = [Pattern(rank=rank, world_size=2) for rank in range(2)]
    own, other = np.empty(5000, dtype=np.float32), np.empty(5000, dtype=np.float32)
    patterns[0].fill(own, call=3)
    patterns[1].fill(other, call=3)
    right, tolerance = (own + other) / 2, 4 * ROUNDOFF["bf16"]

    def wrong(values: np.ndarray, call: int = 3) -> int:
        return patterns[0].check(values, call=call, tolerance=tolerance)[0]

    assert wrong(right) == 0
    assert wrong(own) > 4000, "a rank was left out"
    assert wrong(own + other) > 4000, "a sum and no mean"
    assert wrong(right, call=4) > 4000, "the result of the call before"
    one = right.copy()
    one[1234] += 1
    assert wrong(one) == 1
    one[1234] = np.nan
    assert wrong(one) == 1
    assert wrong(np.full_like(right, np.inf)) == 5000


# Records


def end_of(calls: list[dict]) -> TaskEnd:
    results = [{"calls": each, "environment": {"host": "a"}} for each in calls]
    return TaskEnd(results=results, failure=None, generation=0, seconds=1.5)


def calls_of(rank: int, **changes: object) -> dict:
    return {
        "host": "a", "rank": rank, "local_rank": rank, "threads": 1, "call_seconds": [0.1, 0.2], "wrong_elements": 0,
        "largest_relative_error": 0.0,
    } | changes  # fmt: skip


MEMBERS = [Member(rank=rank, host="a", pid=1, cores=[0, 1], cgroup_cpu_quota=None) for rank in range(4)]


def record_of(calls: list[dict]) -> AllreduceRecord:
    (job,) = plan_jobs([CASE], repeats=1)
    return make_record(job, end_of(calls), settings=SETTINGS, members=MEMBERS, started_at="2024-05-06T07:00:00+00:00")


def test_a_record_has_the_calls_of_all_ranks_and_the_cores_of_their_hosts() -> None:
    record = record_of([calls_of(0), calls_of(1)])
    assert record.outcome.status == "ok" and [rank.rank for rank in record.ranks] == [0, 1]
    assert {(rank.cores, rank.ranks_on_host) for rank in record.ranks} == {(2, 2)}, "two of four ranks took part"


def test_a_wrong_value_on_any_rank_is_a_failure() -> None:
    record = record_of([calls_of(0), calls_of(1, wrong_elements=7, largest_relative_error=0.5)])
    assert (record.outcome.status, record.outcome.rank) == ("failed", 1)
    assert record.outcome.message == "7 wrong values; largest relative error 0.5"


def test_an_invalid_result_of_a_rank_is_a_failure() -> None:
    record = record_of([calls_of(0), calls_of(1, call_seconds="soon")])
    assert record.outcome.status == "failed" and "not what a worker writes" in record.outcome.message
    assert record.ranks == []


def test_records_are_written_once_and_read_again(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    first, second = make([[0.1], [0.2]]), make([[0.3], [0.4]])
    assert write_record(tmp_path, first).name == f"{CASE.case_id}.r0.json"
    assert write_record(tmp_path, second).name == f"{CASE.case_id}.r0.a2.json"
    (tmp_path / "records" / "zz.json").write_text("{")
    changed = json.loads((tmp_path / "records" / f"{CASE.case_id}.r0.json").read_text())
    (tmp_path / "records" / "zy.json").write_text(
        json.dumps({**changed, "case": {**changed["case"], "world_size": -1}})
    )
    records, problems = read_records(tmp_path)
    assert sorted(record.ranks[0].call_seconds[0] for record in records) == [0.1, 0.3]
    assert len(problems) == 2 and "case.world_size" in problems[0] and "not JSON" in problems[1]


def test_an_attempt_that_failed_is_no_news_once_a_later_one_was_made(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    for _ in range(10):  # .a10 is the last, and sorts before .a2 as text
        write_record(tmp_path, make([], status="failed", message="no memory"))
    assert [record.outcome.status for record in read_records(tmp_path)[0]] == ["failed"]
    write_record(tmp_path, make([[0.1], [0.2]]))
    assert [record.outcome.status for record in read_records(tmp_path)[0]] == ["ok"]


# Summary, table, plot


def test_calls_take_as_long_as_the_rank_that_needs_the_longest_for_all_of_them() -> None:
    record = make([[1.0, 2.0, 3.0], [2.0, 1.0, 4.0]])
    assert seconds_of_calls(record).tolist() == [2.0, 1.0, 4.0]
    assert slowest_rank([record]) == (1, pytest.approx(1 / 6))
    assert slowest_rank([make([[1.0] * 3, [5.0] * 3])]) == (1, 2.0)
    behind_barriers = record.model_copy(update={"schema_version": 1})
    assert seconds_of_calls(behind_barriers).tolist() == [2.0, 2.0, 4.0]


# (compression, ranks; algbw, busbw, rate of float32 values, in GB/s): a million values in a millisecond
BANDWIDTHS = [
    ("none", 2, 4.0, 4.0, 4.0),
    ("none", 4, 4.0, 6.0, 4.0),
    ("none", 8, 4.0, 7.0, 4.0),
    ("fp16", 2, 2.0, 2.0, 4.0),
    ("fp16", 4, 2.0, 3.0, 4.0),
    ("bf16", 4, 2.0, 3.0, 4.0),
]


@pytest.mark.parametrize(("compression", "ranks", "algbw", "busbw", "float32"), BANDWIDTHS)
def test_bandwidths_are_those_of_nccl_tests_of_what_goes_on_the_wire(
    compression: str, ranks: int, algbw: float, busbw: float, float32: float
) -> None:
    case = CASE.model_copy(update={"world_size": ranks, "payload_bytes": 4 * 10**6, "compression": compression})
    (row,) = summarize([make([[1e-3] * 5] * ranks, case=case)]).to_dict("records")
    assert row["algbw_bytes_per_second"] == pytest.approx(algbw * 1e9)
    assert row["busbw_bytes_per_second"] == pytest.approx(busbw * 1e9)
    assert row["float32_bytes_per_second"] == pytest.approx(float32 * 1e9)
    assert row["wire_bytes"] == 10**6 * WIRE_FORMATS[compression].value_bytes
    assert (row["launches"], row["calls"], row["status"]) == (1, 5, "ok")
    # The same call as a ceiling has the same bandwidth.
    assert allreduce_busbw(row["wire_bytes"], seconds=1e-3, world_size=ranks) == pytest.approx(busbw * 1e9)


@pytest.mark.parametrize(
    ("calls", "p99"), [([50], None), ([99], None), ([100], 99.01), ([50, 50], 50.0), ([60, 39], None)]
)
def test_a_p99_needs_a_hundred_calls(calls: list[int], p99: float | None) -> None:
    """Calls of 1, 2, … s; of two launches the 99th percentile of all of them."""
    records = [make([[1.0 + call for call in range(count)]] * 2, repeat=repeat) for repeat, count in enumerate(calls)]
    summary = summarize(records)
    (found,) = summary["p99_seconds"]
    assert (found == pytest.approx(p99)) if p99 else np.isnan(found or np.nan)
    (line,) = (line for line in render_table(summary).splitlines() if line.strip().startswith("1048576"))
    assert line.split()[5] == (f"{1e6 * p99:.1f}" if p99 else "-")


# What a rank times


class Lockstep:
    """One of a few ranks whose clock moves only by what they do: they leave a barrier apart, and an all-reduce nearly together."""

    def __init__(
        self, ranks: int, *, call_seconds: float, skew_seconds: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.world_size = ranks
        self.call_seconds = call_seconds
        self.skew_seconds = skew_seconds
        self.random = np.random.default_rng(0)
        self.now = np.zeros(ranks)  # by the clock of somebody who sees them all
        self.rank = 0
        self.inputs: dict[int, np.ndarray] = {}
        self.leave: list[np.ndarray] = []  # when each rank left each barrier and all-reduce, drawn once for all ranks
        self.at = 0
        monkeypatch.setattr(time, "perf_counter", lambda: float(self.now[self.rank]))

    def play(self, rank: int) -> None:
        """Be this rank, from the beginning on."""
        self.rank, self.at, self.now = rank, 0, np.zeros(self.world_size)

    def leave_together(self, seconds: float, apart: float) -> None:
        if self.at == len(self.leave):
            self.leave.append(self.now.max() + seconds + self.random.exponential(apart, self.world_size))
        self.now = self.leave[self.at].copy()
        self.at += 1

    def barrier(self) -> None:
        self.leave_together(0.0, self.skew_seconds)

    def synchronize(self) -> None:
        pass

    def gather(self, value: float) -> list[float]:
        return [self.call_seconds] * self.world_size

    def fill(self, values: np.ndarray, *, place: int) -> None:
        self.inputs[place] = values.copy()

    def run(self, place: int) -> None:
        self.leave_together(self.call_seconds, self.call_seconds / 100)

    def result(self, place: int) -> np.ndarray:
        return self.inputs[place]


@pytest.mark.parametrize("ranks", [2, 8])
@pytest.mark.parametrize("size", [1 << 6, 1 << 16, 1 << 23])
def test_a_call_s_time_has_no_skew_of_a_barrier_in_it(ranks: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of 50 us, and ranks that leave a barrier 100 us apart; trains as long as they get, of 127 calls, and of one."""
    monkeypatch.setattr("hvbench.communication.calls.TRAIN_BYTES", 1 << 23)
    case = CASE.model_copy(update={"world_size": ranks, "payload_bytes": size, "compression": "none"})
    launch = Lockstep(ranks, call_seconds=50e-6, skew_seconds=100e-6, monkeypatch=monkeypatch)
    monkeypatch.setattr(Pattern, "fill", lambda *_, **__: None)
    monkeypatch.setattr(Pattern, "check", lambda *_, **__: (0, 0.0))
    measured = []
    for rank in range(ranks):
        launch.play(rank)
        measured.append(time_case(case, SETTINGS, launch, runtime=launch, enter=lambda *_, **__: None))
    assert {len(each["call_seconds"]) for each in measured} == {SETTINGS.most_calls}
    record = make([each["call_seconds"] for each in measured], case=case)
    assert seconds_of_calls(record).mean() == pytest.approx(50e-6, rel=0.05)
    assert np.max([each["head_seconds"] for each in measured]) > 100e-6, (
        "which a clock behind a barrier would have counted"
    )


def test_every_value_of_every_call_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank alone, for which the all-reduce returns what it was given; but of one call, which lost a value."""
    case = CASE.model_copy(update={"payload_bytes": 4096, "compression": "none"})
    for broken, wrong in ((None, 0), (0, 1), (2, 1), (7, 1)):
        launch = Lockstep(1, call_seconds=1e-3, skew_seconds=0.0, monkeypatch=monkeypatch)
        count = iter(range(10**6))

        def result(
            place: int, launch: Lockstep = launch, count: Iterator[int] = count, broken: int | None = broken
        ) -> np.ndarray:
            values = launch.inputs[place]
            if next(count) == broken:
                values[100] += 1
            return values

        monkeypatch.setattr(launch, "result", result)
        settings = CallSettings(warmup_calls=2, least_calls=5, most_calls=5)
        found = time_case(case, settings, launch, runtime=launch, enter=lambda *_, **__: None)
        assert next(count) == 2 + 5 + 2, "and of each train's head"
        assert found["wrong_elements"] == wrong


def test_launches_are_averaged_and_a_failed_one_is_named() -> None:
    records = [
        make([[1e-3], [1e-3]]),
        make([[4e-3], [4e-3]], repeat=1),
        make([], repeat=2, status="failed", message="gone"),
    ]
    (row,) = summarize(records).to_dict("records")
    assert row["p50_seconds"] == pytest.approx(2e-3) and row["p50_seconds_low"] < 1e-3 < 4e-3 < row["p50_seconds_high"]
    assert (row["launches"], row["status"], row["message"]) == (2, "failed", "gone")


def test_the_table_has_a_block_per_path_and_lines_for_failures() -> None:
    other = CASE.model_copy(update={"compression": "none"})
    text = render_table(summarize([make([[1e-3], [2e-3]]), make([], case=other, status="timeout", message="hung")]))
    assert text.index("# pytorch gloo fp16: 2 ranks") > text.index("# pytorch gloo none: 2 ranks")
    (line,) = (line for line in text.splitlines() if line.strip().startswith("1048576") and "hung" not in line)
    cells = ["1048576", "262144", "half", "avg", "2000.0", "-", "0.262", "0.262", "0.524", "0", "1", "1"]
    assert line.split() == cells
    assert "timeout: hung" in text


def test_the_plot_shows_every_path_and_the_highest_of_uncompressed_ones() -> None:
    plain = CASE.model_copy(update={"compression": "none"})
    figure = plot_bandwidth(summarize([make([[1e-3], [1e-3]]), make([[2e-3], [2e-3]], case=plain)]))
    (panel,) = figure.axes
    assert {line.get_label() for line in panel.get_lines()} >= {"pytorch gloo fp16", "pytorch gloo none"}
    assert "highest measured 0.52 GB/s" in [text.get_text() for text in panel.texts]
    assert plot_bandwidth(summarize([make([], status="failed", message="x")])) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--np", "2", "-b", "3"], "not the size of float32 values"),
        (["--np", "2", "-b", "1MiB", "-e", "1KiB"], "smaller than --begin"),
        (["--np", "1"], "needs 2 ranks at least"),
        (["--np", "2", "--ranks", "2,4"], "at most the 2 that are launched"),
        (["--np", "2", "--ranks", "two"], "different whole numbers"),
        (["--np", "2", "--compression", "zip"], "'zip' is not one of none, fp16, bf16"),
        (["--np", "2", "--link", "200Mbit"], "no link may be shaped here"),
        (["--np", "2", "--link", "fast"], "'fast' is no bandwidth"),
        (["--np", "2", "--implementation", "ring", "--controller", "gloo"], "none of these cases exists"),
    ],
)
def test_a_usage_error_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(hvbench, ["allreduce", *arguments])
    assert result.exit_code != 0
    assert message in (result.output + str(result.exception))
    assert not (tmp_path / "results").exists()
