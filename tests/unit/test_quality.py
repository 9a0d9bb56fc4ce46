"""A report's statements on the quality of its measurements."""

from __future__ import annotations

import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.quality import (
    count_cores,
    describe_autocorrelation,
    describe_crowding,
    describe_precision,
    describe_quality,
    describe_target_precision,
    describe_turns,
    describe_warmup,
)
from hvbench.records.record import Record
from tests.unit.sample_records import make_rank, make_record

STEADY = [1.0, 1.01, 0.99, 0.99, 1.01, 1.0, 1.0, 0.99, 1.01, 1.0]


def launch(steps: list[float], *, repeat: int = 0, **changes) -> Record:
    return make_record([make_rank(step_seconds=[9.0, *steps])], repeat=repeat, **changes)


def repeated(*steps: list[float], **changes) -> list[Record]:
    return [launch(one, repeat=repeat, **changes) for repeat, one in enumerate(steps)]


# Precision


@pytest.mark.parametrize(("in_turns", "says"), [(0, []), (1, ["1 of 3 launches were"]), (3, ["All launches were"])])
def test_launches_that_took_turns_are_said(in_turns: int, says: list[str]) -> None:
    records = repeated([1.0, 1.0], [1.0, 1.0], [1.0, 1.0])
    records = [each.model_copy(update={"in_turns": number < in_turns}) for number, each in enumerate(records)]
    found = describe_turns(records)
    assert [line.partition(" measured side by side")[0] for line in found] == says


def test_points_that_missed_the_target_are_named_with_their_width_and_n() -> None:
    good = repeated([1.0], [1.0], [1.0], seed=1)
    wide = repeated([1.0], [1.1], [1.2], seed=2)
    alone = repeated([1.0], seed=3)
    (line,) = describe_precision(Run([*good, *wide, *alone]), 0.02)
    assert line.startswith("1 of 3 points reached the precision target of ± 2 %; not: ")
    assert good[0].point_id not in line
    assert f"{wide[0].point_id} (± 23 %, n = 3)" in line
    assert f"{alone[0].point_id} (no interval, n = 1)" in line


def test_all_narrow_is_said_too_and_no_target_says_nothing() -> None:
    records = repeated([1.0], [1.0])
    assert describe_precision(Run(records), 0.02) == ["1 of 1 points reached the precision target of ± 2 %."]
    assert not any("target" in line for line in describe_quality(Run(records)))
    assert any("target" in line for line in describe_quality(Run(records, {"measure": {"precision_target": 0.02}})))


def test_of_frameworks_that_took_turns_their_ratios_reach_the_target_or_not() -> None:
    """Their rates change by a tenth from round to round. The ratio of seed 1 is always 1, that of seed 2 is not."""
    moods = [1.0, 1.1, 1.0, 1.1]
    even = [repeated(*([mood] for mood in moods), framework=name, seed=1) for name in ("pytorch", "tensorflow")]
    odd = [
        repeated(*([mood * factor] for mood, factor in zip(moods, factors, strict=True)), framework=name, seed=2)
        for name, factors in (("pytorch", [1.0] * 4), ("tensorflow", [1.0, 1.1, 0.9, 1.0]))
    ]
    request = {"measure": {"precision_target": 0.02}, "precision_aim": "ratios"}
    records = [record for launches in (*even, *odd) for record in launches]
    (line,) = describe_target_precision(Run(records, request))
    start = "1 of 2 ratios of the frameworks' tokens/s reached the precision target of ± 2 %; not: TensorFlow / PyTorch with seed 2 (± "
    assert line.startswith(start) and line.endswith(" %, 4 rounds).")
    (before,) = describe_target_precision(Run(records, {"measure": {"precision_target": 0.02}}))
    assert before.startswith("0 of 4 points reached"), "a run of a version that aimed at rates alone"


def test_a_ratio_without_a_launch_of_one_framework_is_said_to_be_missing() -> None:
    records = repeated([1.0], [1.0], framework="pytorch") + [
        make_record([], status="failed", repeat=repeat, framework="tensorflow", world_size=1) for repeat in range(2)
    ]
    records += [
        record for name in ("pytorch", "tensorflow") for record in repeated(*[[1.0]] * 3, framework=name, seed=1)
    ]
    found = describe_target_precision(Run(records, {"measure": {"precision_target": 0.02}, "precision_aim": "ratios"}))
    assert found == [
        "1 of 1 ratios of the frameworks' tokens/s reached the precision target of ± 2 %.",
        "In 1 configuration there is no such ratio, for no launch of one framework ended in ok.",
    ]


# Warm-up


@pytest.mark.parametrize(
    ("first", "verdict"),
    [
        (1.0, "no leftover of the warm-up"),
        (1.03, "no leftover of the warm-up"),  # within the margin
        (1.2, "a leftover of the warm-up: raise warmup_steps"),
    ],
)
def test_a_first_timed_step_that_is_slower_in_every_launch_is_a_leftover(first: float, verdict: str) -> None:
    launches = repeated(*([first * scatter, *STEADY] for scatter in (0.999, 1.0, 1.001)))
    (line,) = describe_warmup(point_frame(launches))
    assert line.startswith(f"pytorch: first timed step / median of the other timed steps: {first:.3f} (95 % interval ")
    assert line.endswith(f"n = 3 launches): {verdict}.")


def test_one_slow_first_step_in_three_launches_proves_nothing() -> None:
    (line,) = describe_warmup(point_frame(repeated([1.0, *STEADY], [1.0, *STEADY], [1.5, *STEADY])))
    assert "too few or too scattered" in line
    assert "no interval, n = 1 launches): too few" in describe_warmup(point_frame([launch([1.0, *STEADY])]))[0]


# Autocorrelation


def test_steps_that_drift_within_a_launch_are_named() -> None:
    drifting = [1.0 + 0.1 * step for step in range(10)]
    points = point_frame([*repeated(drifting, drifting, seed=1), *repeated(STEADY, STEADY, seed=2)])
    (line,) = describe_autocorrelation(points)
    assert "in 1 of 2 points" in line and "(1.00, n = 2 launches)" in line
    alternating = [1.0 + 0.1 * (step % 2) for step in range(10)]
    assert "(-1.00, n = 1 launches)" in describe_autocorrelation(point_frame([launch(alternating)]))[0]


def test_few_steps_say_nothing_about_their_correlation() -> None:
    drifting = [1.0 + 0.1 * step for step in range(7)]
    assert describe_autocorrelation(point_frame(repeated(drifting, drifting))) == []


# Crowding


@pytest.mark.parametrize(
    ("environment", "ranks", "line"),
    [
        ({"cpu_cores": 2}, 2, None),
        ({"cpu_cores": 2}, 8, "8 ranks shared the 2 cores of a host"),
        ({"cpu_cores": 16, "cgroup_cpu_quota": 1.5}, 2, "2 ranks shared the 1 core of a host"),
        ({}, 8, None),  # a record of a machine that did not say
    ],
)
def test_more_ranks_than_cores_is_said(environment: dict, ranks: int, line: str | None) -> None:
    record = make_record([make_rank(rank, step_seconds=[1.0, 1.0]) for rank in range(ranks)], environment=environment)
    found = describe_crowding([record, record])
    assert len(found) == (line is not None) and (not line or found[0].startswith(line))


def test_ranks_on_several_hosts_and_on_gpus_do_not_share_cores() -> None:
    spread = [make_rank(rank, step_seconds=[1.0, 1.0], host=f"host{rank // 2}") for rank in range(4)]
    devices = [make_rank(rank, step_seconds=[1.0, 1.0], device="cuda") for rank in range(4)]
    for ranks in (spread, devices):
        assert describe_crowding([make_record(ranks, environment={"cpu_cores": 2})]) == []


@pytest.mark.parametrize("value", ["two", True, 0, None])
def test_a_count_of_cores_that_is_none_is_unknown(value: object) -> None:
    assert count_cores({"cpu_cores": value}) is None
