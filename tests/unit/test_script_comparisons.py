"""Two revisions of people's own training: joined by their axes, held against each other in speed, memory and losses, and named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hvbench.analysis.topics.parity.losses import find_loss_change
from hvbench.comparison.baseline import judge_against_baseline, set_baseline
from hvbench.comparison.compare import compare
from hvbench.comparison.gate.checks import Terms
from hvbench.comparison.gate.judge import judge_pairs
from hvbench.comparison.gate.judgement import Kind
from hvbench.comparison.gate.policy import Policy
from hvbench.comparison.outputs.comparison import summarize
from hvbench.comparison.outputs.history import render_text
from hvbench.comparison.read import compare_runs, read_history
from hvbench.comparison.result import Comparison, LaunchSet
from hvbench.errors import UsageError
from hvbench.records.fingerprint import fingerprint_id
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from tests.unit.sample_scripts import COMMAND, make_script_record, make_script_records

LATER = {"revision": "bbbb1a9b8d7e", "is_dirty": True, "digest": "cccc44c0d1e2"}
RENAMED = "python train.py --batch-size {batch} --dtype {dtype}"


def make_pairs(b: Sequence[Record], **options: object) -> Comparison:
    """Six launches of either arm, interleaved."""
    sides = {"a": make_script_records(repeats=6), "b": list(b)}
    return compare([LaunchSet(name=name, records=records, job="ab") for name, records in sides.items()], **options)


def judge(comparison: Comparison) -> dict[str, set[str]]:
    """Metric -> the kinds of its checks."""
    terms = Terms(policy=Policy(), suite="mine", against="arm a", today="2026-01-01")
    found: dict[str, set[str]] = {}
    for check in judge_pairs(comparison, terms, pairs=6).checks:
        found.setdefault(check.metric, set()).add(str(check.kind))
    return found


def with_losses(records: Sequence[Record], *, factor: float, from_step: int, every: int = 1) -> list[Record]:
    """The records with losses that differ by a factor from a step on (counted from 1), logged every few steps."""

    def change(losses: Sequence[float | None]) -> list[float | None]:
        return [
            None if step % every else loss * (factor if step + 1 >= from_step else 1.0)
            for step, loss in enumerate(losses)
        ]

    return [
        record.model_copy(
            update={"ranks": [rank.model_copy(update={"loss": change(rank.loss)}) for rank in record.ranks]}
        )
        for record in records
    ]


def scatter_losses(repeats: int) -> list[Record]:
    """Launches whose losses differ by 1 % from one repeat to the next."""
    records = make_script_records(repeats=repeats)
    return [each for one in records for each in with_losses([one], factor=1 + one.repeat / 100, from_step=1)]


def write_run(folder: Path, records: Sequence[Record], *, created_at: str) -> Path:
    run = RunFolder(folder)
    run.open_for_writing()
    run.write_run({"suite": "mine", "created_at": created_at, "command": "hvbench sweep mine.toml"})
    for record in records:
        run.write_record(record)
    run.close()
    return folder


def test_revisions_on_one_machine_are_compared_and_named() -> None:
    comparison = make_pairs(make_script_records(repeats=6, source=LATER))
    assert comparison.is_comparable and [point.label for point in comparison.points] == ["batch=16", "batch=8"]
    assert comparison.notes == (
        "The sides ran different revisions of the script: a: 4f2c1a9b8d7e, files 93ab44c0d1e2; "
        "b: bbbb1a9b8d7e with changes, files cccc44c0d1e2.",
    )
    assert judge(comparison) == {"step_seconds_median": {"pass"}, "peak_rss_bytes": {"pass"}, "loss": {"pass"}}
    assert fingerprint_id(make_script_record()) == fingerprint_id(make_script_record(source=LATER))


def test_a_slower_revision_is_a_regression_of_its_steps_alone() -> None:
    comparison = make_pairs(make_script_records(repeats=6, source=LATER, slower=1.1))
    assert {
        change.call
        for point in comparison.points
        for change in point.changes
        if change.metric.name == "tokens_per_second"
    } == {"worse"}
    assert judge(comparison) == {"step_seconds_median": {"regression"}, "peak_rss_bytes": {"pass"}, "loss": {"pass"}}


def test_what_a_script_does_not_say_is_no_metric_of_it() -> None:
    sets = [
        LaunchSet(name=name, records=make_script_records(repeats=6, tokens=None, has_loss=False), job="ab")
        for name in "ab"
    ]
    comparison = compare(sets)
    assert {change.metric.name for change in comparison.points[0].changes} == {
        "step_seconds_median", "peak_rss_bytes", "data_seconds_median", "first_step_seconds",
    }  # fmt: skip
    assert all(point.loss is None for point in comparison.points)
    assert judge(comparison) == {"step_seconds_median": {"pass"}, "peak_rss_bytes": {"pass"}}


@pytest.mark.parametrize(("from_step", "every", "step"), [(5, 1, 5), (4, 2, 5), (1, 1, 1)])
def test_a_loss_that_moved_is_named_with_its_step(from_step: int, every: int, step: int) -> None:
    moved = with_losses(make_script_records(repeats=6, source=LATER), factor=1.01, from_step=from_step, every=every)
    comparison = make_pairs(moved)
    assert {point.loss.step for point in comparison.points} == {step}
    assert judge(comparison)["loss"] == {str(Kind.REGRESSION)}
    assert f"The loss changed: batch=16: step {step}, " in " ".join(summarize(comparison))


def test_a_script_that_trains_otherwise_each_time_is_held_against_its_own_spread() -> None:
    """Launches of either side differ by up to 4 %: 1 % between the sides is nothing."""
    scattered = scatter_losses(6)
    sides = {"a": scattered, "b": with_losses(scattered, factor=1.01, from_step=1)}
    comparison = compare([LaunchSet(name=name, records=records, job="ab") for name, records in sides.items()])
    assert all(point.loss.step is None and point.loss.allowed > 0.03 for point in comparison.points)


@pytest.mark.parametrize(("repeats", "is_said"), [(2, False), (5, False), (6, True)])
def test_few_launches_of_a_script_that_trains_otherwise_each_time_say_nothing(repeats: int, is_said: bool) -> None:
    """Of two launches a side chance alone would call every fifth script changed."""
    sides = {"a": scatter_losses(repeats), "b": with_losses(scatter_losses(repeats), factor=2.0, from_step=1)}
    comparison = compare([LaunchSet(name=name, records=records, job="ab") for name, records in sides.items()])
    assert all((point.loss is not None and point.loss.step == 1) == is_said for point in comparison.points)


def test_chance_is_taken_for_no_change_of_the_loss() -> None:
    """100 comparisons of equal sides, whose launches' losses are 2 % off, every launch in all steps alike."""
    random, records = np.random.default_rng(0), make_script_records([{"batch": 8, "dtype": "fp32"}], repeats=6)
    for _ in range(100):
        a, b = (
            [each for one in records for each in with_losses([one], factor=1 + random.normal(0, 0.02), from_step=1)]
            for _ in "ab"
        )
        assert find_loss_change(a, b).step is None


def test_one_launch_a_side_says_nothing_of_a_script_s_losses() -> None:
    sides = {
        "a": make_script_records(repeats=1),
        "b": with_losses(make_script_records(repeats=1), factor=2.0, from_step=1),
    }
    comparison = compare([LaunchSet(name=name, records=records, job="ab") for name, records in sides.items()])
    assert all(point.loss is None for point in comparison.points)


@pytest.mark.parametrize("ignore", [(), ("command",)])
def test_a_revision_with_another_command_is_joined_by_its_values(ignore: tuple[str, ...]) -> None:
    comparison = make_pairs(make_script_records(repeats=6, source=LATER, command=RENAMED), ignore=ignore)
    assert not comparison.missing and [point.label for point in comparison.points] == ["batch=16", "batch=8"]
    assert all(point.loss is not None and point.loss.step is None for point in comparison.points)
    assert f"b: {RENAMED}." in comparison.notes[-1]


def test_a_revision_that_sets_other_variables_is_joined_by_its_values_and_says_so() -> None:
    comparison = make_pairs(make_script_records(repeats=6, source=LATER, environment={"A": "x y"}))
    assert not comparison.missing and [point.label for point in comparison.points] == ["batch=16", "batch=8"]
    assert comparison.notes[-1].endswith(f"a: {COMMAND}; b: A='x y' {COMMAND}.")


def test_an_axis_that_one_side_lacks_is_named() -> None:
    b = [make_script_record({"batch": 8}, repeat=repeat, command="python train.py {batch}") for repeat in range(6)]
    comparison = make_pairs(b)
    assert not comparison.points
    assert {(each.label, each.arm) for each in comparison.missing} >= {("batch=8", "a"), ("batch=8 dtype=fp32", "b")}


def test_values_of_an_axis_are_compared_within_a_run(tmp_path: Path) -> None:
    path = write_run(tmp_path / "mine" / "one", make_script_records(repeats=6), created_at="2026-01-01")
    for name in ("batch", "{batch}"):
        comparison, _ = compare_runs([str(path)], by=name, root=tmp_path)
        assert comparison.arms == ("8", "16") and comparison.joined_over == ("batch",)
        assert {change.metric.name: change.call for change in comparison.points[0].changes}[
            "tokens_per_second"
        ] == "better"
    with pytest.raises(
        UsageError, match=r'--by "bacth": .*did you mean "batch".*allowed: batch, dtype, world_size, seed'
    ):
        compare_runs([str(path)], by="bacth", root=tmp_path)


def test_a_baseline_holds_for_later_revisions(tmp_path: Path) -> None:
    before = write_run(tmp_path / "mine" / "before", make_script_records(repeats=6), created_at="2026-01-01")
    later = make_script_records(repeats=6, source=LATER, slower=1.1)
    now = write_run(tmp_path / "mine" / "now", later, created_at="2026-01-02")
    set_baseline(before, root=tmp_path)
    judgement, problems = judge_against_baseline(
        now, root=tmp_path, policy=Policy(fail_on_baseline=True), today="2026-01-02"
    )
    assert not problems and judgement.verdict is Kind.REGRESSION
    assert any("now: bbbb1a9b8d7e with changes" in note for note in judgement.notes)


def test_a_history_names_the_revisions_at_which_a_level_begins(tmp_path: Path) -> None:
    for number in range(8):
        records = make_script_records(
            repeats=3,
            slower=1.0 if number < 4 else 1.2,
            source=LATER | {"revision": f"{number}" * 12, "is_dirty": number == 4},
        )
        write_run(tmp_path / "mine" / f"run{number}", records, created_at=f"2026-01-0{number + 1}")
    history = read_history("step_seconds_median", suite="mine", fingerprint=None, root=tmp_path)
    assert [line.label for line in history.lines] == ["batch=16", "batch=8"]
    assert [round(entry.change, 2) for entry in history.lines[0].entries if entry.change] == [0.2]
    changed = next(line for line in render_text(history.lines, history.metric).splitlines() if "from here" in line)
    assert changed.startswith("run4") and changed.endswith("444444444444+changes")
