"""A suite with a [search]: where it begins, how few launches it takes, how it survives an interrupt, and what of it is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.topics.largest import find_largest, largest_table, plot_search
from hvbench.analysis.topics.parity.stamps import UNPROVEN, are_comparable, verdict_of
from hvbench.cli.display.plan import describe_plan
from hvbench.errors import DataError, UsageError
from hvbench.launch.coordinator import OnProgress
from hvbench.launch.task import Failure, FailureStatus, Task, TaskEnd
from hvbench.plan.search import Searched, next_try
from hvbench.plan.skip import is_installed
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.spec.search import DOES_NOT_FIT, FITS, Found, Search
from hvbench.spec.suite import apply_overrides, parse_suite
from hvbench.sweep.largest import keep_to_text
from hvbench.sweep.options import SweepOptions
from hvbench.sweep.prepare import prepare_sweep
from hvbench.sweep.run import Sweep
from hvbench.training import corpus
from hvbench.training.packages import make_batches
from tests.unit.sample_records import make_stamp
from tests.unit.test_sweep import Witness, ended, ignore, result

pytestmark = pytest.mark.skipif(
    not all(map(is_installed, FRAMEWORKS)), reason="points of a framework that is not installed are skipped"
)

SUITE = """
question = "What fits?"
compares = ["recompute"]
[point]
model = "tiny"
data = "synthetic"
[axes]
framework = ["pytorch", "tensorflow"]
recompute = ["none", "block"]
[search]
largest = "micro_batch_size"
[measure]
memory_limit_bytes = "1 GiB"
steps = 2
"""
LARGEST = {
    ("pytorch", "none"): 900,
    ("pytorch", "block"): 2000,
    ("tensorflow", "none"): 700,
    ("tensorflow", "block"): 1500,
}


# The steps of a search


def search(
    largest: int, *, start: int, at_most: int = 4096, within: float = 0.03, repeats: int = 1
) -> list[tuple[int, int]]:
    """The launches of a search where values up to `largest` fit."""
    outcomes: dict[int, list[str]] = {}
    tried = []
    found = Found(outcomes=outcomes)
    while launch := next_try(found, start=start, at_most=at_most, within=within, repeats=repeats):
        tried.append(launch)
        outcomes.setdefault(launch[0], []).append(FITS if launch[0] <= largest else DOES_NOT_FIT)
        assert len(tried) < 60
    return tried


@pytest.mark.parametrize("within", [0.0, 0.03, 0.2])
@pytest.mark.parametrize("start", [1, 7, 50, 333, 4096, 10_000])
@pytest.mark.parametrize("largest", [0, 1, 2, 13, 100, 999, 4096])
def test_the_largest_value_is_found_from_wherever_it_begins(largest: int, start: int, within: float) -> None:
    tried = search(largest, start=start, within=within)
    fits = max((value for value, _ in tried if value <= largest), default=0)
    too_large = min((value for value, _ in tried if value > largest), default=4097)
    assert too_large - fits <= max(1, int(within * fits))
    assert len(set(tried)) == len(tried) <= 2 * 13


@pytest.mark.parametrize("largest", [10, 57, 300, 1234])
@pytest.mark.parametrize("wrong", [-0.1, -0.03, 0.0, 0.04, 0.1])
def test_an_estimate_that_is_right_within_a_tenth_takes_few_launches(largest: int, wrong: float) -> None:
    assert len(search(largest, start=round(largest * (1 + wrong)))) <= 6


def test_what_was_found_is_launched_again() -> None:
    tried = search(60, start=60, repeats=3)
    (value,) = {value for value, repeat in tried if repeat}
    assert tried[-2:] == [(value, 1), (value, 2)] and value <= 60


def test_a_value_that_once_ran_out_of_memory_does_not_fit() -> None:
    found = Found(outcomes={50: [FITS, DOES_NOT_FIT], 40: [FITS], 60: [DOES_NOT_FIT], 55: [FITS]})
    assert (found.largest, found.too_large) == (40, 50)


# A suite


def refuse(text: str, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        apply_overrides(parse_suite(text, name="example", where="example.toml"), overrides)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('largest = "micro_batch_size"', "", "[search]: largest is missing"),
        ('"micro_batch_size"', '"precision"', "[search]: largest = \"precision\": must be 'micro_batch_size', 'sequence_length' or 'num_layers'"),
        ("[search]", "[search]\nsmallest = 1", '[search]: unknown key "smallest"; allowed: largest, at_most, within'),
        ("[search]", "[search]\nat_most = 0", "[search]: at_most = 0: must be greater than or equal to 1"),
        ("[search]", "[search]\nwithin = 1", "[search]: within = 1: must be less than 1"),
        ("[point]", "[point]\nmicro_batch_size = 4", "micro_batch_size is what [search] looks for: leave it out of [point]"),
        ("[axes]", "[axes]\nmicro_batch_size = [4]", "micro_batch_size is what [search] looks for: leave it out of [axes]"),
        ('"1 GiB"', '"4 gigs"', '[measure]: memory_limit_bytes = "4 gigs": must be a size in bytes or text; write for example 2GiB or 512MiB'),
        ('"1 GiB"', '"1 MiB"', '[measure]: memory_limit_bytes = "1 MiB": must be at least 64MiB: the memory of one worker, framework included'),
        ('"1 GiB"', "1000", "[measure]: memory_limit_bytes = 1000: must be greater than or equal to 67108864"),
        ("[search]", "[searches]", 'unknown key "searches" (did you mean "search"?); allowed: question, compares, script, point, axes, together, exclude, search, measure, scale'),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(old: str, new: str, message: str) -> None:
    assert refuse(SUITE.replace(old, new, 1)) == f"example.toml: {message}"


def test_overrides_cannot_set_what_is_searched() -> None:
    assert (
        refuse(SUITE, "micro_batch_size=4")
        == "-s: micro_batch_size is what [search] looks for: leave it out of [point]"
    )
    assert refuse(SUITE, "largest=micro_batch_size,sequence_length").endswith(
        "is a setting of the search, not an axis: give one value"
    )


@pytest.mark.parametrize(
    ("text", "size"), [('"4G"', 4 * 10**9), ('"4 GiB"', 2**32), ('"1.5 GiB"', 3 * 2**29), ("70000000", 70_000_000)]
)
def test_a_limit_is_bytes_or_a_size_in_words(text: str, size: int) -> None:
    suite = parse_suite(SUITE.replace('"1 GiB"', text), name="example", where="example.toml")
    assert suite.measure.memory_limit_bytes == size


def plan(text: str, **limits: Any) -> str:
    suite = parse_suite(text, name="example", where="example.toml")
    return describe_plan(SweepOptions(**limits).apply_to(suite), np=1)


def test_a_plan_says_what_is_searched_and_where_it_begins() -> None:
    said = plan(SUITE)
    assert (
        "searched: the largest micro_batch_size under 1 GiB a worker, from the value that the estimate of memory says"
        in said
    )
    assert "about 20 launches for 4 configurations, 0 skipped" in said


def test_without_a_limit_or_under_one_that_is_too_low_it_does_not_begin() -> None:
    without = SUITE.replace('memory_limit_bytes = "1 GiB"', "")
    with pytest.raises(UsageError) as caught:
        plan(without)
    assert str(caught.value) == (
        'example.toml: [search] needs a limit: memory_limit_bytes = "2 GiB" in [measure], or --memory-limit 2GiB'
    )
    assert "under 2 GiB a worker" in plan(without, memory_limit_bytes=2**31)
    with pytest.raises(UsageError) as caught:
        plan(SUITE, memory_limit_bytes=100 * 2**20)
    assert str(caught.value).startswith(
        "example.toml: none of its 4 configurations fits, not even the smallest: pytorch in fp32 needs about "
    )
    assert str(caught.value).endswith(" MiB with micro_batch_size 1, the limit is 100 MiB")


# A search that runs


class Machine:
    """Ends each task as a machine would on which LARGEST fits; after `launches` of them it raises Interrupted."""

    def __init__(self, launches: int = 1000) -> None:
        self.left = itertools.count(launches, -1)
        self.members: dict[int, Any] = {}
        self.tried: list[tuple[str, str, int]] = []

    def run(self, tasks: Sequence[Task], *, on_progress: OnProgress = ignore) -> Iterator[tuple[int, TaskEnd]]:
        (task,) = tasks
        if not next(self.left):
            raise KeyboardInterrupt
        point = task.job["point"]
        name, batch = (point["framework"], point["recompute"]), point["micro_batch_size"]
        self.tried.append((*name, batch))
        assert task.memory_limit_bytes == 2**30
        lost = Failure(status=FailureStatus.OOM, message="MemoryError", rank=0, phase="first_step")
        yield 0, ended(result(0)) if batch <= LARGEST[name] else ended(failure=lost)


def prepare(path: Path, *, resume: bool = False) -> Sweep:
    return prepare_sweep(
        parse_suite(SUITE, name="example", where="example.toml"),
        RunFolder(path),
        SweepOptions(resume=resume, checks_parity=False),
        world_size=1,
        observer=Witness(),
    )


def run_search(path: Path) -> tuple[list[Record], Machine]:
    machine = Machine()
    sweep = prepare(path)
    sweep.run(machine, Witness())
    sweep.folder.close()
    return sweep.folder.read_records()[0], machine


def test_every_configuration_is_searched_and_the_report_says_what_was_found(tmp_path: Path) -> None:
    records, machine = run_search(tmp_path / "run")
    assert len(machine.tried) == len(set(machine.tried)) == len(records)
    run = Run(records, RunFolder(tmp_path / "run").read_run())
    found = {(each.values["framework"], each.values["recompute"]): each for each in run.derive(find_largest)}
    for name, each in found.items():
        largest, next_one = each.found.largest, each.found.too_large
        assert largest <= LARGEST[name] < next_one <= 1.03 * largest + 1
    table = largest_table(run)
    assert [row[:2] for row in table.cells] == [list(name) for name in LARGEST]
    assert table.header[3:5] == ("largest micro-batch", "next that does not fit")
    assert set(plot_search(run)) == {"largest"}
    answer = find_answer(run)
    assert "failures" not in {each.topic for each in (*answer.headlines, *answer.details)}, (
        "what did not fit is an answer"
    )
    first = answer.headlines[0].text
    assert (
        first.startswith("Under 1 GiB a worker the largest micro-batch is 1,9")
        and " in PyTorch (block recomputed) and 1," in first
    )
    assert (
        "block recomputed fits 2.1" in first
        and " times as much as all activations kept; the estimate from the point alone is " in first
    )


def test_frameworks_are_compared_by_the_stamps_of_the_default(tmp_path: Path) -> None:
    records, _ = run_search(tmp_path / "run")
    request = RunFolder(tmp_path / "run").read_run()
    unchecked = verdict_of(Run(records, request))
    assert unchecked is not None and unchecked.title == UNPROVEN and "of 2 of 2 configurations" in unchecked.text
    stamped = [record.model_copy(update={"parity": make_stamp()}) for record in records]
    assert are_comparable(Run(stamped, request))


def test_an_interrupted_search_goes_on_where_it_was(tmp_path: Path) -> None:
    path, machine = tmp_path / "run", Machine(launches=7)
    begun = prepare(path)
    with pytest.raises(KeyboardInterrupt):
        begun.run(machine, Witness())
    begun.folder.close()
    again = prepare(path, resume=True)
    assert again.has_work
    rest = Machine()
    again.run(rest, Witness())
    again.folder.close()
    whole, reference = run_search(tmp_path / "whole")
    assert machine.tried + rest.tried == reference.tried
    assert not prepare(path, resume=True).has_work
    assert {record.key for record in again.folder.read_records()[0]} == {record.key for record in whole}


def test_another_limit_is_another_run(tmp_path: Path) -> None:
    run_search(tmp_path / "run")
    with pytest.raises(UsageError, match=r"memory_limit_bytes was 1073741824, is 2147483648"):
        prepare_sweep(
            parse_suite(SUITE.replace("1 GiB", "2 GiB"), name="example", where="example.toml"), RunFolder(tmp_path / "run"),
            SweepOptions(resume=True, checks_parity=False), world_size=1, observer=Witness(),
        )  # fmt: skip


class Broken(Machine):
    """A machine on which PyTorch crashes."""

    def run(self, tasks: Sequence[Task], *, on_progress: OnProgress = ignore) -> Iterator[tuple[int, TaskEnd]]:
        if tasks[0].framework == "pytorch":
            self.tried.append(("pytorch", "", 0))
            yield 0, ended(failure=Failure(status=FailureStatus.FAILED, message="killed by SIGSEGV"))
        else:
            yield from super().run(tasks)


def test_a_configuration_that_fails_otherwise_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    sweep, machine = prepare(tmp_path / "run"), Broken()
    sweep.run(machine, Witness())
    sweep.folder.close()
    assert machine.tried.count(("pytorch", "", 0)) == 2
    assert sweep.statuses["failed"] == 2 and sweep.statuses["ok"] >= 2
    assert [job.point.framework for job in prepare(tmp_path / "run", resume=True).plan.jobs] == ["pytorch"] * 2


# Where the text ends


CUT = [
    {"segmentation": "windows"},
    {"segmentation": "overlap", "segmentation_stride": 2},
    {"segmentation": "documents"},
    {"segmentation": "documents", "packing": False},
]


@pytest.mark.parametrize("largest", ["micro_batch_size", "sequence_length"])
@pytest.mark.parametrize("cut", CUT, ids=lambda cut: " ".join(map(str, cut.values())))
def test_no_value_is_tried_for_which_the_text_is_too_short_however_it_is_cut(
    tmp_path: Path, cut: dict[str, Any], largest: str
) -> None:
    for number in range(90):
        (tmp_path / f"{number:02}.txt").write_text("a line of words that ends somewhere\n"[: 9 + number % 25] * 2)
    fields = {
        "model": "tiny",
        "data": str(tmp_path),
        "world_size": 2,
        "sequence_length": 8,
        "micro_batch_size": 1,
        **cut,
    }
    search, point = Search(largest=largest), Point(**fields)
    (kept,) = keep_to_text([Searched(point=point, start=10_000, at_most=10_000)], search)
    text = corpus.prepare(str(tmp_path), vocab_size=256)
    assert kept.start == kept.at_most > 1
    make_batches(kept.with_value(search, kept.at_most), text, rank=0)
    if largest == "sequence_length" and not cut.get("packing", True):
        assert kept.at_most == 10_000  # a row a document, with as much padding as it takes
        return
    with pytest.raises(DataError):
        make_batches(kept.with_value(search, kept.at_most + 1), text, rank=0)


def test_a_search_in_a_text_without_one_batch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a few words " * 20)
    point = Point(model="tiny", data=str(tmp_path), world_size=2, sequence_length=64)
    with pytest.raises(DataError, match="too little text"):
        keep_to_text([Searched(point=point, start=8, at_most=64)], Search(largest="micro_batch_size"))
