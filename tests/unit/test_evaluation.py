"""Evaluation: every validation sample once whatever the batch and the ranks, and one evaluation after the last step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.analysis.frame.frames import evaluation_frame, point_frame
from hvbench.frameworks.contract import StepResult
from hvbench.records.record import LabelCounts
from hvbench.spec.settings import MeasureSettings
from hvbench.training.batches import Batches
from hvbench.training.evaluation import mean_over_ranks
from hvbench.worker.evaluation import evaluate
from hvbench.worker.loop import Diverged, Loop
from tests.unit.sample_records import make_evaluation, make_rank, make_record
from tests.unit.test_batches import LENGTH, make_corpus, make_point, validation_windows, windows

ASKED = [(1, 5), (2, 5), (3, 5), (4, 5), (8, 5)]  # (micro-batch, samples): five asked gave 5, 6, 6, 8, 8


class Teller:
    """A trainer whose loss of a sample is its window's number and `start`, less the steps done; and the only rank's runtime."""

    rank, world_size, device = 0, 1, "cpu"

    def __init__(self, *, start: float = 0.0, diverges_at: int | None = None) -> None:
        self.start, self.steps = start, 0
        self.diverges_at = diverges_at

    def train_step(
        self, inputs: Any, targets: Any, *, learning_rate: float, loss_scale: float, with_allreduce: bool = True
    ) -> StepResult:
        self.steps += 1
        norm = math.nan if self.steps - 1 == self.diverges_at else 1.0
        return StepResult(loss=1.0, gradient_norm=norm, skipped=False)

    def evaluate(self, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.array(windows(inputs - 10_000), dtype=np.float32) + self.start - self.steps

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """[B, 2]: names class 1 for windows whose number is a multiple of three."""
        return np.array([[0.5, float(window % 3 == 0)] for window in windows(inputs - 10_000)])

    next_sentence_logits = logits

    def gather(self, value: float) -> list[float]:
        return [value]

    def barrier(self) -> None:
        """Nobody else."""

    def synchronize(self) -> None:
        """Nothing is queued."""


def evaluate_all(samples: int, *, ranks: int, micro: int, held_out: int) -> tuple[float, int]:
    """(Loss, number of samples) over all ranks of one evaluation by Teller."""
    corpus, point = (
        make_corpus(train_samples=400, validation_samples=held_out),
        make_point(world_size=ranks, micro_batch_size=micro),
    )
    parts = [
        evaluate(Teller(), Batches(point, corpus, rank=rank).validation_batches(samples), point=point)
        for rank in range(ranks)
    ]
    counts = [part.samples for part in parts]
    return mean_over_ranks([part.loss for part in parts], samples=counts), sum(counts)


@pytest.mark.parametrize(("micro", "samples"), ASKED)
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_as_many_samples_are_evaluated_as_were_asked_for(micro: int, samples: int, ranks: int) -> None:
    assert evaluate_all(samples, ranks=ranks, micro=micro, held_out=20) == (2.0, samples)  # (0 + 1 + 2 + 3 + 4) / 5


def test_no_window_weighs_twice_at_a_micro_batch_that_does_not_divide_the_set() -> None:
    """64 samples at 48 x 2 ranks weighed half of them twice: 27.5 where the mean of 0 to 63 is 31.5."""
    assert evaluate_all(64, ranks=2, micro=48, held_out=100) == (31.5, 64)


@given(ranks=st.integers(1, 9), micro=st.integers(1, 9), samples=st.integers(1, 60), held_out=st.integers(1, 60))
@settings(max_examples=80, deadline=None)
def test_the_loss_depends_on_neither_ranks_nor_micro_batch(ranks: int, micro: int, samples: int, held_out: int) -> None:
    distinct = min(samples, held_out)
    loss, counted = evaluate_all(samples, ranks=ranks, micro=micro, held_out=held_out)
    assert counted == distinct and loss == pytest.approx((distinct - 1) / 2, abs=1e-9)
    dealt = validation_windows(
        make_corpus(train_samples=400, validation_samples=held_out), samples, ranks=ranks, micro=micro
    )
    assert sorted(window for batches in dealt for batch in batches for window in batch) == list(range(distinct))
    shares = [sum(map(len, batches)) for batches in dealt]
    assert max(shares) - min(shares) <= 1, "no rank waits for another that has two samples more"


def test_accuracy_counts_each_sample_once_too() -> None:
    corpus, point = make_corpus(train_samples=64, validation_samples=7), make_point(world_size=1, micro_batch_size=4)
    batches = list(Batches(point, corpus, rank=0).validation_batches(7))
    assert [batch.samples for batch in batches] == [4, 3]
    assert {batch.inputs.shape for batch in batches} == {(4, LENGTH)}, "every batch has the shape of a training batch"
    labelled = [type(batch)(inputs=batch.inputs, targets=np.ones(4, int), samples=batch.samples) for batch in batches]
    found = evaluate(Teller(), labelled, point=point.model_copy(update={"objective": "classification"}))
    assert found.accuracy == pytest.approx(3 / 7)  # windows 0, 3 and 6
    assert evaluate(Teller(), batches, point=point).accuracy is None, "a language model names no classes"
    pairs = [replace(batch, targets=np.insert(batch.targets, 0, 1, axis=1)) for batch in batches]
    judge = point.model_copy(update={"family": "bert", "objective": "masked_lm", "next_sentence": True})
    assert evaluate(Teller(), pairs, point=judge).accuracy == pytest.approx(3 / 7), "their class is the first target"


@pytest.mark.parametrize(
    ("means", "samples", "expected"),
    [
        ([2.0], [5], 2.0),
        ([1.0, 5.0], [30, 10], 2.0),
        ([1.0, None, 4.0], [2, 0, 1], 2.0),  # a rank without a share says nothing
        ([1.0, None], [2, 1], math.nan),  # one whose loss was not finite makes the mean so
        ([1.0, math.nan], [2, 1], math.nan),
        ([None], [0], math.nan),
    ],
)
def test_ranks_weigh_as_much_as_their_samples(means: list[float | None], samples: list[int], expected: float) -> None:
    assert mean_over_ranks(means, samples=samples) == pytest.approx(expected, nan_ok=True)
    if expected == expected:  # and what records give is the same number
        evaluations = [make_evaluation(1, mean, samples=count) for mean, count in zip(means, samples, strict=True)]
        ranks = [make_rank(rank, step_seconds=[1.0], evaluations=[each]) for rank, each in enumerate(evaluations)]
        assert evaluation_frame([make_record(ranks)])["validation_loss"].tolist() == [expected]


def make_loop(teller: Teller, **values: Any) -> Loop:
    """A training by `teller` on one rank, not begun."""
    corpus, point = make_corpus(train_samples=400, validation_samples=3), make_point(world_size=1, micro_batch_size=2)
    measure, batches = MeasureSettings(warmup_steps=1, **values), Batches(point, corpus, rank=0)
    return Loop(point, measure, trainer=teller, batches=batches, runtime=teller)


def run(loop: Loop) -> Loop:
    """Take every step."""
    loop.start()
    while not loop.is_done:
        loop.advance()
    return loop


@pytest.mark.parametrize(
    ("values", "evaluated", "stopped_by"),
    [
        (
            {"steps": 39, "evaluate_every": 100},
            [0, 40],
            None,
        ),  # showed the untrained model's loss as the one at the end
        ({"steps": 39, "evaluate_every": 15}, [0, 15, 30, 40], None),
        ({"steps": 39, "evaluate_every": 20}, [0, 20, 40], None),  # on the grid: once
        ({"steps": 39, "evaluate_every": 40}, [0, 40], None),
        ({"steps": 2, "evaluate_every": 1}, [0, 1, 2, 3], None),
        ({"steps": 39, "evaluate_every": 0}, [], None),
        ({"steps": 39, "evaluate_every": 15, "target_loss": 72.0, "stop_at_target": True}, [0, 15, 30], "target"),
        ({"steps": 39, "evaluate_every": 15, "target_loss": 61.5, "stop_at_target": True}, [0, 15, 30, 40], None),
    ],
)
def test_the_last_evaluation_is_after_the_last_step(values: dict, evaluated: list[int], stopped_by: str | None) -> None:
    loop = run(make_loop(Teller(start=100.0), **values))
    assert [one["step"] for one in loop.samples.evaluations] == evaluated
    assert [one["loss"] for one in loop.samples.evaluations] == [101.0 - step for step in evaluated]
    assert loop.samples.stopped_by == stopped_by
    assert not evaluated or evaluated[-1] == loop.step == len(loop.samples.loss)


def test_training_that_ran_out_of_patience_ends_at_an_evaluation() -> None:
    class Stuck(Teller):
        def evaluate(self, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
            return np.ones(len(inputs), np.float32)

    loop = run(make_loop(Stuck(), steps=39, evaluate_every=15, patience=2))
    assert [one["step"] for one in loop.samples.evaluations] == [0, 15, 30] and loop.samples.stopped_by == "patience"


def test_a_training_that_a_search_ends_early_ends_at_an_evaluation_and_reads_no_test_split() -> None:
    loop = make_loop(Teller(start=100.0), steps=39, evaluate_every=5)
    loop.is_ended_early = lambda: loop.step >= 12
    run(loop).finish()
    assert [one["step"] for one in loop.samples.evaluations] == [0, 5, 10, 15] and loop.samples.stopped_by == "search"
    assert loop.samples.test is None and len(loop.samples.loss) == 15
    assert loop.validation["validation_step"] == 15 and loop.validation["validation_loss"] == 86.0
    assert loop.validation["validation_tokens"] == sum(loop.samples.step_tokens)


@pytest.mark.parametrize(("answers", "stopped_by"), [([1.0, 0.0], "search"), ([0.0, 1.0], None)])
def test_all_ranks_do_what_rank_0_was_told(answers: list[float], stopped_by: str | None) -> None:
    class Two(Teller):
        def gather(self, value: float) -> list[float]:
            return answers if value == answers[1] else [value]

    loop = make_loop(Two(start=100.0), steps=9, evaluate_every=4)
    loop.is_ended_early = lambda: bool(answers[1])  # this is rank 1
    assert run(loop).samples.stopped_by == stopped_by


def test_a_training_that_diverged_is_not_evaluated_after() -> None:
    loop = make_loop(Teller(diverges_at=39), steps=39, evaluate_every=15)
    with pytest.raises(Diverged):
        run(loop)
    assert [one["step"] for one in loop.samples.evaluations] == [0, 15, 30]


@pytest.mark.parametrize(
    ("marks", "steps", "at_end"),
    [([(0, 9.0), (5, 3.0)], 5, 3.0), ([(0, 5.55)], 40, None), ([(0, 9.0), (30, 4.0)], 40, None), ([], 40, None)],
)
def test_a_loss_at_the_end_is_from_the_end(marks: list[tuple[int, float]], steps: int, at_end: float | None) -> None:
    """Records of versions that did not evaluate there have none; what was seen last is a column of its own."""
    evaluations = [make_evaluation(step, loss).model_copy(update={"accuracy": 0.5}) for step, loss in marks]
    row = point_frame([make_record([make_rank(step_seconds=[1.0] * steps, evaluations=evaluations)])]).iloc[0]
    for name, expected in (("final_validation_loss", at_end), ("final_validation_accuracy", at_end and 0.5)):
        assert row[name] == pytest.approx(math.nan if expected is None else expected, nan_ok=True)
    assert not marks or row["evaluated_steps"] == marks[-1][0]


ENDS = {  # column that says end, first, last or peak -> what it is of the launch below, worked out by hand
    "first_step_seconds": 9.0,  # the slower rank's very first
    "first_timed_step_ratio": 4.0 / 2.0,  # step 1 over the median of the others that are timed
    "final_loss": 1.5,  # a tenth of twelve timed steps is one: the ranks' mean at the last
    "final_validation_loss": 0.75,
    "final_validation_accuracy": 0.5,
    "final_validation_perplexity": math.exp(0.75),
    # Of both ranks: 2 and 4 hits of 4 and 6 predictions, 6 and 4 occurrences.
    "final_validation_precision": (2 / 4 + 4 / 6) / 2,
    "final_validation_recall": (2 / 6 + 4 / 4) / 2,
    "final_validation_f1": (4 / 10 + 8 / 10) / 2,
    "final_validation_f1_micro": 12 / 20,
    "final_validation_matthews": (6 * 10 - 48) / 48,
    "final_validation_entity_precision": 2 / 4,  # of both ranks: 2 hits of 4 predictions and 6 occurrences
    "final_validation_entity_recall": 2 / 6,
    "final_validation_entity_f1": 4 / 10,
    "evaluated_steps": 13,
    "peak_rss_bytes": 700,
    "timed_steps": 12,
}


def test_columns_named_after_an_end_are_of_that_end() -> None:
    seconds = [[8.0, 4.0, *[2.0] * 11], [9.0, 3.0, *[1.0] * 11]]
    losses = [[5.0] * 12 + [1.0], [5.0] * 12 + [2.0]]
    marks = [(0, 9.0, 0.1), (10, 0.5, 0.9), (13, 0.75, 0.5)]
    counts = LabelCounts(hits=[1, 2], predictions=[2, 3], occurrences=[3, 2])
    entities = LabelCounts(hits=[1, 0], predictions=[1, 1], occurrences=[1, 2])
    evaluations = [
        make_evaluation(step, loss).model_copy(
            update={"accuracy": share} | ({"label_counts": counts, "entity_counts": entities} if step == 13 else {})
        )
        for step, loss, share in marks
    ]
    ranks = [
        make_rank(
            rank,
            step_seconds=seconds[rank],
            loss=losses[rank],
            evaluations=evaluations,
            peak_rss_bytes=600 + 100 * rank,
        )
        for rank in range(2)
    ]
    row = point_frame([make_record(ranks, micro_batch_size=1, warmup_steps=1)]).iloc[0]
    assert {name: row[name] for name in ENDS} == pytest.approx(ENDS)
    named = [name for name in row.index if name.split("_")[0] in ("first", "final", "last", "peak", "best", "total")]
    assert set(named) - set(ENDS) == {"peak_device_memory_bytes", "final_validation_pearson"}, (
        "a new one is worked out here"
    )
