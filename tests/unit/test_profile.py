"""Where a step's time went: steps that a framework's profiler records after the timed ones, and which operators a regression names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hvbench import probe
from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.markdown import render_report
from hvbench.analysis.report.page.render import render_page
from hvbench.comparison.compare import compare
from hvbench.comparison.gate.checks import describe_origin
from hvbench.comparison.operators import find_grown_operators
from hvbench.comparison.result import LaunchSet
from hvbench.errors import UsageError
from hvbench.plan.jobs import make_plan
from hvbench.probe import Measured
from hvbench.probe.profile import MOST_OPERATORS, OUTSIDE, STEPS, Profile
from hvbench.probe.recorders import STEP, Call, Recording, name_event, read_plane, self_times, typical_step
from hvbench.records.record import Record
from hvbench.spec.suite import parse_suite
from hvbench.sweep.tasks import Shared, make_task
from tests.unit.sample_probe import Folder, MakeFolder, folder
from tests.unit.sample_scripts import make_script_record

__all__ = ["folder"]  # a fixture


# What is recorded


def train(made: Folder, *, profile: Path, steps: int = 100) -> list[int]:
    """The steps in which the script did something, of a launch that is profiled; the steps' numbers are logged as losses."""
    about = made.read("generation.json")
    about["jobs"][0]["profile"] = str(profile)
    (made.path / "generation.json").write_text(json.dumps(about), encoding="utf-8")
    done = []
    with probe.training(tokens_per_step=8) as training:
        for index in range(steps):
            with training.step():
                done.append(index)
            training.log(loss=float(index), tokens=8)
            training.evaluate(loss=1.0)
    return done


def test_steps_after_the_timed_ones_are_recorded_and_are_no_samples(folder: MakeFolder, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    made = folder(warmup_steps=2, steps=3)
    about = made.read("generation.json")
    about["jobs"][0]["profile"] = str(tmp_path / "run" / "profiles" / "key.r0")
    (made.path / "generation.json").write_text(json.dumps(about), encoding="utf-8")
    values, taken = torch.ones(64, 64), []
    with pytest.raises(Measured), probe.training() as training:
        for index in range(100):
            with training.step():
                taken.append(values.clone() if index >= 5 else values)
            training.log(loss=float(index))
    samples = made.result["samples"]
    assert len(taken) == 5 + STEPS
    assert samples["loss"] == [0.0, 1.0, 2.0, 3.0, 4.0] and len(samples["step_seconds"]) == 5
    profile = samples["profile"]
    assert profile["steps"] == STEPS and profile["step_seconds"] > 0
    assert profile["operators"]["aten::clone"]["count"] == 1 and profile["operators"][OUTSIDE]["seconds"] >= 0
    assert "profiles/key.r0/rank0-torch.json.gz" in profile["traces"]
    trace = json.loads(gzip.decompress((tmp_path / "run" / profile["traces"][0]).read_bytes()))
    assert any(event.get("name") == "aten::clone" for event in trace["traceEvents"])


@pytest.mark.parametrize("steps", [5, 6])
def test_a_loop_that_ends_with_the_timed_steps_has_measured_them(
    folder: MakeFolder, tmp_path: Path, steps: int
) -> None:
    made = folder(warmup_steps=2, steps=3)
    with pytest.raises(Measured):
        train(made, profile=tmp_path / "profiles" / "key", steps=steps)
    samples = made.result["samples"]
    assert len(samples["step_seconds"]) == 5
    assert (samples["profile"] or {"steps": 0})["steps"] == steps - 5


def test_an_error_in_a_step_that_is_only_profiled_costs_nothing_that_was_measured(
    folder: MakeFolder, tmp_path: Path
) -> None:
    made = folder(warmup_steps=2, steps=3)
    about = made.read("generation.json")
    about["jobs"][0]["profile"] = str(tmp_path / "profiles" / "key")
    (made.path / "generation.json").write_text(json.dumps(about), encoding="utf-8")
    batches = iter(range(6))
    with pytest.raises(Measured), probe.training() as training:
        while True:
            with training.step():
                next(batches)
    assert len(made.result["samples"]["step_seconds"]) == 5


def test_a_profiler_that_fails_is_a_problem_of_the_profile_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    profile = Profile(folder=tmp_path / "file" / "key", rank=0)
    while profile.is_wanted:
        profile.begin_step()
        profile.end_step()
    described = profile.describe()
    assert described["steps"] == STEPS and described["operators"] == {} and "NotADirectoryError" in described["problem"]
    assert Profile(folder=None, rank=0).describe() is None and MOST_OPERATORS < 1024


def test_time_of_what_lies_within_belongs_to_what_lies_within() -> None:
    spans = [(0, 100, "outer"), (10, 30, "inner"), (15, 5, "innermost"), (50, 50, "inner"), (120, 10, "outer")]
    assert self_times(spans) == [
        (0, 20, "outer"), (10, 25, "inner"), (15, 5, "innermost"), (50, 50, "inner"), (120, 10, "outer"),
    ]  # fmt: skip
    assert self_times([]) == []


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("gradients/dense/MatMul:MatMul", "MatMul"),
        ("EagerExecute: Add", "EagerExecute: Add"),
        ("KernelAndDeviceFunc::Run", "KernelAndDeviceFunc::Run"),
        ("MatMul", "MatMul"),
    ],
)
def test_an_operator_is_called_by_its_kind(name: str, operator: str) -> None:
    assert name_event(name) == operator


def make_plane(name: str, events: list[tuple[str, int, int]]) -> Any:
    """A plane of one line, as TensorFlow's file has it: names are numbered, times are picoseconds."""
    names = list(dict.fromkeys(event for event, _, _ in events))
    spans = [
        SimpleNamespace(metadata_id=names.index(event), offset_ps=begin, duration_ps=duration)
        for event, begin, duration in events
    ]
    line = SimpleNamespace(id=7, name="thread", display_name="", timestamp_ns=5, events=spans)
    return SimpleNamespace(
        name=name,
        lines=[line],
        event_metadata={number: SimpleNamespace(name=event) for number, event in enumerate(names)},
    )


def test_planes_become_a_trace_and_self_times() -> None:
    events: list[dict[str, Any]] = []
    recording = Recording()
    host = [
        (STEP, 0, 7_000_000), ("a:Add", 0, 4_000_000), ("b:Mul", 1_000_000, 1_000_000), ("a:Add", 5_000_000, 1_000_000),
    ]  # fmt: skip
    waiting = [
        ("KernelAndDeviceFunc::Run", 0, 9_000_000),
        ("EagerExecute: Add", 10_000_000, 10),
        ("FunctionRun", 10_000_100, 1),
    ]
    input_stage = ("Iterator::Root::Prefetch", 10_001_000, 3_000_000)
    read_plane(make_plane("/host:CPU", host), number=0, events=events, recording=recording)
    read_plane(make_plane("/host:CPU", [*waiting, input_stage]), number=0, events=[], recording=recording)
    read_plane(make_plane("/device:GPU:0", [("Mul", 0, 2_000_000)]), number=1, events=events, recording=recording)
    read_plane(make_plane("Task Environment", [("x", 0, 1)]), number=2, events=events, recording=recording)
    found = {name: (one.count, one.seconds, one.device_seconds) for name, one in typical_step(recording).items()}
    assert found == {
        "Add": (2, pytest.approx(4e-6), 0.0),
        "Mul": (2, pytest.approx(1e-6), pytest.approx(2e-6)),
    }
    spans = [(event["name"], event["ts"], event["dur"], event["pid"]) for event in events if event["ph"] == "X"]
    assert spans == [
        (STEP, 0.005, 7.0, 0),
        ("Add", 0.005, 4.0, 0),
        ("Mul", 1.005, 1.0, 0),
        ("Add", 5.005, 1.0, 0),
        ("Mul", 0.005, 2.0, 1),
    ]


def test_a_disturbed_step_blames_no_operator() -> None:
    """Five steps of which two were interrupted, in different operators; what is called in one step of five is not of a usual one."""
    took = {"mm": [1.0, 1.1, 90.0, 0.9, 1.0], "copy": [3.0, 50.0, 3.1, 2.9, 3.0]}
    calls = [
        Call(name=name, begin=10 * step + 1, seconds=seconds)
        for name, of_steps in took.items()
        for step, seconds in enumerate(of_steps)
    ]
    calls += [Call(name="copy", begin=10 * step + 2, seconds=0.5) for step in range(5)]
    calls += [Call(name="save", begin=3.0, seconds=9.0), Call(name="between", begin=9.5, seconds=1.0)]
    recording = Recording(calls=calls, steps=[(10.0 * step, 10.0 * step + 9) for step in reversed(range(5))])
    found = {name: (one.count, one.seconds) for name, one in typical_step(recording).items()}
    assert found == {"mm": (1, pytest.approx(1.0)), "copy": (2, pytest.approx(3.5))}
    assert typical_step(Recording(calls=calls)) == {}


# Which launches


SUITE = '[script]\ncommand = "p"\n[measure]\nrepeats = 3\nprofile_rounds = 2\n'


def test_the_first_launches_of_a_script_are_profiled() -> None:
    suite = parse_suite(SUITE, name="own", where="own.toml")
    plan = make_plan(suite.points(), suite.measure, world_size=1)
    tasks = [make_task(job, Shared(settings=suite.measure, checkpoints=Path("/run/checkpoints"))) for job in plan.jobs]
    key = f"/run/profiles/{plan.jobs[0].point.point_id}"
    assert [task.job["profile"] for task in tasks] == [f"{key}.r0", f"{key}.r1", None]


def test_hvbench_s_own_trainings_have_no_profiler() -> None:
    with pytest.raises(UsageError, match=r"own.toml: profile_rounds = 2: only a suite with a \[script\] has it"):
        parse_suite("[measure]\nprofile_rounds = 2\n", name="own", where="own.toml")


# What is said of them


def profiled(record: Record, **milliseconds: float) -> Record:
    """A launch whose ranks were profiled: operator -> milliseconds a step (`__` stands for `::`)."""
    operators = {
        name.replace("__", "::"): {"count": 1.0, "seconds": value / 1e3, "device_seconds": 0.0}
        for name, value in milliseconds.items()
    }
    profile = {"steps": 3, "step_seconds": 0.01, "operators": operators}
    values = record.model_dump()
    return Record.model_validate({**values, "ranks": [{**rank, "profile": profile} for rank in values["ranks"]]})


def test_the_operators_that_grew_most_are_named_with_amounts() -> None:
    a = [make_script_record(repeat=repeat) for repeat in range(2)]
    b = [make_script_record(repeat=repeat, slower=1.5) for repeat in range(2)]
    assert find_grown_operators(a, b).changes == ()
    one = profiled(a[0], aten__copy_=0.2, aten__mm=8.0, aten__add=0.1)
    other = profiled(b[0], aten__copy_=3.3, aten__mm=7.0, aten__add=0.11, aten__item=0.9)
    assert find_grown_operators([one, a[1]], b).changes == ()
    grown = find_grown_operators([one, a[1]], [other, b[1]]).changes
    assert [change.describe() for change in grown] == [
        "aten::copy_ +3.1 ms a step (0.2 → 3.3)",
        "aten::item +0.9 ms a step (0 → 0.9)",
    ]
    sides = [LaunchSet(name="a", records=[one, a[1]], job="j"), LaunchSet(name="b", records=[other, b[1]], job="j")]
    (point,) = compare(sides).points
    metrics = {change.metric.name: change.metric for change in point.changes}
    said = describe_origin(point, metrics["step_seconds_median"])
    assert said.startswith("; what grew most: aten::copy_ +3.1 ms a step (0.2 → 3.3), aten::item")
    assert describe_origin(point, metrics["peak_rss_bytes"]) == ""


def test_a_report_has_the_longest_operators_and_links_of_traces_alone() -> None:
    values = profiled(make_script_record(), aten__mm=8.0, aten__copy_=0.2).model_dump()
    good, bad = "profiles/train.r0/rank0-torch.json.gz", "javascript:alert(1)"
    values["ranks"][0]["profile"]["traces"] = [good, bad, "profiles/../rank0-torch.json.gz", f"/{good}"]
    values["ranks"][0]["profile"]["operators"]["<script>x"] = {"count": 1.0, "seconds": 1.0, "device_seconds": 0.0}
    run = Run([Record.model_validate(values)])
    page, markdown = render_page(run, plots=[]), render_report(run, plots={})
    assert f'<a href="{good}">rank0-torch.json.gz</a>' in page and f"[rank0-torch.json.gz]({good})" in markdown
    for text in (page, markdown):
        assert "aten::mm 8 ms" in text and "of a step of 10 ms" in text
        assert bad not in text and "profiles/.." not in text and f"/{good}" not in text and "<script>x" not in text
    assert "Where the time goes" not in render_report(Run([make_script_record()]), plots={})


def test_one_disturbed_launch_of_three_blames_no_operator() -> None:
    record = make_script_record(ranks=1)
    a = [profiled(record, aten__mm=8.0) for _ in range(3)]
    b = [profiled(record, aten__mm=mm, aten__copy_=3.0) for mm in (8.0, 90.0, 8.1)]
    assert [change.name for change in find_grown_operators(a, b).changes] == ["aten::copy_"]


def test_what_slows_all_operators_while_they_are_profiled_is_blamed_on_none() -> None:
    """Figures of a machine that was busy while side b was profiled: without the copy, all there takes about three times as long."""
    usual = {"aten__convolution_backward": 46.0, "aten__mkldnn_convolution": 27.0, "aten__relu": 3.0, "aten__sum": 1.0}
    busy = {"aten__convolution_backward": 150.0, "aten__mkldnn_convolution": 79.0, "aten__relu": 9.0, "aten__sum": 3.1}
    record = make_script_record(ranks=1)
    a = [profiled(record, **usual, aten__copy_=2.1)]
    alike = find_grown_operators(a, [profiled(record, **busy, aten__copy_=6.3)])
    assert alike.factor == pytest.approx(3.0)
    assert all(change.growth_seconds < 0.1 * change.b.seconds for change in alike.changes)
    grown = find_grown_operators(a, [profiled(record, **busy, aten__copy_=68.0)])
    assert grown.changes[0].name == "aten::copy_"
    assert grown.describe().startswith("what grew most: aten::copy_ +66 ms a step (2.1 → 68)")
    assert grown.describe().endswith(
        "(all operators took about 3.1 times as long while they were profiled, which is allowed for)"
    )
    only = find_grown_operators(
        a, [profiled(record, **{name: 2 * time for name, time in usual.items()}, aten__copy_=4.2)]
    )
    assert only.describe() == "all operators took about 2 times as long while they were profiled"


def test_time_on_a_gpu_has_a_name_of_its_own() -> None:
    a, b = (profiled(make_script_record(ranks=1), aten__mm=1.0) for _ in range(2))
    values = b.model_dump()
    values["ranks"][0]["profile"]["operators"]["aten::mm"]["device_seconds"] = 5e-3
    (change,) = find_grown_operators([a], [Record.model_validate(values)]).changes
    assert (change.name, change.growth_seconds) == ("aten::mm on the device", 5e-3)
