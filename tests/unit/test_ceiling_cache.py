"""Ceilings that are kept: who reads them, who takes what others read, and what a damaged or old cache costs (time)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hvbench.records.record import Ceiling
from hvbench.spec.point import Point
from hvbench.worker import ceiling, ceiling_cache
from hvbench.worker.ceiling import CeilingRequest, Ceilings
from hvbench.worker.ceiling_cache import KEPT, CeilingCache, KeptProduct, describe_question, is_within_scatter
from hvbench.worker.local_ceiling import Found, Work
from hvbench.worker.together import ROUNDS, ReadWindow

PRODUCT = KeptProduct(rows=64, inner=32, columns=128, transposed="right")
POINT = Point(framework="pytorch", model="small", world_size=2)


class Ranks:
    """A runtime of two ranks, of which the other says the same as this one, or what `other` makes of it."""

    device, rank, world_size = "cpu", 0, 2

    def __init__(self, other: Any = lambda value: value) -> None:
        self.other = other

    def versions(self) -> dict[str, str]:
        return {"library": "1"}

    def barrier(self) -> None:
        """Both are here."""

    def gather(self, value: float) -> list[float]:
        return [value, self.other(value)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, and a machine whose products all run at 100 GFLOP/s, or at what a launch says."""
    monkeypatch.setenv("HVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ceiling, "load_framework", lambda framework, module: None)
    monkeypatch.setattr(Ceilings, "_allreduce", lambda self, point: (1e9, 4096))
    return tmp_path / "cache" / "ceilings"


class Launch(Ceilings):
    """The ceilings of one launch: `searches` counts what it searched for, products run at `rate`, in the first reading at another."""

    def __init__(
        self, *, rate: float = 1e11, first_rate: float | None = None, ranks: Ranks | None = None, **changes: Any
    ) -> None:
        super().__init__("pytorch", ranks or Ranks(), local=self, **({"threads": 1} | changes))
        self.rate, self.first_rate = rate, first_rate
        self.searches = self.readings = 0

    def search(self, point: Point) -> Found:
        self.searches += 1
        rates = dict.fromkeys(("gemm_flops_per_second", "fp32_gemm_flops_per_second"), 1e11)
        seconds = dict.fromkeys(("product_seconds", "seconds", "fp32_seconds"), 0.01)
        return Found(product=PRODUCT, flops=10**9, memory_bandwidth_bytes_per_second=1e10, **rates, **seconds)

    @contextmanager
    def reading(self, work: Work) -> Iterator[ReadWindow]:
        assert work.product == PRODUCT
        rate = self.rate if self.readings else self.first_rate or self.rate
        self.readings += 1
        yield lambda: rate


def measure(launch: Launch, point: Point = POINT, **asked: Any) -> Ceiling:
    found, slowness = launch.measure(point, CeilingRequest(**asked))
    assert slowness is None
    return Ceiling(**found)


def read_kept(cache: Path) -> list[dict[str, Any]]:
    (path,) = cache.glob("*.json")
    return json.loads(path.read_text())["readings"]


def fill(cache: Path, *, rates: tuple[float, ...] = (1.00e11, 1.01e11, 0.99e11)) -> list[str]:
    """As many launches as read ceilings; when they did."""
    for rate in rates:
        assert measure(Launch(rate=rate)).read_at is None
    moments = [each["moment"] for each in read_kept(cache)]
    assert len(set(moments)) == KEPT == len(rates)
    return moments


def test_three_launches_search_and_later_ones_read_the_best_product_alone(cache: Path) -> None:
    fill(cache)
    before = read_kept(cache)
    taken = []
    for repeat in range(6):
        launch = Launch(rate=1.02e11)
        found = measure(launch, repeat=repeat)
        assert launch.searches == 0
        assert found.together_flops_per_second == found.alone_flops_per_second == [1.02e11] * ROUNDS  # its own
        assert found.gemm_shape == [64, 32, 128] and found.memory_bandwidth_bytes_per_second == 1e10
        taken.append(found.read_at)
    assert taken[:3] == taken[3:] and len(set(taken)) == KEPT, "each of the readings in turn"
    assert read_kept(cache) == before


def test_points_of_one_worker_ask_once(cache: Path) -> None:
    launch = Launch()
    found = [measure(launch, POINT.model_copy(update={"gradient_accumulation_steps": steps})) for steps in (1, 2)]
    assert found[0] == found[1] and launch.searches == 1 and len(read_kept(cache)) == 1


def test_a_launch_may_ask_for_fresh_ones_which_replace_the_oldest(cache: Path) -> None:
    moments = fill(cache)
    launch = Launch()
    assert measure(launch, fresh=True).read_at is None and launch.searches
    assert [each["moment"] for each in read_kept(cache)][:2] == moments[1:]


def test_a_disturbed_reading_is_read_again_and_nothing_searched_for(cache: Path) -> None:
    fill(cache)
    launch = Launch(rate=1.01e11, first_rate=0.5e11)
    found = measure(launch)
    assert (launch.searches, launch.readings) == (0, 2)
    assert found.read_at is not None and found.together_flops_per_second == [1.01e11] * ROUNDS


@pytest.mark.parametrize("rate", [0.5e11, 2e11])
def test_a_machine_that_is_no_longer_as_it_was_is_read_anew(cache: Path, rate: float) -> None:
    fill(cache)
    launch = Launch(rate=rate)
    assert measure(launch).read_at is None and launch.searches
    assert (
        len(read_kept(cache)) == KEPT
        and read_kept(cache)[-1]["ceiling"]["together_flops_per_second"] == [rate] * ROUNDS
    )


@pytest.mark.parametrize(
    ("rate", "kept", "is_within"),
    [
        (1.09, (1.0, 1.0, 1.0), True),  # ten per cent, where the readings agree exactly
        (1.11, (1.0, 1.0, 1.0), False),
        (0.92, (1.0, 1.0, 1.0), True),
        (0.90, (1.0, 1.0, 1.0), False),
        (math.exp(0.39), (math.exp(-0.1), 1.0, math.exp(0.1)), True),  # four standard deviations of 0.1
        (math.exp(0.41), (math.exp(-0.1), 1.0, math.exp(0.1)), False),
    ],
)
def test_within_the_scatter_is_four_standard_deviations_or_ten_per_cent(
    rate: float, kept: tuple[float, ...], is_within: bool
) -> None:
    readings = [
        ceiling_cache.Reading.model_construct(
            ceiling=Ceiling.model_construct(together_flops_per_second=[1e10 * one] * ROUNDS)
        )
        for one in kept
    ]
    assert is_within_scatter([1e10 * rate] * ROUNDS, readings) == is_within


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\x00",
        b'{"readings": 3}',
        b'{"readings": [{"moment": 1}]}',
        b"[" * 5000,
        b" " * 200_000,
        None,
    ],
    ids=lambda content: "folder" if content is None else str(content[:12]),
)
def test_a_damaged_cache_costs_nothing_but_time(cache: Path, content: bytes | None) -> None:
    fill(cache)
    (path,) = cache.glob("*.json")
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    launch = Launch()
    assert measure(launch).read_at is None and launch.searches


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.write_text("no folder")
    for _ in range(KEPT + 1):
        assert measure(Launch()).read_at is None
    monkeypatch.delenv("HVBENCH_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    assert measure(Launch()).read_at is None


def test_old_readings_are_read_anew_and_their_files_go(cache: Path) -> None:
    fill(cache)
    (path,) = cache.glob("*.json")
    kept = json.loads(path.read_text())
    for each in kept["readings"]:
        each["moment"] -= ceiling_cache.MAX_AGE_SECONDS
    path.write_text(json.dumps(kept))
    other = cache / "0123456789abcdef-rank0.json"
    other.write_text("{}")
    os.utime(other, (0, 0))
    assert measure(Launch()).read_at is None
    assert not other.exists() and len(read_kept(cache)) == 1


def test_readings_of_a_clock_that_was_ahead_are_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cache)
    monkeypatch.setattr(ceiling_cache.time, "time", lambda: 1e9)
    assert measure(Launch()).read_at is None


def test_ranks_that_differ_read_anew(cache: Path) -> None:
    """The other rank has kept something else, or asks another question, as on another host."""
    fill(cache)
    launch = Launch(ranks=Ranks(other=lambda value: value + 1))
    assert measure(launch).read_at is None and launch.searches
    assert len(read_kept(cache)) == KEPT


def question(point: Point = POINT, *, framework: str = "pytorch", threads: int = 1) -> str:
    return describe_question(point, framework=framework, runtime=Ranks(), threads=threads)


def test_a_question_names_all_that_a_ceiling_depends_on_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"gradient_accumulation_steps": 4, "seed": 9, "learning_rate": 0.5, "optimizer": "sgd", "dropout": 0.1}
    for name, value in same.items():
        assert question(POINT.model_copy(update={name: value})) == question(), name
    others = [
        question(POINT.model_copy(update=change))
        for change in (
            {"micro_batch_size": 16}, {"sequence_length": 32}, {"precision": "bf16"}, {"gemm": "onednn"}, {"compression": "fp16"},
            {"num_layers": 7}, {"hidden_size": 64}, {"vocab_size": 512}, {"family": "llama"}, {"mlp_size": 96},
            {"family": "llama", "num_kv_heads": 1}, {"controller": "mpi"}, {"strategy": "native"},
            {"link_bits_per_second": 10**8}, {"fusion_threshold_bytes": 0}, {"world_size": 1},
        )
    ]  # fmt: skip
    others += [question(framework="tensorflow"), question(threads=2)]
    for name, value in (
        ("OMP_WAIT_POLICY", "active"),
        ("HOROVOD_HIERARCHICAL_ALLREDUCE", "1"),
        ("HOROVOD_CONTROLLER", "mpi"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            ceiling_cache.describe_machine.cache_clear()
            others.append(question())
    ceiling_cache.describe_machine.cache_clear()
    assert len({question(), *others}) == len(others) + 1


def test_each_rank_has_a_file_of_its_own(cache: Path) -> None:
    names = {CeilingCache("0123", rank=rank)._path.name for rank in range(3)}
    assert names == {"0123-rank0.json", "0123-rank1.json", "0123-rank2.json"}
