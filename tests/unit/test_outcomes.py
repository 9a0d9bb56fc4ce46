"""How rank 0 judges what the ranks left: explosions, garbage, and texts that differ."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hvbench.launch.task import Failure, FailureStatus
from hvbench.records.record import Outcome, RankSamples
from hvbench.spec.point import Point
from hvbench.sweep.outcomes import find_divergence, join_outcomes, outcome_of_failure, read_samples
from hvbench.worker.failure import describe_failure
from tests.unit.sample_records import make_rank

POINT = Point(model="tiny", world_size=2)  # 256 tokens: guessing costs ln 256 = 5.545
GUESSING = math.log(256)


def ranks(*losses: list[float | None], skipped_steps: list[int] | None = None) -> list[RankSamples]:
    return [
        make_rank(rank, step_seconds=[0.1] * len(loss), loss=loss, skipped_steps=skipped_steps or [])
        for rank, loss in enumerate(losses)
    ]


@pytest.mark.parametrize(
    "losses",
    [
        [[5.5, 5.0], [5.5, 5.0]],
        [[5.5, 2 * GUESSING - 0.1], [5.5, 2 * GUESSING - 0.1]],
        [[99.0, 5.0], [99.0, 5.0]],  # a spike on the way is no end
        [[5.5, 20.0], [5.5, 1.0]],  # the mean over the ranks counts
        [[], []],
    ],
)
def test_training_that_ends_within_reason_has_not_exploded(losses: list[list[float]]) -> None:
    assert find_divergence(POINT, ranks(*losses)) is None


def test_a_last_loss_far_above_guessing_is_an_explosion() -> None:
    outcome = find_divergence(POINT, ranks([5.5, 11.0], [5.5, 13.0]))
    assert outcome == Outcome(
        status="diverged",
        rank=1,
        phase="measure",
        message="loss 12 at step 1: more than 2 times 5.55, that of guessing",
    )


def test_a_last_loss_that_is_not_finite_is_one_too() -> None:
    assert find_divergence(POINT, ranks([5.5, 5.0], [5.5, None])).rank == 1


def test_a_step_that_fp16_dropped_proves_nothing() -> None:
    assert find_divergence(POINT, ranks([5.5, None], [5.5, None], skipped_steps=[1])) is None
    assert find_divergence(POINT, ranks([None], [None], skipped_steps=[0])) is None


def test_an_explosion_is_one_though_fp16_dropped_the_steps_after_it() -> None:
    found = find_divergence(POINT, ranks([5.5, 40.0, 41.0], [5.5, 44.0, None], skipped_steps=[2]))
    assert (found.status, found.rank, found.message.split(":")[0]) == ("diverged", 1, "loss 42 at step 1")


def result(**changes: Any) -> dict[str, Any]:
    samples = make_rank(0, step_seconds=[0.1]).model_dump()
    return {"outcome": {"status": "ok"}, "environment": {"tokens_digest": "d"}, "samples": samples} | changes


def test_results_of_workers_are_read() -> None:
    samples, garbage = read_samples([result(), result()])
    assert len(samples) == 2 and garbage is None


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_the_rank_that_diverged_says_why_and_not_one_that_ended_with_it(rank: int) -> None:
    outcomes = [{"status": "diverged", "rank": rank, "message": f"told by {number}"} for number in range(3)]
    joined = join_outcomes([result(outcome=outcome) for outcome in outcomes])
    assert (joined.rank, joined.message) == (rank, f"told by {rank}")


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"outcome": {"status": "ok"}},
        result(outcome="ok"),
        result(outcome={"status": "great"}),
        result(environment=None),
        result(environment={}),
        result(environment={"tokens_digest": "d", "x": float("nan")}),
        result(samples=[]),
        result(samples={"rank": "0"}),
    ],
)
def test_a_result_that_no_worker_writes_names_its_rank(bad: dict[str, Any]) -> None:
    samples, garbage = read_samples([result(), bad])
    assert samples == []
    assert (garbage.status, garbage.rank) == ("failed", 1)
    assert garbage.message.startswith("rank 1 left a result that is not what a worker writes: ")
    assert len(garbage.message) < 400


# What a worker says of the exception that ended it


@pytest.mark.parametrize(
    "message",
    [
        "Graph execution error:\n\nDetected at node HorovodAllreduce_1\n\t [[{{node x}}]]",
        "Graph execution error:\n\nHorovod has been shut down. This was caused by an exception on one of the ranks\n\t [[{{node x}}]]",
    ],
)
def test_the_death_of_a_peer_is_an_echo_whatever_node_tensorflow_names(message: str) -> None:
    assert describe_failure(RuntimeError(message))["is_echo"] is True


def test_an_error_of_its_own_is_no_echo() -> None:
    failure = describe_failure(RuntimeError("shapes do not match"))
    assert failure == {"status": "failed", "message": "RuntimeError: shapes do not match", "is_echo": False}


def test_of_a_long_message_the_line_that_tells_of_memory_is_kept() -> None:
    failure = describe_failure(
        RuntimeError("Graph execution error:\nOOM when allocating tensor of shape [9]\n\t [[{{node x}}]]")
    )
    assert (failure["status"], failure["message"]) == ("oom", "OOM when allocating tensor of shape [9]")


def test_an_exception_without_words_is_its_name() -> None:
    assert describe_failure(MemoryError())["message"] == "MemoryError"


@pytest.mark.parametrize(
    ("step", "last_loss", "reason"),
    [
        (None, None, "killed by SIGKILL"),
        (200, 3.25, "killed by SIGKILL (after 200 steps, loss 3.25)"),
        (2, None, "killed by SIGKILL (after 2 steps)"),
    ],
)
def test_a_training_that_was_ended_keeps_how_far_it_had_come(
    step: int | None, last_loss: float | None, reason: str
) -> None:
    kept = {"step": step, "last_loss": last_loss}
    failure = Failure(status=FailureStatus.FAILED, rank=1, phase="measure", message="killed by SIGKILL", **kept)
    outcome = outcome_of_failure(failure, run_path="run")
    assert (outcome.message, outcome.step, outcome.last_loss) == ("killed by SIGKILL", step, last_loss)
    assert outcome.reason == reason
    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome
