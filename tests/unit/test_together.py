"""Who multiplies when: one rank while the others rest, then all of them; ranks are threads here."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from hvbench.plan.together import Together, describe_together, measure_together, time_rounds
from hvbench.worker import together
from hvbench.worker.together import ROUNDS, Call, Readings, read_together, read_window, window_seconds
from tests import patience


@dataclass
class ThreadRanks:
    """What `read_together` needs of a runtime, for one of several threads; it counts the barriers that were passed."""

    rank: int
    world_size: int
    meeting: threading.Barrier
    passed: int = 0
    called_after: list[int] = field(default_factory=list)  # how many barriers, of each call

    def barrier(self) -> None:
        self.meeting.wait(timeout=patience.SECONDS)
        self.passed += 1

    def work(self, seconds: float = 0.004) -> Callable[[], None]:
        def run() -> None:
            self.called_after.append(self.passed)
            time.sleep(seconds)

        return run


def read(
    world_size: int, *, flops: float = 1e6, overhead_seconds: float = 0.0
) -> tuple[list[ThreadRanks], list[Readings]]:
    meeting = threading.Barrier(world_size)
    ranks = [ThreadRanks(rank, world_size, meeting) for rank in range(world_size)]
    readings = [Readings() for _ in ranks]

    def serve(rank: ThreadRanks) -> None:
        call = Call(run=rank.work(), flops=flops, expected_seconds=0.004, overhead_seconds=overhead_seconds)
        readings[rank.rank] = read_together(rank, lambda: read_window(call), seconds=window_seconds(0.004))

    threads = [threading.Thread(target=serve, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=patience.SECONDS)
    return ranks, readings


@pytest.mark.parametrize("world_size", [2, 4])
def test_one_rank_is_alone_in_every_other_window(world_size: int) -> None:
    ranks, readings = read(world_size)
    alone, together = set(range(1, 2 * ROUNDS, 2)), set(range(2, 2 * ROUNDS + 1, 2))
    assert set(ranks[0].called_after) == alone | together
    for other in ranks[1:]:
        assert set(other.called_after) == together
    assert [len(one.alone) for one in readings] == [ROUNDS, *[0] * (world_size - 1)]
    assert [len(one.together) for one in readings] == [ROUNDS] * world_size


def test_a_rank_without_others_is_never_alone() -> None:
    _, (readings,) = read(1)
    assert readings.alone == [] and len(readings.together) == ROUNDS


@pytest.mark.parametrize(("call_seconds", "seconds"), [(0.001, 0.03), (0.01, 0.03), (0.06, 0.132)])
def test_a_window_has_room_for_an_untimed_and_a_timed_call(call_seconds: float, seconds: float) -> None:
    assert window_seconds(call_seconds) == pytest.approx(seconds)


def test_the_first_and_the_last_call_of_a_window_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of 1, 10, 10 and 5 s in a window of 22 s: a third of 10 s would end behind it."""
    seconds, clock = [1.0, 10.0, 10.0, 5.0], [0.0]
    monkeypatch.setattr(together, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def run() -> None:
        clock[0] += seconds.pop(0)

    assert read_window(Call(run=run, flops=1e6, expected_seconds=10.0, overhead_seconds=0.0)) == pytest.approx(1e5)
    assert not seconds


def test_a_reading_is_the_work_over_its_time() -> None:
    """Calls of 4 ms or a little more, a million FLOPs each, of which 2 ms are no work: at most 500 million a second."""
    for overhead_seconds, most in ((0.0, 0.25e9), (0.002, 0.5e9), (1.0, 0.5e9)):  # never more than half is taken off
        _, (readings,) = read(1, overhead_seconds=overhead_seconds)
        assert all(0 < rate <= most for rate in readings.together)


# The same in numpy, for `hvbench doctor` and `hvbench plan`


def test_a_ratio_is_the_mean_of_the_rounds() -> None:
    assert Together(ranks=2, ratios=(1.0, 4.0)).ratio == pytest.approx(2.0)


def test_each_round_compares_one_rank_with_all() -> None:
    ratios = time_rounds(ranks=2, threads=1)
    assert len(ratios) == 3 and all(ratio > 0 for ratio in ratios)


@pytest.mark.parametrize(("ranks", "threads"), [(1, 1), (1, 8), (2, 10_000)])
def test_one_rank_or_too_many_threads_have_no_ratio(ranks: int, threads: int) -> None:
    assert describe_together(ranks=ranks, threads=threads) is None


def test_a_process_that_cannot_measure_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert measure_together(ranks=2, threads=3) is None
