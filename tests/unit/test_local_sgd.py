"""Rounds of local updates: which update ends in which exchange, what that sends, and what cannot be combined with them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from hvbench.analysis.contrasts.launches import log_ratio_of_steps, time_steps
from hvbench.analysis.frame.metrics import RATE, STEP, measure_parts
from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.samples import make_samples
from hvbench.analysis.topics.local_sgd import compares_rounds, describe_rounds, rounds_table
from hvbench.errors import UsageError
from hvbench.plan.skip import reason_not_to_measure, reason_to_skip
from hvbench.records.record import Ablation, Record
from hvbench.spec.point import Point
from hvbench.spec.rounds import Exchange, exchange_of, is_common
from hvbench.spec.settings import MeasureSettings
from hvbench.sweep.tune import step_seconds as tuned_seconds
from hvbench.training.checkpoints import CheckpointHeader, require_fitting
from hvbench.training.flops import model_facts
from hvbench.training.local_sgd import count_exchanged_bytes
from hvbench.training.memory import estimate_memory
from hvbench.training.weights import parameter_shapes
from tests.unit.sample_records import make_evaluation, make_rank, make_record

TINY = {"model": "tiny", "world_size": 2}


def rounds(steps: int, **knobs: Any) -> str:
    """A letter for each update: g where gradients are averaged, . where nothing is exchanged, p where parameters are averaged."""
    letters = {Exchange.GRADIENTS: "g", Exchange.NOTHING: ".", Exchange.PARAMETERS: "p"}
    return "".join(letters[exchange_of(Point(**TINY, **knobs), step)] for step in range(steps))


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, "gggggggg"),
        ({"sync_every": 1, "sync_start": 3}, "gggggggg"),
        ({"sync_every": 3}, "..p..p..p"),
        ({"sync_every": 3, "sync_start": 4}, "gggg..p..p."),
        # K = 4, W = 6: rounds that begin at 0, 1, 2, 4 and 7 have 1, 1 + 3 // 6, 1 + 6 // 6, 1 + 12 // 6 and 4 updates.
        ({"sync_every": 4, "sync_warmup_steps": 6}, "pp.p..p...p...p"),
        ({"sync_every": 4, "sync_warmup_steps": 6, "sync_start": 2}, "ggpp.p..p...p...p"),
        ({"sync_every": 4, "sync_warmup_steps": 1}, "p...p...p"),
    ],
)
def test_which_update_ends_in_which_exchange(knobs: dict[str, Any], expected: str) -> None:
    assert rounds(len(expected), **knobs) == expected


def test_ranks_agree_before_the_first_update_and_behind_every_exchange() -> None:
    point = Point(**TINY, sync_every=3, sync_start=2)
    assert [is_common(point, steps) for steps in range(9)] == [True, True, True, False, False, True, False, False, True]
    assert all(is_common(Point(**TINY), steps) for steps in range(9))


def test_a_long_warm_up_grows_to_the_whole_round() -> None:
    text = rounds(2_000, sync_every=8, sync_warmup_steps=1_000)
    lengths = [len(each) + 1 for each in text.split("p")[:-1]]
    assert lengths == sorted(lengths) and {lengths[0], lengths[-1]} == {1, 8} and set(lengths) == set(range(1, 9))
    assert len(text) - 8 <= sum(lengths) <= len(text)


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"world_size": 1}, "one rank has nothing to all-reduce: sync_every changes nothing"),
        ({"strategy": "native"}, "sync_every: a choice of Horovod's, and the strategy is native"),
        ({"strategy": "parameter_server"}, "sync_every: a choice of Horovod's, and the strategy is parameter_server"),
        ({"strategy": "local"}, "sync_every: a choice of Horovod's, and the strategy is local"),
        ({"reduction": "adasum", "controller": "mpi"}, "sync_every 4 averages parameters, and reduction is adasum"),
        (
            {"shard": "optimizer"},
            "sync_every 4: ranks that update by themselves need the whole optimizer, and shard is optimizer",
        ),
        ({"gradient_predivide": 2.0}, "sync_every 4 sends no gradients, which gradient_predivide 2 would divide"),
        (
            {"precision": "fp16"},
            "sync_every 4: every rank would have a loss scale of its own, which precision fp16 needs in common",
        ),
    ],
)
def test_what_cannot_be_combined_is_one_line(knobs: dict[str, Any], reason: str) -> None:
    assert reason_to_skip(Point(**{**TINY, "sync_every": 4, **knobs}), world_size=2) == reason


@pytest.mark.parametrize("knobs", [{"compression": "fp16"}, {"compression": "bf16"}, {"precision": "bf16"}])
def test_what_can_be_combined(knobs: dict[str, Any]) -> None:
    assert reason_to_skip(Point(**TINY, sync_every=4, **knobs), world_size=2) is None


APART = "end in the middle of a round of sync_every 4, where ranks have parameters of their own"


@pytest.mark.parametrize(
    ("settings", "knobs", "reason"),
    [
        ({"steps": 10}, {}, "steps 10 are no whole number of rounds of sync_every 4: their time would hold too many exchanges, or too few"),
        ({"checkpoint_every": 6}, {}, f"checkpoint_every 6: 6 updates {APART}"),
        ({"checkpoint_every": 4}, {"sync_start": 2}, f"checkpoint_every 4: 4 updates {APART}"),
        ({"checkpoint_every": 2}, {"sync_start": 2}, f"checkpoint_every 2: 4 updates {APART}"),
        ({"noise_every": 2}, {}, f"noise_every 2: 2 updates {APART}"),
        ({"keep_best": True, "evaluate_every": 3}, {}, f"keep_best with evaluate_every 3: 3 updates {APART}"),
        ({"checkpoint_every": 6}, {"initial_checkpoint": "x"}, "checkpoint_every 6 is no multiple of sync_every 4"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_one_line(settings: dict[str, Any], knobs: dict[str, Any], reason: str) -> None:
    point = Point(**TINY, sync_every=4, **knobs)
    assert reason_not_to_measure(point, MeasureSettings(**{"warmup_steps": 4, "steps": 8, **settings})) == reason


@pytest.mark.parametrize(
    "settings", [{"checkpoint_every": 4}, {"evaluate_every": 3}, {"keep_best": True, "evaluate_every": 4}, {"noise_every": 8}]
)  # fmt: skip
def test_what_falls_on_exchanges_can_be_measured(settings: dict[str, Any]) -> None:
    point = Point(**TINY, sync_every=4)
    assert reason_not_to_measure(point, MeasureSettings(**{"warmup_steps": 4, "steps": 8, **settings})) is None


def test_a_checkpoint_of_the_middle_of_a_round_is_refused() -> None:
    point = Point(**TINY, sync_every=4)
    shapes = {f"parameters/{name}": shape for name, shape in parameter_shapes(point).items()}
    about = {"global_batch_size": point.global_batch_size, "optimizer": "adamw", "loss_scale": 1.0, "clean_steps": 0}
    for steps, is_fitting in ((6, False), (8, True)):
        samples = steps * point.global_batch_size
        header = CheckpointHeader(step=steps, samples=samples, tokens_digest="", seed=0, framework="pytorch", **about)
        if is_fitting:
            require_fitting(header, shapes, point, where="x")
            continue
        with pytest.raises(UsageError, match=r"^x: 6 updates end in the middle of a round of sync_every 4"):
            require_fitting(header, shapes, point, where="x")


@pytest.mark.parametrize(
    ("knobs", "bytes_of_a_value"),
    [
        ({}, 4 + 2 * 4),  # AdamW's two moments, always in float32
        ({"compression": "fp16"}, 2 + 2 * 4),
        ({"compression": "bf16", "sync_moments": "keep"}, 2),
        ({"sync_moments": "reset"}, 4),
        ({"optimizer": "sgd"}, 4 + 4),
        ({"optimizer": "sgd", "momentum": 0.0}, 4),
        ({"outer_optimizer": "nesterov", "sync_moments": "keep"}, 4),
    ],
)
def test_bytes_of_an_exchange_and_of_a_step(knobs: dict[str, Any], bytes_of_a_value: int) -> None:
    point, parameters = Point(**TINY, sync_every=8, **knobs), 34_688
    assert count_exchanged_bytes(point) == bytes_of_a_value * parameters
    assert model_facts(point).allreduce_bytes_per_step == bytes_of_a_value * parameters // 8
    every_step = point.model_copy(update={"sync_every": 1})
    assert model_facts(every_step).allreduce_bytes_per_step == count_exchanged_bytes(every_step)


@pytest.mark.parametrize(
    ("knobs", "arrays"),
    [({}, 0), ({"compression": "fp16"}, 1), ({"outer_optimizer": "nesterov"}, 2), ({"sync_moments": "reset"}, 0)],
)
def test_what_a_rank_keeps_between_two_exchanges_is_in_the_estimate_of_its_memory(
    knobs: dict[str, Any], arrays: int
) -> None:
    own, every_step = (
        estimate_memory(Point(**TINY, **knobs, sync_every=steps), is_native=True).optimizer_state_bytes
        for steps in (4, 1)
    )
    assert own - every_step == arrays * 4 * 34_688


def test_adafactors_moments_are_fewer_than_its_parameters() -> None:
    point = Point(**TINY, optimizer="adafactor", sync_every=2)
    moments = count_exchanged_bytes(point) - 4 * 34_688
    assert 0 < moments < 34_688


def record_of_steps(seconds: list[float], *, ablation: dict[str, list[float]] | None = None, **point: Any) -> Record:
    """A launch of two ranks with these timed steps, behind one that warms up."""
    parts = {"ablation": Ablation(**ablation)} if ablation else {}
    return make_record([make_rank(rank, step_seconds=[1.0, *seconds], **parts) for rank in range(2)], **point)


def test_a_step_of_rounds_is_their_mean_and_no_median_of_the_local_ones() -> None:
    """Three of 10 ms, one of 50: 20 ms a step, whichever of four the exchange ends; twice as fast as steps of 40."""
    rounds = record_of_steps([0.01, 0.05, 0.01, 0.01] * 3, sync_every=4)
    samples = make_samples(rounds)
    assert samples.amortized == pytest.approx([0.02] * 3)
    plain = make_samples(record_of_steps([0.04] * 12))
    assert plain.amortized is plain.slowest
    for metric, ratio in ((STEP, 0.5), (RATE, 2.0)):
        one, other = (time_steps(each, metric) for each in (samples, plain))
        assert math.exp(log_ratio_of_steps(metric, one, other)) == pytest.approx(ratio)
    assert tuned_seconds(rounds) == pytest.approx(0.02)


def test_what_is_left_over_of_rounds_counts_for_nothing() -> None:
    samples = make_samples(record_of_steps([0.01, 0.01, 0.04, 0.01, 0.01, 0.04, 0.01], sync_every=3))
    assert samples.amortized == pytest.approx([0.02, 0.02])
    assert make_samples(record_of_steps([0.01, 0.03], sync_every=3)).amortized == pytest.approx([0.02])


def test_a_step_has_its_share_of_what_an_exchange_adds() -> None:
    """Forward 10, backward 20, update 5, and 40 ms that end every fourth step: a step of 45 in the mean."""
    kinds = {"forward_seconds": 0.01, "backward_seconds": 0.03, "local_step_seconds": 0.035, "step_seconds": 0.075}
    ablation = {**{name: [value] for name, value in kinds.items()}, "allreduce_seconds": [0.05]}
    record = record_of_steps([0.035, 0.035, 0.035, 0.075], sync_every=4, ablation=ablation)
    parts = make_samples(record).parts
    assert parts["exposed_communication_seconds"] == pytest.approx(0.01)
    assert parts["parts_seconds"] == pytest.approx(0.045 + make_samples(record).data_seconds_median)
    assert (parts["parts_to_step"], parts["overlap"]) == (pytest.approx(1.0), pytest.approx(0.2))
    assert measure_parts(record)["exposed_communication_seconds"] == pytest.approx(0.01)


def launches_over(links: list[int | None]) -> list[Record]:
    """Of both frameworks, with and without rounds of four: twice as fast, a loss of 4.4 instead of 4, and of 5 after half of the time."""
    records = []
    for framework, sync_every, repeat, link in itertools.product(("pytorch", "tensorflow"), (1, 4), range(4), links):
        seconds = [0.1] * 8 if sync_every == 1 else [0.02, 0.02, 0.02, 0.14] * 2
        late = 2 if sync_every == 1 else 1
        evaluations = [
            make_evaluation(0, 6.0, training_seconds=0.0),
            make_evaluation(9, (4.0 if sync_every == 1 else 4.4) + 0.001 * repeat, training_seconds=late),
        ]
        own = {"evaluations": evaluations, "averaging_steps": [4, 8] if sync_every > 1 else []}
        ranks = [
            make_rank(rank, step_seconds=[1.0, *(each * (1 + 0.001 * repeat) for each in seconds)], **own)
            for rank in range(2)
        ]
        about = {"framework": framework, "sync_every": sync_every, "seed": 0, "link_bits_per_second": link}
        records.append(make_record(ranks, repeat=repeat, seed_per_repeat=True, **about))
    return records


def test_a_report_says_how_much_faster_a_token_is_and_what_is_learned() -> None:
    run = Run(launches_over([None]))
    assert compares_rounds(run)
    (sentence,) = describe_rounds(run)
    assert sentence.text.startswith("An exchange every 4 steps is 2.00 times as fast as an exchange at every step")
    assert "after as many tokens it has 10.0 % more validation loss" in sentence.text
    # The other one is at 5.0 when this one ends at 4.4: on the line between 6.0 and 4.0.
    assert "after as many seconds it has 12 % less validation loss" in sentence.text
    table = rounds_table(run)
    cells = dict(zip(table.header, table.cells[1], strict=True))
    assert (cells["local step (ms)"], cells["step with an average (ms)"]) == ("20.0 ± 0.21 %", "140.2 ± 0.21 %")


def test_links_are_told_apart_for_nobody_chooses_them() -> None:
    sentences = describe_rounds(Run(launches_over([10**9, 2 * 10**8])))
    assert [" over 200 Mbit/s (95" in each.text or " over 1 Gbit/s (95" in each.text for each in sentences] == [
        True
    ] * 2
    assert {each.text.split("validation")[0].count("over both frameworks") for each in sentences} == {1}
