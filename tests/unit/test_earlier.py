"""What `hvbench plan` says of time and of what can be told: by hand, from runs of this and of other machines."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from hvbench.analysis.stats.contrasts import judge_family, rounds_to_tell
from hvbench.cli.display import plan as display
from hvbench.cli.display.plan import MAX_ROWS, describe_plan, describe_power, expect, show_table
from hvbench.plan.earlier import (
    Earlier,
    expected_seconds,
    find_earlier,
    least_difference,
    newest_runs,
    pair_frameworks,
    power_of,
)
from hvbench.plan.jobs import Job, make_plan
from hvbench.plan.skip import is_installed
from hvbench.records.environment import describe_environment
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import parse_suite
from tests.unit.sample_records import make_rank, make_record

needs_both_frameworks = pytest.mark.skipif(
    not all(map(is_installed, FRAMEWORKS)), reason="points of a framework that is not installed are skipped"
)
SETTINGS = MeasureSettings(warmup_steps=1, steps=4, repeats=5)
HERE = describe_environment()


def launch(framework: str = "pytorch", *, repeat: int = 0, step: float = 1.0, **changes: Any) -> Record:
    """Two ranks, the second the slower by a tenth: a warm-up step of 3 s and four steps, 20 s in all."""
    ranks = [make_rank(rank, step_seconds=[3.0, *[step * (0.9 + 0.1 * rank)] * 4]) for rank in range(2)]
    fields = {"environment": HERE, "in_turns": True, **changes}
    kept = {name: fields.pop(name) for name in ("in_turns", "duration_seconds") if name in fields}
    record = make_record(ranks, framework=framework, repeat=repeat, **fields)
    return record.model_copy(update={"duration_seconds": 20.0, **kept})


def write_run(root: Path, records: list[Record], *, suite: str = "mine", when: str = "20260102T030405Z") -> Path:
    folder = RunFolder(root / suite / when)
    folder.open_for_writing()
    folder.write_run({"suite": suite})
    for record in records:
        folder.write_record(record)
    folder.close()
    return folder.path


def jobs_of(*records: Record) -> list[Job]:
    return [Job(point=point, repeat=0) for point in dict.fromkeys(record.point for record in records)]


def find(root: Path, *records: Record, in_turns: bool = True) -> Earlier:
    jobs = jobs_of(*records)
    return find_earlier(jobs, root=root, suite="mine", in_turns={job.point.point_id: in_turns for job in jobs})


# Which launches count


def test_launches_of_this_machine_in_the_same_mode_count(tmp_path: Path) -> None:
    good = launch()
    others = {
        "another machine": launch(environment=HERE | {"cpu_model": "another"}),
        "other libraries": launch(environment=HERE | {"packages": HERE["packages"] | {"numpy": "0"}}),
        "not known which": launch(environment={}),
        "one after the other": launch(in_turns=False),
        "failed": launch(status="failed"),
    }
    for why, record in others.items():
        write_run(tmp_path / why, [record])
        assert find(tmp_path / why, record) == Earlier(), why
    path = write_run(tmp_path / "same", [good])
    assert find(tmp_path / "same", good) == Earlier(records={good.point_id: [good]}, runs=(path,))
    assert find(tmp_path / "same", launch(seed=7)) == find(tmp_path / "none", good) == Earlier()


def test_the_newest_run_of_the_suite_comes_first_then_those_of_others(tmp_path: Path) -> None:
    old = write_run(tmp_path, [launch(step=1.0)], when="20260101T000000Z")
    new = write_run(tmp_path, [launch(step=2.0)], when="20260102T000000Z")
    other = write_run(tmp_path, [launch(step=3.0), launch(seed=2)], suite="other", when="20260103T000000Z")
    assert newest_runs(tmp_path, suite="mine") == [new, old, other]
    found = find(tmp_path, launch(), launch(seed=2))
    assert found.runs == (new, other)
    assert found.records[launch().point_id][0].ranks[1].step_seconds[1] == 2.0
    assert newest_runs(tmp_path, suite="*") == [other, new, old], "a name is no pattern"


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    path = write_run(tmp_path, [launch(), launch(repeat=1)])
    (path / "records" / f"{launch().key}.json").write_text("{")
    (path / "records" / "notes.txt").write_text("x")
    (tmp_path / "mine" / "20260109T000000Z").mkdir()
    assert [record.repeat for record in find(tmp_path, launch()).records[launch().point_id]] == [1]


# How long


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        (SETTINGS, 20.0),
        (SETTINGS.model_copy(update={"steps": 14}), 29.0),  # ten steps more, of 0.9 s on the first rank
        (SETTINGS.model_copy(update={"warmup_steps": 3, "steps": 2}), 20.0),
        (SETTINGS.model_copy(update={"evaluate_every": 5}), None),  # the earlier ones evaluated nothing
        (SETTINGS.model_copy(update={"ablation_rounds": 5}), None),
    ],
)
def test_a_launch_takes_what_earlier_ones_took(settings: MeasureSettings, seconds: float | None) -> None:
    found = expected_seconds([launch(), launch(repeat=1)], settings)
    assert found == (None if seconds is None else pytest.approx(seconds))
    assert expected_seconds([], settings) is None


# What will be told


def test_points_are_paired_over_frameworks_alone() -> None:
    points = [
        Point(framework=framework, model="tiny", world_size=2, seed=seed, gemm=gemm)
        for framework, seed, gemm in (
            ("pytorch", 0, "default"), ("tensorflow", 0, "default"), ("pytorch", 1, "default"), ("pytorch", 0, "onednn"),
        )
    ]  # fmt: skip
    assert pair_frameworks(points) == [(points[0], points[1])]


def scattered(*, rounds: int, spread: float) -> list[Record]:
    """Two configurations whose rounds' ln(A/B) lie at ± the same distance, so that their standard deviation is `spread`."""
    distance = spread * math.sqrt((rounds - 1) / rounds)
    return [
        launch(
            framework,
            seed=seed,
            repeat=repeat,
            step=math.exp(distance * (-1) ** (repeat + seed)) if framework == "pytorch" else 1.0,
        )
        for framework in ("pytorch", "tensorflow")
        for seed in (1, 2)
        for repeat in range(rounds)
    ]


def test_what_rounds_will_tell_is_the_rule_s_own_answer(tmp_path: Path) -> None:
    records = scattered(rounds=4, spread=0.03)
    write_run(tmp_path, records)
    power = power_of(find(tmp_path, *records), jobs_of(*records), rounds=6)
    assert power.spread == pytest.approx(0.03)
    family = judge_family([[0.03 * math.sqrt(0.75) * sign for sign in (1, -1, 1, -1)]] * 2)
    assert power.rounds_to_tell == rounds_to_tell(family, difference=0.05)
    found = least_difference(family, rounds=6)
    assert rounds_to_tell(family, difference=found) <= 6 < rounds_to_tell(family, difference=found - 0.001)
    assert power.difference == found
    assert power_of(find(tmp_path, *records), jobs_of(*records), rounds=20).difference < found


def test_too_few_rounds_say_nothing(tmp_path: Path) -> None:
    records = scattered(rounds=2, spread=0.03)
    write_run(tmp_path, records)
    assert power_of(find(tmp_path, *records), jobs_of(*records), rounds=6) is None
    assert power_of(Earlier(), jobs_of(*records), rounds=6) is None


# The text


def plan_of(text: str, *, settings: str = "") -> tuple[Any, Any]:
    suite = parse_suite(f"{text}\n[measure]\nwarmup_steps = 1\nsteps = 4\n{settings}", name="mine", where="mine.toml")
    return suite, make_plan(suite.points(), suite.measure, world_size=2)


BOTH = 'question = "Which?"\n[point]\nmodel = "tiny"\n[axes]\nframework = ["pytorch", "tensorflow"]\nseed = [1, 2]\n'


@needs_both_frameworks
def test_a_plan_is_a_row_a_point_and_says_what_earlier_runs_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite, _ = plan_of(BOTH, settings="repeats = 6")
    text = describe_plan(suite, np=2)
    assert re.search(r"^framework +seed +launches +time\npytorch +1 +6 +~\d+ s$", text, re.MULTILINE)
    assert "the same for all: model=tiny world_size=2" in text and "is not known yet: no run of these points" in text
    assert text.endswith("(estimated from the points alone), the parity check before it not counted")

    write_run(tmp_path / "results", scattered(rounds=4, spread=0.03))
    text = describe_plan(suite, np=2)
    assert text.count("2 min\n") == 4, "six launches of 20 s each"
    assert "about 8 min (by this machine's run results/mine/20260102T030405Z), the parity" in text
    told = re.search(
        r"With 6 rounds a difference of about [\d.]+ % between frameworks will be found at one configuration(, and about [\d.]+ % over "
        r"all of them)?, if rounds scatter as in results/mine/20260102T030405Z \(3 % a round\); 5 % takes \d+ rounds\.",
        text,
    )
    assert told, text


def test_one_round_tells_nothing_and_a_suite_about_learning_is_not_asked() -> None:
    suite, plan = plan_of(BOTH)
    (line,) = describe_power(suite.measure, plan, Earlier())
    assert line.startswith("One round says nothing about chance")
    suite, plan = plan_of(BOTH, settings="repeats = 3\nevaluate_every = 2")
    assert describe_power(suite.measure, plan, Earlier()) == []
    suite, plan = plan_of(BOTH.replace(', "tensorflow"', ""), settings="repeats = 3")
    assert describe_power(suite.measure, plan, Earlier()) == []


def test_thousands_of_points_are_shown_in_few_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(display, "estimate_seconds", lambda job, settings: 1.0)
    seeds = ", ".join(map(str, range(2000)))
    suite, plan = plan_of(f'[point]\nmodel = "tiny"\nframework = "pytorch"\n[axes]\nseed = [{seeds}]\n')
    rows = expect(plan.jobs, suite.measure, Earlier())
    lines = show_table(rows, lists_all=False)
    assert len(lines) == MAX_ROWS + 1
    assert lines[-1] == "… and 1,941 more points (--all lists them). What varies: seed 2000 values"
    assert len(show_table(rows, lists_all=True)) == 2001


def test_long_values_keep_the_table_narrow() -> None:
    folder = "/a/very/long/path/to/a/text/that/nobody/wants/to/read"
    suite, plan = plan_of(f'[point]\nmodel = "tiny"\nframework = "pytorch"\n[axes]\ndata = ["synthetic", "{folder}"]\n')
    lines = show_table(expect(plan.jobs, suite.measure, Earlier()), lists_all=False)
    assert max(map(len, lines)) <= 80 and "…" in lines[-1]
