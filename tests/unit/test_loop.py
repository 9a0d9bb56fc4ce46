"""What a rank writes down about its steps: their seconds, the last of an abnormal end, too, and with which dropout masks it looks twice."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hvbench.frameworks.contract import GradientNorms, StepResult
from hvbench.records.record import Overflow
from hvbench.spec.exchange import STRATEGIES
from hvbench.training.batches import Batch
from hvbench.worker import checkpoints
from hvbench.worker.ablation import Ablations
from hvbench.worker.energy import Counter, EnergyMeter
from hvbench.worker.faults import DivergingTrainer
from hvbench.worker.loop import FIRST_MEETING, Diverged
from tests.unit.test_breakdown import Scribe, make_loop, train


@pytest.mark.parametrize("passes", [1, 3])
def test_every_overflow_has_an_entry_that_of_the_step_that_gives_up_included(passes: int) -> None:
    """From a loss scale of 2^15 the 16th overflow in a row is at a scale of 1."""
    loop = make_loop(Scribe(largest_scale=0.5), precision="fp16", passes=passes, steps=40)
    with pytest.raises(Diverged, match="at step 15"):
        while True:
            loop.advance()
    samples = loop.samples
    assert samples.skipped_steps == [overflow["step"] for overflow in samples.overflows] == list(range(16))
    assert samples.loss_scale == [overflow["loss_scale"] for overflow in samples.overflows]
    assert len(samples.loss) == len(samples.step_seconds) == len(samples.step_tokens) == 16
    assert [Overflow.model_validate(overflow).is_own for overflow in samples.overflows] == [True] * 16


def test_a_step_that_is_looked_at_again_has_the_dropout_masks_that_it_had() -> None:
    """Two steps of three passes overflow; each is followed by its look."""
    scribe = Scribe(largest_scale=2.0**13)
    train(scribe, precision="fp16", passes=3, steps=3)
    assert scribe.looked_at == [0, 0, 3, 3, 6, 9]


def test_every_kind_of_an_ablation_has_the_masks_of_the_step_before_it_and_training_its_own_afterwards() -> None:
    scribe = Scribe()
    train(scribe, passes=3, steps=2, ablation_rounds=2)
    first, second, third = 0, 3, 6
    assert scribe.looked_at[:2] == [first, second] and scribe.looked_at.index(third) > 10
    assert set(scribe.looked_at[2 : scribe.looked_at.index(third)]) == {second}
    assert set(scribe.looked_at[scribe.looked_at.index(third) :]) == {third}
    assert scribe.passes == 9


def test_a_step_of_each_shape_is_taken_and_taken_back_before_the_clock_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    scribe, loaded = Scribe(), []
    loop = make_loop(scribe, steps=2)
    batch = loop.batches.train_batch(0)
    monkeypatch.setattr(scribe, "state", lambda: {"passes": np.array(scribe.passes)}, raising=False)
    monkeypatch.setattr(scribe, "load_state", lambda state: loaded.append(int(state["passes"])), raising=False)
    for shapes, taken in (([], 0), ([batch], 0), ([batch, batch, batch], 3)):
        monkeypatch.setattr(loop.batches, "rehearsals", lambda shapes=shapes: iter(shapes))
        before = scribe.passes
        loop.start()
        assert scribe.passes - before == taken and loaded == [before] * (taken > 0)
    assert loop.step == 0 and loop.samples.loss == []


# The clock


class TickingScribe(Scribe):
    """A rank whose clock moves only by what it does: seconds of each kind of work."""

    STEP, BATCH, EVALUATION, LOOK, BARRIER, BETWEEN = 2.0, 0.25, 5.0, 7.0, 3.0, 0.125

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, rank: int = 0) -> None:
        super().__init__()
        self.rank = rank
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def train_step(self, *arguments: object, **named: object) -> StepResult:
        self.now += self.STEP
        return super().train_step(*arguments, **named)

    def evaluate(self, *batch: object) -> float:
        self.now += self.EVALUATION
        return super().evaluate(*batch)

    def gradient_norms(self, *batch: object, **named: object) -> GradientNorms:
        self.now += self.LOOK
        return super().gradient_norms(*batch, **named)

    def barrier(self) -> None:
        self.now += self.BARRIER
        super().barrier()


@pytest.mark.parametrize(
    "pauses",
    [{}, {"evaluate_every": 2}, {"noise_every": 3}, {"ablation_rounds": 2}, {"checkpoint_every": 2},
     {"evaluate_every": 3, "noise_every": 2, "ablation_rounds": 3, "checkpoint_every": 4}],
)  # fmt: skip
@pytest.mark.parametrize("rank", [0, 1])
def test_steps_waits_and_pauses_add_up_to_the_time_that_elapsed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pauses: dict[str, int], rank: int
) -> None:
    """A step has what is done between it and the one before, and nothing of a pause, whichever rank is busy in it."""
    clock = TickingScribe(monkeypatch, rank=rank)
    monkeypatch.setattr(checkpoints, "save_checkpoint", lambda *_: setattr(clock, "now", clock.now + 11.0))
    monkeypatch.setattr(clock, "state", dict)
    loop = make_loop(clock, steps=6, **pauses)
    loop.meter = EnergyMeter(cpu_counters=[Counter(read=lambda: clock.now)])  # a watt
    loop.saver, read = checkpoints.Saver(tmp_path, clock), loop.batches.train_batch

    def train_batch(index: int) -> Batch:
        clock.now += clock.BATCH
        return read(index)

    monkeypatch.setattr(loop.batches, "train_batch", train_batch)
    ablations = Ablations(loop)
    loop.start()
    begun = clock.now
    while not loop.is_done:
        clock.now += clock.BETWEEN  # progress, say
        loop.advance()
        ended = loop.training_seconds
        monkeypatch.setattr(clock, "load_state", lambda state: None)
        ablations.interrupt(enter=lambda phase: None)
    samples = loop.samples
    assert samples.step_seconds == [clock.STEP + clock.BETWEEN] * 7
    assert samples.data_seconds == [clock.BATCH] * 7
    assert sum(samples.step_seconds) + sum(samples.data_seconds) == ended
    assert ended + loop.paused_seconds == clock.now - begun
    loop.finish()
    metered = sum(samples.step_seconds[1:]) + sum(samples.data_seconds[1:])
    assert loop.meter.describe()["energy"] == {"seconds": metered, "cpu_joules": metered, "gpu_joules": None}
    assert (loop.timed_seconds, loop.timed_tokens) == (6 * (clock.STEP + clock.BETWEEN), sum(samples.step_tokens[1:]))


# Ranks that diverge alone


class MeetingScribe(Scribe):
    """One of a few ranks, each in a thread of its own, that wait for each other wherever they say something to each other."""

    def __init__(self, rank: int, board: list[float], barrier: threading.Barrier) -> None:
        super().__init__()
        self.rank = rank
        self.world_size = len(board)
        self.board = board
        self.meeting = barrier

    def gather(self, value: float) -> list[float]:
        self.board[self.rank] = value
        self.meeting.wait()
        values = list(self.board)
        self.meeting.wait()  # nobody writes again before all have read
        return values

    def barrier(self) -> None:
        self.gather(0.0)


def diverge(
    rank: int, step: int, *, ranks: int = 3, kind: type[MeetingScribe] = MeetingScribe, **settings: int
) -> list[tuple[Diverged | None, int, int]]:
    """(Diverged or None, steps counted, losses noted) of every rank, where one of them diverges at a step."""
    board, barrier = [0.0] * ranks, threading.Barrier(ranks, timeout=20.0)

    def train_rank(number: int) -> tuple[Diverged | None, int, int]:
        scribe = kind(number, board, barrier)
        loop = make_loop(scribe, **settings)
        loop.trainer = DivergingTrainer(scribe, step) if number == rank else scribe
        ablations, ended = Ablations(loop), None
        try:
            loop.start()
            while not loop.is_done:
                loop.advance()
                ablations.interrupt(enter=lambda phase: None)
            loop.finish()
        except Diverged as reason:
            ended = reason
        return ended, loop.step, len(loop.samples.loss)

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(train_rank, range(ranks)))


@pytest.mark.parametrize("strategy", [name for name, each in STRATEGIES.items() if not each.has_common_updates])
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(
    ("settings", "step", "ends_after"),
    [
        ({"steps": 9}, 0, 10),  # nothing brings the ranks together before the end
        ({"steps": 9}, 9, 10),
        ({"steps": 9, "evaluate_every": 4}, 4, 8),
        ({"steps": 9, "evaluate_every": 4}, 3, 4),
        ({"steps": 9, "ablation_rounds": 3}, 2, 4),
        ({"steps": 9, "ablation_rounds": 3, "evaluate_every": 3}, 4, 6),
        ({"steps": 9999}, 5, FIRST_MEETING),
        ({"steps": 9999}, 70, 128),
        ({"steps": 9999}, 128, 256),
    ],
)
def test_all_ranks_end_together_where_one_diverges_alone(
    strategy: str, rank: int, settings: dict[str, int], step: int, ends_after: int
) -> None:
    """With one outcome, at the first place where they need each other: nobody waits for one that trains no more."""
    for number, (ended, steps, losses) in enumerate(diverge(rank, step, strategy=strategy, **settings)):
        assert (ended.rank, steps) == (rank, ends_after)
        assert losses == (step + 1 if number == rank else ends_after), "what came before is in the record"
        assert str(ended).startswith(
            f"gradient norm nan at step {step}, " if number == rank else f"rank {rank} diverged"
        )


class RoundScribe(MeetingScribe):
    """One whose averages of parameters need all ranks, as a diverged rank's do."""

    def average_parameters(self) -> None:
        self.barrier()


@pytest.mark.parametrize(
    ("settings", "step", "ends_after"), [({"steps": 9}, 3, 10), ({"steps": 9999}, 5, FIRST_MEETING)]
)
def test_a_rank_that_diverges_within_a_round_trains_on_until_all_end_together(
    settings: dict[str, int], step: int, ends_after: int
) -> None:
    found = diverge(1, step, kind=RoundScribe, sync_every=4, **settings)
    assert [(ended.rank, steps, losses) for ended, steps, losses in found] == [(1, ends_after, ends_after)] * 3
    assert str(found[1][0]).startswith(f"gradient norm nan at step {step}, ")


@pytest.mark.parametrize("strategy", [name for name, each in STRATEGIES.items() if each.has_common_updates])
def test_ranks_that_make_the_same_updates_ask_nobody(strategy: str) -> None:
    """All see the divergence in the step itself."""
    loop = make_loop(Scribe(), strategy=strategy, steps=40)
    loop.trainer = DivergingTrainer(loop.trainer, 3)
    loop.runtime.gather = lambda value: pytest.fail("asked the other ranks")
    with pytest.raises(Diverged, match="at step 3") as raised:
        while True:
            loop.advance()
    assert (raised.value.rank, loop.step) == (0, 3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_who_does_not_diverge_ends_as_asked(strategy: str) -> None:
    for ended, steps, _ in diverge(-1, 0, ranks=2, strategy=strategy, steps=40, evaluate_every=15, ablation_rounds=2):
        assert (ended, steps) == (None, 41)
