"""Which points are launched again, by hand-computed intervals, and in which order."""

from __future__ import annotations

import math

import pytest

from hvbench.analysis.contrasts.precision import half_width_of
from hvbench.analysis.frame.run import Run
from hvbench.analysis.topics.frameworks import contrast_frameworks
from hvbench.plan.jobs import Job
from hvbench.plan.precision import (
    LOOKS,
    Aim,
    choose_aim,
    half_widths_of_rates,
    half_widths_of_ratios,
    list_families,
    widest_look,
    widest_looks,
)
from hvbench.plan.repeats import MAX_FAILURES_IN_A_ROW, extra_keys, next_jobs, units_to_repeat
from hvbench.plan.turns import Turns, configuration_of, side_of
from hvbench.records.record import Outcome, Record
from hvbench.spec.point import Point
from tests.unit.sample_records import make_rank, make_record


def launches(*seconds: float, start: int = 0, duration_seconds: float = 3.0, **point) -> list[Record]:
    """One launch a value: one rank, one timed step of so many seconds."""
    records = [
        make_record([make_rank(step_seconds=[9.0, value])], repeat=start + repeat, **point)
        for repeat, value in enumerate(seconds)
    ]
    return [record.model_copy(update={"duration_seconds": duration_seconds}) for record in records]


def lost(repeat: int, status: str = "failed", **point) -> Record:
    return make_record([], status=status, repeat=repeat, **{"world_size": 1, **point})


def ids(points: list[Point]) -> list[str]:
    return [point.point_id for point in points]


def wide(records: list[Record], *, target: float) -> list[str]:
    points = list({record.point_id: record.point for record in records}.values())
    return ids([point for unit in units_to_repeat(points, records, target=target) for point in unit])


def test_the_width_is_that_of_the_interval_of_tokens_per_second() -> None:
    """1, e^0.01, e^-0.01, 1 and 1 s: the widest of the last three looks is at n = 3, s = 0.01, t(0.975, 2) = 4.3027."""
    records = launches(1.0, math.exp(0.01), math.exp(-0.01), 1.0, 1.0)
    half = 4.302652729911275 * 0.01 / math.sqrt(3)
    assert half_widths_of_rates(records)[records[0].point_id] == pytest.approx(math.sinh(half))
    assert wide(records, target=0.0248) == [records[0].point_id]
    assert wide(records, target=0.0249) == []


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_fewer_than_five_launches_are_never_enough(count: int) -> None:
    """Two launches that agree exactly have an interval of no width, and say next to nothing."""
    assert wide(launches(*[1.0] * count), target=0.5)
    assert not wide(launches(*[1.0] * 5), target=0.5)


def test_an_interval_has_to_be_narrow_after_each_of_the_last_three_launches() -> None:
    """One launch of 1.05 among others of 1: ± 7.0, 3.9, 2.7, 2.1, 1.7 % at n = 3 to 7."""
    rates = [1.0, 1.05, *[1.0] * 5]
    assert [widest_look(rates[:count]) for count in (5, 6, 7)] == pytest.approx([0.0700, 0.0388, 0.0271], abs=1e-4)
    assert widest_look(rates[:4]) == math.inf


def test_only_the_wide_points_are_chosen_in_their_order() -> None:
    narrow = launches(1.0, 1.0, 1.0, 1.0, 1.0, seed=1)
    broad = [*launches(1.0, 2.0, 4.0, seed=2), *launches(1.0, 3.0, 9.0, seed=0)]
    assert wide([*broad, *narrow], target=0.02) == [broad[0].point_id, broad[3].point_id]


def test_points_that_take_turns_are_launched_again_together_but_for_one_that_is_given_up() -> None:
    broad, narrow = launches(1.0, 2.0, 4.0, seed=1), launches(*[1.0] * 5, seed=2)
    failed = [lost(repeat, seed=3) for repeat in range(MAX_FAILURES_IN_A_ROW)]
    points = [same[0].point for same in (broad, narrow, failed)]
    records = [*broad, *narrow, *failed]
    assert units_to_repeat(points, records, target=0.02) == [points[:1]]
    assert units_to_repeat(points, records, target=0.02, together=lambda point: "all") == [points[:2]]


def test_a_point_without_a_record_is_chosen() -> None:
    point = Point(model="tiny", world_size=1)
    assert units_to_repeat([point], [], target=0.1) == [[point]]


def test_a_point_that_fails_again_and_again_is_given_up() -> None:
    failures = [lost(repeat) for repeat in range(MAX_FAILURES_IN_A_ROW)]
    assert wide(failures[:-1], target=0.02) and not wide(failures, target=0.02)
    recovered = [*failures, *launches(1.0, start=MAX_FAILURES_IN_A_ROW)]
    assert wide(recovered, target=0.02)


def test_an_interrupt_is_no_failure_and_its_launch_is_made_again() -> None:
    records = [lost(repeat, "interrupted") for repeat in range(MAX_FAILURES_IN_A_ROW)]
    assert wide(records, target=0.02)
    stopped = [*launches(1.0, 2.0), lost(2, "interrupted")]
    assert [job.repeat for job in next_jobs([[stopped[0].point]], stopped, rest_seconds=100)] == [2]


def test_one_more_launch_of_each_point_grouped_by_framework() -> None:
    names = [(seed, name) for seed in (0, 1) for name in ("tensorflow", "pytorch")]
    points = [Point(model="tiny", world_size=1, framework=name, seed=seed) for seed, name in names]
    records = [each for point in points for each in launches(1.0, 2.0, framework=point.framework, seed=point.seed)]
    jobs = next_jobs([[point] for point in points], records, rest_seconds=100)
    assert jobs == [Job(point=points[index], repeat=2) for index in (0, 2, 1, 3)]
    records += [
        each for job in jobs for each in launches(1.0, start=2, framework=job.point.framework, seed=job.point.seed)
    ]
    jobs = next_jobs([[point] for point in points], records, rest_seconds=100)
    assert jobs == [Job(point=points[index], repeat=3) for index in (3, 1, 2, 0)], "every other round runs backwards"


def test_what_does_not_fit_into_the_budget_is_left_out_the_best_known_first() -> None:
    known = launches(1.0, 2.0, 4.0, seed=0)
    less_known = launches(1.0, 2.0, seed=1)
    slow = launches(1.0, seed=2, duration_seconds=50.0)
    points = [each[0].point for each in (known, less_known, slow)]
    records = [*known, *less_known, *slow]

    def chosen(rest_seconds: float) -> list[int]:
        return [job.point.seed for job in next_jobs([[point] for point in points], records, rest_seconds=rest_seconds)]

    assert sorted(chosen(60)) == [0, 1, 2]
    assert sorted(chosen(53)) == [1, 2]
    assert sorted(chosen(7)) == [0, 1]
    assert chosen(4) == [1]
    assert chosen(0) == chosen(-5) == []


def test_launches_that_an_earlier_session_added_are_found_in_its_jobs() -> None:
    run = {"jobs": ["a.r1x.r0", "a.r1x.r2", "b.r3", "no number", 7]}
    assert extra_keys(run, repeats=2) == [("a.r1x", 2), ("b", 3)]
    assert extra_keys({"jobs": None}, repeats=1) == []


def test_an_outcome_that_is_not_ok_counts_once_whatever_it_is() -> None:
    failures = [
        record.model_copy(update={"outcome": Outcome(status=status)})
        for record, status in zip([lost(0), lost(1), lost(2)], ("oom", "timeout", "diverged"), strict=True)
    ]
    assert not wide(failures, target=0.02)


# Where frameworks take turns: the ratio in every configuration

T_OF_2 = 4.302652729911275  # Student's t, 97.5 %, two degrees of freedom
LOGS = [0.0, 0.01, -0.01, 0.0, 0.0]  # of PyTorch / TensorFlow, a round each


def rounds(*logs: float, duration_seconds: float = 3.0, **point) -> list[Record]:
    """Launches of both frameworks whose rates have these ratios, on a machine whose speed changes by a tenth from round to round."""
    moods = [1 + 0.1 * (place % 2) for place in range(len(logs))]
    ours = [mood * math.exp(-log) for mood, log in zip(moods, logs, strict=True)]
    kept = {"duration_seconds": duration_seconds, **point}
    return [*launches(*ours, framework="pytorch", **kept), *launches(*moods, framework="tensorflow", **kept)]


def points_of(records: list[Record]) -> list[Point]:
    return list({record.point_id: record.point for record in records}.values())


def wide_units(records: list[Record], *, target: float) -> list[list[Point]]:
    points = points_of(records)
    return units_to_repeat(points, records, target=target, aim=Aim.RATIOS, together=configuration_of)


def test_the_width_is_that_of_the_ratio_and_not_of_rates_that_move_with_the_machine() -> None:
    """One configuration is a family of one: half the interval of the logs is t s / sqrt(n), the widest of three looks at n = 3."""
    records = rounds(*LOGS)
    half = T_OF_2 * 0.01 / math.sqrt(3)
    ((one, other),) = list_families(points_of(records))[0]
    assert half_widths_of_ratios(records, list_families(points_of(records))) == {
        (one.point_id, other.point_id): pytest.approx(math.expm1(half))
    }
    assert wide_units(records, target=0.0251) == [points_of(records)]
    assert wide_units(records, target=0.0252) == []
    assert wide(records, target=0.0252) == ids(points_of(records)), "their rates are not known to that"


def test_a_contrast_has_to_be_narrow_after_each_of_its_last_three_rounds() -> None:
    """One round of 1.05 among others of 1: t s / sqrt(n) is 7.0, 3.9, 2.7, 2.1 and 1.7 % at n = 3 to 7, as ln."""
    logs = [dict(enumerate([0.0, math.log(1.05), *[0.0] * 5]))]
    halves = [T_OF_2, 3.182446305284263, 2.7764451051977987]
    first = [math.expm1(t * math.log(1.05) / n) for t, n in zip(halves, (3, 4, 5), strict=True)]
    seen = [widest_looks([dict(list(logs[0].items())[:count])])[0] for count in (5, 6, 7)]
    assert seen == pytest.approx(first), "s = ln(1.05) / sqrt(n), so t s / sqrt(n) = t ln(1.05) / n"
    assert widest_looks([{0: 0.0, 1: 0.0, 2: 0.0, 5: 0.0}]) == [math.inf], "four rounds"


def test_the_widths_are_those_of_the_reports_table_after_each_of_the_last_rounds() -> None:
    """Three configurations of unequal spread: whatever correction and pooling the one rule has, they are the report's."""
    scatter = [1.0, -1.3, 0.4, 0.9, -0.6, 0.2]
    records = [each for seed in range(3) for each in rounds(*(0.01 * (1 + seed) * one for one in scatter), seed=seed)]
    reported = [
        {
            (pair.one["point_id"], pair.other["point_id"]): half_width_of(pair.contrast)
            for rivals in contrast_frameworks(Run([each for each in records if each.repeat < count]))
            for pair in rivals.family.contrasts
        }
        for count in range(len(scatter) - LOOKS + 1, len(scatter) + 1)
    ]
    found = half_widths_of_ratios(records, [[pair[::-1] for pair in list_families(points_of(records))[0]]])
    assert found == {pair: pytest.approx(max(widths[pair] for widths in reported)) for pair in reported[0]}


def test_rounds_of_the_wide_configurations_are_added_and_of_both_frameworks() -> None:
    """After five, six and seven rounds the broad one is so much noisier that the rule does not pool it with the other."""
    narrow, broad = rounds(*LOGS, 0.0, 0.0, seed=1), rounds(0.0, 0.3, -0.3, 0.2, -0.1, 0.2, -0.2, seed=2)
    assert wide_units([*narrow, *broad], target=0.05) == [points_of(broad)]
    assert wide_units([*narrow, *broad], target=0.9) == []


def test_a_configuration_that_was_narrow_is_wide_again_where_another_shows_how_far_rounds_scatter() -> None:
    """Six rounds of both agree within a thousandth; the second goes on, and scatters twice as far: the error is pooled."""
    agreed = dict(enumerate([0.001, -0.001, 0.0, 0.001, -0.001, 0.0]))
    scattered = dict(enumerate([0.001, -0.001, 0.0, 0.001, -0.001, 0.0, 0.002, -0.002, 0.003, -0.003]))
    before, after = (widest_looks([agreed, other])[0] for other in (agreed, scattered))
    assert after > before


def test_a_framework_that_is_given_up_leaves_no_ratio_to_aim_at() -> None:
    broad = rounds(0.0, 0.3, -0.3, seed=2)
    failed = [lost(repeat, seed=3, framework="tensorflow") for repeat in range(MAX_FAILURES_IN_A_ROW)]
    alone = launches(1.0, 2.0, 4.0, seed=3)
    assert wide_units([*broad, *alone, *failed], target=0.02) == [points_of(broad)]


@pytest.mark.parametrize(
    ("frameworks", "in_turns", "aim"),
    [
        (("pytorch", "tensorflow"), True, Aim.RATIOS),
        (("pytorch", "tensorflow"), False, Aim.RATES),  # one after the other
        (("pytorch",), True, Aim.RATES),
    ],
)
def test_ratios_are_aimed_at_where_frameworks_take_turns_at_a_configuration(frameworks, in_turns, aim) -> None:
    points = [Point(model="tiny", world_size=2, framework=name) for name in frameworks]
    turns = Turns(sides=frozenset(map(side_of, points)) if in_turns else frozenset())
    assert choose_aim(points, turns) is aim


def test_frameworks_that_take_turns_at_different_configurations_have_no_ratio() -> None:
    points = [
        Point(model="tiny", world_size=2, framework=name, seed=seed)
        for seed, name in enumerate(("pytorch", "tensorflow"))
    ]
    assert choose_aim(points, Turns(sides=frozenset(map(side_of, points)))) is Aim.RATES


def test_a_round_fits_into_the_budget_as_a_whole_or_not_at_all_and_its_launches_have_one_number() -> None:
    """PyTorch's third launch was interrupted: the next round is the fourth, for both."""
    records = [*rounds(0.0, 0.1, 0.2)[:2], lost(2, "interrupted", framework="pytorch"), *rounds(0.0, 0.1, 0.2)[3:]]
    unit = points_of(records)
    assert [point.framework for point in unit] == ["pytorch", "tensorflow"]
    jobs = next_jobs([unit], records, rest_seconds=6.0)
    assert sorted((job.point.framework, job.repeat) for job in jobs) == [("pytorch", 3), ("tensorflow", 3)]
    assert next_jobs([unit], records, rest_seconds=5.9) == []
