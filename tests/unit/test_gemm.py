"""`gemm = "auto"`: where there is a choice, who decides it, that it is kept, and what records and reports say of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hvbench.analysis.frame.ceilings import with_library
from hvbench.analysis.frame.run import Run
from hvbench.analysis.topics.ceilings import describe_chosen_libraries
from hvbench.records.fingerprint import describe_fingerprint, find_differences
from hvbench.spec.point import Point
from hvbench.worker.gemm import GemmChoice, choose_gemm, choose_library
from tests.unit.sample_records import make_rank, make_record

POINT = Point(framework="pytorch", world_size=2)


class Rank:
    """A runtime whose ranks say what rank 0 says."""

    device = "cpu"

    def __init__(self, rank: int, said: list[float]) -> None:
        self.rank = rank
        self.said = said

    def versions(self) -> dict[str, str]:
        return {"pytorch": "2.13.0"}

    def gather(self, value: float) -> list[float]:
        if self.rank == 0:
            self.said.append(value)
            return [value, 0.0]
        return [self.said.pop(0), value]


class Libraries:
    """Two libraries of known speed, and how often they were measured."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.asked = 0

    def library_seconds(self, point: Point) -> dict[str, float]:
        self.asked += 1
        return self.seconds


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HVBENCH_CACHE", str(tmp_path))


def choose(point: Point, libraries: Libraries, *, rank: int = 0, said: list[float] | None = None) -> GemmChoice:
    return choose_gemm(point, Rank(rank, [] if said is None else said), libraries, threads=1)


@pytest.mark.parametrize(
    ("default", "onednn", "chosen"),
    [(1.0, 0.9, "onednn"), (0.9, 1.0, "default"), (1.0, 1.0, "default"), (1.0, 0.98, "default")],
)
def test_another_library_is_taken_where_it_is_surely_faster(default: float, onednn: float, chosen: str) -> None:
    assert choose_library({"default": default, "onednn": onednn}) == chosen


def test_all_ranks_take_what_rank_0_found_and_later_launches_measure_nothing() -> None:
    said: list[float] = []
    libraries, slower = Libraries({"default": 0.3, "onednn": 0.2}), Libraries({"default": 0.2, "onednn": 0.3})
    first = choose(POINT, libraries, said=said)
    other = choose(POINT, slower, rank=1, said=said)
    assert first == other and (first.library, slower.asked) == ("onednn", 0)
    # Other ranks and seeds ask the same question, other shapes another one.
    assert choose(Point(framework="pytorch", world_size=1, seed=3), slower) == first and slower.asked == 0
    assert choose(Point(framework="pytorch", micro_batch_size=16), slower).library == "default" and slower.asked == 1


def test_a_damaged_cache_costs_a_second_and_nothing_else(tmp_path: Path) -> None:
    libraries = Libraries({"default": 0.3, "onednn": 0.2})
    choose(POINT, libraries)
    (path,) = (tmp_path / "ceilings").iterdir()
    for content in ("{", "[]", '{"library": "onednn", "seconds": {"default": -1}}', '{"library": "onednn"}'):
        path.write_text(content, encoding="utf-8")
        assert choose(POINT, libraries).library == "onednn"
    assert libraries.asked == 5


@pytest.mark.parametrize(
    ("values", "library"),
    [
        ({"gemm": "onednn"}, "onednn"),
        ({"gemm": "default"}, "default"),
        ({"precision": "bf16"}, "default"),
        ({"framework": "tensorflow"}, "default"),
        ({"device": "cuda"}, "default"),
        ({"model": "tiny"}, "default"),  # its products take less than calling them
    ],
)
def test_where_nothing_is_left_to_choose_nothing_is_measured(values: dict, library: str) -> None:
    libraries = Libraries({"default": 0.3, "onednn": 0.2})
    assert choose(Point(**{"framework": "pytorch", **values}), libraries) == GemmChoice(library=library)
    assert libraries.asked == 0


def test_records_say_which_library_it_was_and_differ_where_it_did() -> None:
    facts = {"gemm": "onednn", "gemm_seconds": {"default": 0.3, "onednn": 0.2}}
    records = [
        make_record([make_rank(step_seconds=[1.0, 1.0])], environment={**environment}, framework="pytorch")
        for environment in (facts, {**facts, "gemm": "default"}, {})
    ]
    assert [with_library(record).gemm for record in records] == ["onednn", "default", "auto"]
    one, other, unknown = map(describe_fingerprint, records)
    assert find_differences(one, other) == {"gemm": ("onednn", "default")}
    assert find_differences(one, unknown) == {}
    sentence = "gemm = auto took oneDNN for PyTorch's fp32 products: MKL takes 1.50 times as long with their shapes."
    assert describe_chosen_libraries(Run(records[:1] * 2 + records[2:])) == [sentence]
    assert json.dumps(records[0].environment)
