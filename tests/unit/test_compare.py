"""Two sets of launches: which are compared, which are called worse, and which must not be called anything."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hvbench.comparison.compare import compare
from hvbench.comparison.outputs.comparison import show_ratio_interval, summarize
from hvbench.comparison.result import Comparison, LaunchSet
from hvbench.comparison.sides import split_by
from hvbench.records.record import Ablation, ParityStamp, Record
from tests.unit.sample_records import make_launch, make_quickstart, make_rank, make_record


def launches(
    *, repeats: int = 8, factor: float = 1.0, seed: int = 0, memory: float = 1.0, status: str = "ok", **changes: Any
) -> list[Record]:
    """Launches of one point whose step takes 50 ms, 1 % apart from each other, and the same loss in all."""
    random = np.random.default_rng(seed)
    made = []
    environment = changes.pop("environment", None)
    ablation = changes.pop("ablation", None)
    loss = changes.pop("loss", None)
    for repeat in range(repeats):
        seconds = [0.05 * factor * random.lognormal(0, 0.01)] * 6
        extra = {"loss": loss} if loss else {}
        ranks = [
            make_rank(rank, step_seconds=seconds, peak_rss_bytes=int(2**29 * memory), ablation=ablation, **extra)
            for rank in range(2)
        ]
        made.append(make_record(ranks, repeat=repeat, status=status, environment=environment, **changes))
    return made


def side(name: str, records: list[Record], *, job: str | None = None) -> LaunchSet:
    return LaunchSet(name=name, records=records, job=job or name)


def calls(comparison: Comparison) -> dict[str, str | None]:
    (point,) = comparison.points
    return {change.metric.name: change.call for change in point.changes}


def test_a_slower_run_is_worse_in_time_and_in_rate_and_the_same_in_memory() -> None:
    comparison = compare([side("a", launches()), side("b", launches(factor=1.1, seed=1))])
    called = calls(comparison)
    assert (called["step_seconds_median"], called["tokens_per_second"], called["peak_rss_bytes"]) == (
        "worse",
        "worse",
        "same",
    )
    change = comparison.points[0].changes[0]
    estimate, low, high = change.worse
    assert 0.08 < low < estimate < high < 0.12 and not change.ratio.is_paired
    rate = next(change for change in comparison.points[0].changes if change.metric.name == "tokens_per_second")
    assert rate.ratio.ratio < 1 and rate.worse[1] <= rate.worse[0] <= rate.worse[2]
    assert rate.worse[0] == pytest.approx(estimate, rel=0.01)


def test_seen_from_the_other_side_it_is_better() -> None:
    comparison = compare([side("a", launches(factor=1.1, seed=1)), side("b", launches())])
    assert calls(comparison)["step_seconds_median"] == "better"


def test_a_clear_change_of_less_than_one_percent_is_none() -> None:
    for factor, call in ((1.006, "same"), (1.02, "worse")):
        b = launches(factor=factor)  # the same launches, each by so much longer
        comparison = compare([side("a", launches(), job="x"), side("b", b, job="x")])
        (point,) = comparison.points
        assert point.changes[0].contrast.p_value < 0.01 and point.changes[0].call == call


def test_one_launch_a_side_says_nothing_however_large_the_change() -> None:
    comparison = compare([side("a", launches(repeats=1)), side("b", launches(repeats=1, factor=3.0))])
    assert calls(comparison)["step_seconds_median"] == "unclear"
    assert "one launch a side says nothing about chance" in summarize(comparison)[0]


def test_all_points_are_one_family_with_a_mean() -> None:
    names = [{"micro_batch_size": size} for size in (1, 2, 4, 8)]
    a, b = ([record for each in names for record in launches(repeats=3, factor=factor, **each)] for factor in (1, 1.1))
    comparison = compare([side("a", a, job="x"), side("b", b, job="x")])
    mean = comparison.means["b", "step_seconds_median"]
    assert mean.ratio == pytest.approx(1.1) and mean.rounds == 3
    assert {show_ratio_interval(change) for point in comparison.points for change in point.changes} == {"no spread"}
    assert summarize(comparison)[0] == (
        "b against a, step time of 4 points: 4 worse, 0 better, 0 the same (within 3 %), 0 unclear; "
        "over all of them 10.0 % longer (no spread)."
    )


def test_launches_of_one_job_are_paired_by_repeat_and_others_are_not() -> None:
    a, b = launches(), launches(factor=1.1, seed=1)
    paired = compare([side("a", a, job="x"), side("b", b[::-1], job="x")]).points[0].changes[0]
    assert paired.ratio.is_paired and len(paired.worse_by) == 8 and paired.ratio.sign_flip_p_value == 2 / 2**8
    median = [[np.median(record.ranks[0].step_seconds) for record in records] for records in (a, b)]
    assert paired.worse_by == pytest.approx(np.log(median[1]) - np.log(median[0]))
    apart = compare([side("a", a), side("b", b)]).points[0].changes[0]
    assert not apart.ratio.is_paired and apart.worse_by == ()
    assert paired.ratio.ratio == pytest.approx(apart.ratio.ratio)


def test_a_leftover_without_its_pair_is_not_compared() -> None:
    change = compare([side("a", launches(), job="x"), side("b", launches(repeats=7), job="x")]).points[0].changes[0]
    assert (change.ratio.n_a, change.ratio.n_b) == (7, 7)


def test_points_of_one_side_and_launches_that_ended_otherwise_are_named() -> None:
    a = launches() + launches(micro_batch_size=16)
    b = (
        launches()
        + launches(micro_batch_size=32, repeats=1)
        + launches(micro_batch_size=16, status="oom", message="too big")
    )
    comparison = compare([side("a", a), side("b", b)])
    assert [(each.label, each.arm, each.is_crash) for each in comparison.missing] == [
        ("b16", "b", True), ("b32", "a", False)
    ]  # fmt: skip
    assert comparison.missing[0].reason == "8 of 8 launches: oom (too big)"
    assert [point.label for point in comparison.points] == ["b8"]


def test_one_crash_of_eight_is_named_and_the_rest_compared() -> None:
    b = launches()
    b[3] = make_record([], repeat=3, status="timeout")
    comparison = compare([side("a", launches()), side("b", b)])
    assert [each.reason for each in comparison.missing] == ["1 of 8 launches: timeout"]
    assert comparison.points[0].changes[0].ratio.n_b == 7


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cpu_model": "Other"}, "cpu_model"),
        ({"packages": {"torch": "2.14"}}, "packages.torch"),
        ({"horovod_settings": {"HOROVOD_CYCLE_TIME": "50"}}, "horovod_settings.HOROVOD_CYCLE_TIME"),
        ({"data_digest": "ff"}, "data_digest"),
    ],
)
def test_another_fingerprint_is_named_and_nothing_is_called(changes: dict[str, Any], named: str) -> None:
    before = {
        "cpu_model": "One",
        "packages": {"torch": "2.13"},
        "horovod_settings": {},
        "data_digest": "00",
        "load_average": 1,
    }
    now = before | changes | {"load_average": 9}
    comparison = compare([side("a", launches(environment=before)), side("b", launches(factor=2.0, environment=now))])
    assert list(comparison.differences) == [named] and not comparison.is_comparable
    assert set(calls(comparison).values()) == {None}
    assert comparison.points[0].changes[0].ratio.ratio == pytest.approx(2.0, rel=0.02)  # the figures are still there


def test_what_is_meant_to_differ_is_no_obstacle() -> None:
    a, b = ({"packages": {"torch": version}} for version in ("2.13", "2.14"))
    sets = [side("a", launches(environment=a)), side("b", launches(factor=1.1, environment=b))]
    assert calls(compare(sets, treatment={"packages"}))["step_seconds_median"] == "worse"


def test_a_fact_that_an_older_record_does_not_state_is_not_compared() -> None:
    a, b = launches(environment={}), launches(environment={"cpu_model": "One"})
    assert compare([side("a", a), side("b", b)]).is_comparable


def test_another_mode_of_measuring_is_named_and_one_mode_says_nothing() -> None:
    alone = launches()
    in_turns = [record.model_copy(update={"in_turns": True}) for record in alone]
    (note,) = compare([side("a", alone), side("b", in_turns)]).notes
    assert note.endswith(
        "may change their times: a: alone, one launch after the other; b: in turns with others, step by step."
    )
    for same in (alone, in_turns):
        assert compare([side("a", same), side("b", same)]).notes == ()


def test_frameworks_of_one_run_are_joined_by_everything_else() -> None:
    comparison = compare(split_by([side("run", make_quickstart(repeats=6))], "precision"), ignore={"precision"})
    assert comparison.arms == ("fp32", "bf16") and comparison.joined_over == ("precision",)
    assert len(comparison.points) == 16 and not comparison.missing
    assert all(change.ratio.is_paired for point in comparison.points for change in point.changes)
    assert comparison.count("better") == 16 and all(point.loss is None for point in comparison.points)
    assert {point.label for point in comparison.points} >= {"pytorch b4x1 compression=none"}


def by_framework(**tensorflow: Any) -> Comparison:
    records = launches(framework="pytorch") + launches(framework="tensorflow", factor=0.8, **tensorflow)
    return compare(split_by([side("run", records)], "framework"), ignore={"framework"})


def test_frameworks_with_the_same_losses_are_compared() -> None:
    assert by_framework().is_comparable and calls(by_framework())["step_seconds_median"] == "better"


def test_frameworks_whose_losses_differ_are_not() -> None:
    comparison = by_framework(loss=[5.0, 4.9, 4.8, 4.701, 4.6, 4.5])
    assert not comparison.is_comparable and set(calls(comparison).values()) == {None}
    assert comparison.points[0].mismatch == "losses differ by 2.1e-04 (allowed 2e-05)"


def test_a_parity_stamp_that_failed_is_believed_over_equal_losses() -> None:
    stamp = ParityStamp(
        is_proven=False, counterpart="pytorch", updates=3, logits_relative_error=1.0, loss_relative_error=0.0,
        gradient_relative_error=0.0, update_relative_error=0.0, overflows=0, worst="logits", worst_relative_error=1.0,
        worst_tolerance=1e-5,
    )  # fmt: skip
    records = [
        record.model_copy(update={"parity": stamp}) if record.point.framework == "tensorflow" else record
        for record in launches(framework="pytorch") + launches(framework="tensorflow")
    ]
    comparison = compare(split_by([side("run", records)], "framework"), ignore={"framework"})
    assert comparison.points[0].mismatch == "the parity check of tensorflow failed: logits"
    assert "The frameworks did NOT do the same work: do not compare their speed." in summarize(comparison)


def test_a_parity_check_that_could_not_be_made_is_no_difference() -> None:
    stamp = ParityStamp(
        is_proven=False, counterpart="pytorch", updates=0, logits_relative_error=None, loss_relative_error=None,
        gradient_relative_error=None, update_relative_error=None, overflows=0, worst=None, worst_relative_error=None,
        worst_tolerance=None, problem="tensorflow oom: no memory",
    )  # fmt: skip
    records = [
        record.model_copy(update={"parity": stamp})
        for record in launches(framework="pytorch") + launches(framework="tensorflow")
    ]
    comparison = compare(split_by([side("run", records)], "framework"), ignore={"framework"})
    assert comparison.points[0].mismatch == "the parity check could not compare pytorch: tensorflow oom: no memory"
    assert not comparison.is_comparable
    first = summarize(comparison)[0]
    assert first == "The frameworks are not proven to have done the same work: do not compare their speed."


def test_numerics_that_moved_are_told_with_their_step() -> None:
    loss = [5.0, 4.9, 4.8, 4.71, 4.6, 4.5]
    comparison = compare([side("a", launches()), side("b", launches(loss=loss))])
    found = comparison.points[0].loss
    assert found.is_outside and found.step == 4 and found.loss_a == pytest.approx(4.7) and found.loss_b == 4.71
    assert found.allowed == 2e-5 and found.largest == pytest.approx(0.01 / 4.71)


def test_round_off_and_a_spread_that_the_launches_show_themselves_are_no_change_of_the_numerics() -> None:
    base = [5.0, 4.9, 4.8, 4.7, 4.6, 4.5]
    rounded = launches(loss=[value * (1 + 1e-6) for value in base])
    assert not compare([side("a", launches()), side("b", rounded)]).points[0].loss.is_outside
    noisy = [
        one for k in range(8) for one in launches(loss=[value * (1 + 1e-3 * (k - 4)) for value in base])[k : k + 1]
    ]
    quiet = launches(loss=[value * 1.002 for value in base])
    assert compare([side("a", launches()), side("b", quiet)]).points[0].loss.is_outside
    assert not compare([side("a", noisy), side("b", quiet)]).points[0].loss.is_outside


def parts(allreduce: float) -> Ablation:
    """A step of 35 ms and what its all-reduce adds."""
    return Ablation(
        forward_seconds=[0.01] * 3, backward_seconds=[0.03] * 3, local_step_seconds=[0.035] * 3,
        step_seconds=[0.035 + allreduce] * 3, allreduce_seconds=[allreduce] * 3,
    )  # fmt: skip


def test_the_part_of_a_step_that_grew_is_shown() -> None:
    a, b = launches(ablation=parts(0.005)), launches(factor=1.2, ablation=parts(0.015))
    comparison = compare([side("a", a), side("b", b)])
    ratios = {change.metric.name: change.ratio.ratio for change in comparison.points[0].changes}
    assert ratios["exposed_communication_seconds"] == pytest.approx(3.0)
    assert ratios["backward_only_seconds"] == pytest.approx(1.0) and ratios["update_seconds"] == pytest.approx(1.0)


def test_three_sets_are_each_compared_with_the_first() -> None:
    sets = [side("a", launches()), side("b", launches(factor=1.1, seed=1)), side("c", launches(factor=0.9, seed=2))]
    comparison = compare(sets)
    assert {(point.arm_a, point.arm_b, point.changes[0].call) for point in comparison.points} == {
        ("a", "b", "worse"), ("a", "c", "better")
    }  # fmt: skip


def test_the_order_of_records_changes_nothing() -> None:
    a, b = make_quickstart(repeats=3), [record for record in make_quickstart(repeats=3)][::-1]
    random = np.random.default_rng(0)
    shuffled = [a[i] for i in random.permutation(len(a))]
    assert compare([side("a", shuffled), side("b", b)]) == compare([side("a", a), side("b", b)])


def test_no_false_alarm_in_an_a_a_comparison_of_many_points() -> None:
    def run(offset: int) -> list[Record]:
        return [
            make_launch({"framework": "pytorch", "seed": seed}, repeat=repeat + offset)
            for seed in range(40)
            for repeat in range(6)
        ]

    comparison = compare([side("a", run(0)), side("b", run(6))])
    assert comparison.count("worse") + comparison.count("better") == 0
    assert comparison.count("worse", decisive_only=False) + comparison.count("better", decisive_only=False) == 0


@pytest.mark.slow
@pytest.mark.long
def test_ten_thousand_records_are_compared_in_time_linear_in_their_number(
    record_property: Callable[[str, Any], None],
) -> None:
    """1,000,000 samples; the processor's seconds are shown, not judged."""

    def run(points: int, *, seed: int) -> list[Record]:
        random = np.random.default_rng(seed)
        made = []
        for repeat in range(5):
            ranks = [make_rank(rank, step_seconds=random.lognormal(-3, 0.02, 50).tolist()) for rank in range(2)]
            record = make_record(ranks, repeat=repeat)
            for number in range(points):
                point = record.point.model_copy(update={"seed": number})
                made.append(record.model_copy(update={"point": point, "point_id": point.point_id}))
        return made

    seconds = {}
    for points in (100, 1000):
        a, b = run(points, seed=0), run(points, seed=1)
        begun = time.process_time()
        comparison = compare([side("a", a), side("b", b)])
        seconds[len(a) + len(b)] = round(time.process_time() - begun, 1)
        assert len(comparison.points) == points
    record_property("processor_seconds_by_records", seconds)
    print(f"processor seconds by number of records: {seconds}")
