"""What a sweep shows while it runs: the live view, plain lines, nothing, or events; no launch is needed to see them."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from hvbench.cli.display import lines as display_module
from hvbench.cli.display.choose import choose_display
from hvbench.cli.display.events import Events
from hvbench.cli.display.lines import Display, Quiet
from hvbench.cli.display.live import Live
from hvbench.launch.messages import Progress
from hvbench.launch.placement import Member
from hvbench.plan.jobs import Job, Plan, Skipped
from hvbench.records.record import Outcome, Record
from hvbench.spec.point import Point
from tests import patience
from tests.unit.sample_records import make_launch, make_rank, make_record

MEMBERS = [
    Member(**{name: {"rank": rank, "host": "host", "cores": [rank]}.get(name) for name in Member.__dataclass_fields__})
    for rank in (0, 1)
]

SPEAK = """
import sys
from pathlib import Path
from hvbench.cli.display.lines import Display
display = Display()
sys.stdin.read()
with display:
    for number in range(3):
        display.prepare(f"line {number}")
display.show("a result", path=Path("run"))
Path(sys.argv[1]).write_text("went on")
raise SystemExit(3)
"""


def make_sweep() -> tuple[Plan, list[Record]]:
    """Two launches of two points, the second of which fails the second time; and a point that is skipped."""
    records = [
        make_launch({"framework": name}, repeat=repeat) for repeat in (0, 1) for name in ("pytorch", "tensorflow")
    ]
    lost = Outcome(status="failed", rank=1, phase="measure", message="RuntimeError: a reason")
    records[3] = records[3].model_copy(update={"outcome": lost, "ranks": []})
    jobs = [Job(point=record.point, repeat=record.repeat) for record in records]
    skipped = Skipped(point=records[0].point.model_copy(update={"precision": "fp16"}), reason="no reason")
    return Plan(jobs=jobs, skipped=[skipped], done=[]), records


def message() -> Progress:
    return Progress(
        generation=0, rank=0, index=0, phase="measure", step=5, steps=13, loss=4.5, timed_tokens=2048, timed_seconds=1.0
    )


def show_on(display: Display, *, width: int = 110, height: int = 30, **console: object) -> io.StringIO:
    """Let the display print into a buffer."""
    screen = io.StringIO()
    display.console = Console(file=screen, width=width, height=height, highlight=False, soft_wrap=True, **console)
    if isinstance(display, Live):
        display.screen.console = display.console
    return screen


def run_through(display: Display, *, stop_after: int = 4) -> None:
    plan, records = make_sweep()
    display.prepare("text")
    display.start(plan, MEMBERS)
    for job, record in list(zip(plan.jobs, records, strict=True))[:stop_after]:
        display.progress(job, message())
        display.finish_job(job, record)


def drawn(display: Live) -> str:
    """The live view as it is now."""
    with display.console.capture() as capture:
        display.console.print(display.draw())
    return capture.get()


def test_plain_lines_say_each_launch_once() -> None:
    display = Display()
    screen = show_on(display)
    run_through(display)
    lines = screen.getvalue().splitlines()
    assert lines[:2] == ["preparing: text", lines[1]] and "no reason" in lines[1]
    assert lines[2] == "4 launches on 2 ranks on 1 host"
    assert re.match(r"\[1/4\] pytorch-small-\S+ r0  [\d,]+ tokens/s  step [\d,]+ ms  loss \d\.\d+  ~.* left", lines[3])
    assert re.match(r"\[4/4\] tensorflow-small-\S+ r1  failed on rank 1 in measure: RuntimeError: a reason$", lines[6])
    assert len(lines) == 7 and "\x1b" not in screen.getvalue()


@pytest.mark.parametrize("kind", [Display, Live, Events])
def test_a_launch_that_ended_takes_no_frame(monkeypatch: pytest.MonkeyPatch, kind: type[Display]) -> None:
    """That takes tens of milliseconds of a core on which the next point is measured."""

    def build(*_: object, **__: object) -> None:
        raise AssertionError("a frame was built")

    for name in ("DataFrame", "Series"):
        monkeypatch.setattr(pd, name, build)
    display = kind()
    show_on(display)
    run_through(display)


def test_a_long_launch_gives_a_sign_of_life_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    display = Display()
    screen = show_on(display)
    plan, _ = make_sweep()
    display.start(plan, MEMBERS)
    before = len(screen.getvalue().splitlines())
    for _ in range(100):
        display.progress(plan.jobs[0], message())
    assert len(screen.getvalue().splitlines()) == before
    monkeypatch.setattr(display_module, "PROGRESS_SECONDS", 0.0)
    display.progress(plan.jobs[0], message())
    # 2,048 tokens of timed steps in 1 s
    assert screen.getvalue().splitlines()[-1].endswith("measure 5/13  loss 4.500  2,048 tokens/s")


def test_the_live_view_shows_the_plan_the_current_point_and_the_rest() -> None:
    display = Live()
    screen = show_on(display, force_terminal=True, color_system=None)
    plan, records = make_sweep()
    assert "waiting for all ranks" in drawn(display)
    display.start(plan, MEMBERS)
    assert "0/4 launches on 2 ranks on 1 host   0 ok  4 to go  1 skipped" in drawn(display)
    for job, record in list(zip(plan.jobs, records, strict=True))[:2]:
        display.finish_job(job, record)
    display.progress(plan.jobs[2], message())
    view = drawn(display)
    assert re.search(r"2/4 launches.*2 ok  2 to go  1 skipped   ~\S+ \S+ left", view)
    assert re.search(
        r"(?m)^▶ pytorch-small-\S+ r1  measure 5/13  loss 4.500  2,048 tokens/s   before: [\d,]+ tokens/s", view
    )
    assert re.search(r"^✓▶ +pytorch-small\S* +[\d,]+ tokens/s", view, re.M)
    assert re.search(r"^✓· +tensorflow-small\S* +[\d,]+ tokens/s", view, re.M)
    display.finish_job(plan.jobs[2], records[2])
    display.finish_job(plan.jobs[3], records[3])
    view = drawn(display)
    assert "3 ok  1 failed  0 to go" in view and "writing the report" in view
    assert re.search(r"^✓✓ +pytorch-small\S* +[\d,]+ tokens/s  [\d,]+ to [\d,]+", view, re.M)
    assert re.search(r"^✓✗ +tensorflow", view, re.M)
    assert "✗ tensorflow-small" in screen.getvalue() and "a reason" in screen.getvalue()


def test_the_live_view_shows_every_launch_that_runs_where_frameworks_take_turns() -> None:
    display = Live()
    show_on(display, height=20, force_terminal=True, color_system=None)
    plan, records = make_sweep()
    display.start(plan, MEMBERS)
    for job in (plan.jobs[0], plan.jobs[2]):
        display.progress(job, message())
    view = drawn(display)
    assert len(re.findall(r"(?m)^▶ \S+ r[01]  measure 5/13", view)) == 2
    assert len(re.findall(r"(?m)▶", view)) == 4, "and its mark in the plan"
    display.finish_job(plan.jobs[0], records[0])
    assert len(re.findall(r"(?m)^▶ \S+ r[01]  measure 5/13", drawn(display))) == 1


def test_the_live_view_fits_on_a_small_terminal() -> None:
    display = Live()
    show_on(display, width=60, height=9, force_terminal=True, color_system=None)
    base, _ = make_sweep()
    points = [base.jobs[0].point.model_copy(update={"seed": seed}) for seed in range(50)]
    display.start(Plan(jobs=[Job(point=point, repeat=0) for point in points], skipped=[], done=[]), MEMBERS)
    display.progress(display.ledger.jobs[0], message())
    lines = drawn(display).splitlines()
    assert len(lines) <= 9 and max(map(len, lines)) <= 60
    assert "and 48 more points" in lines[-1]


def test_colour_is_left_out_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = {}
    for wanted in ("", "1"):
        monkeypatch.setenv("NO_COLOR", wanted)
        display = Live()
        show_on(display, force_terminal=True, color_system="standard")
        display.start(make_sweep()[0], MEMBERS)
        looks[wanted] = drawn(display)
    colour = re.compile(r"\x1b\[(?:\d+;)*3\d")
    assert colour.search(looks[""]) and not colour.search(looks["1"])


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    display = Quiet()
    screen = show_on(display)
    run_through(display)
    display.show("a table", path=Path("run"))
    assert screen.getvalue() == "" and capsys.readouterr() == ("", "")


def test_events_are_one_object_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").write_text("")
    display = Events()
    run_through(display)
    display.show("a table", path=tmp_path)
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert [event["event"] for event in events] == [
        "prepare",
        "skipped",
        "start",
        *["progress", "launch"] * 4,
        "report",
    ]
    start, progress, last, report = events[2], events[3], events[-2], events[-1]
    assert (start["launches"], start["ranks"], start["hosts"], start["skipped"]) == (4, 2, 1, 1)
    assert (progress["step"], progress["steps"], progress["loss"], progress["tokens_per_second"]) == (
        5,
        13,
        4.5,
        2048.0,
    )
    assert (last["status"], last["rank"], last["phase"], last["message"]) == (
        "failed",
        1,
        "measure",
        "RuntimeError: a reason",
    )
    assert events[8]["tokens_per_second_interval"][0] < events[8]["tokens_per_second"]
    assert report["outcomes"] == {"ok": 3, "failed": 1} and report["html"] == str(tmp_path / "report.html")
    assert [event["seconds"] for event in events] == sorted(event["seconds"] for event in events)


@pytest.mark.parametrize(("output", "kind"), [("json", Events), ("quiet", Quiet), ("auto", Display)])
def test_the_display_follows_the_options_and_the_terminal(output: str, kind: type) -> None:
    assert type(choose_display(output)) is kind


def test_a_terminal_gets_the_live_view_and_a_dumb_one_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert type(choose_display("auto")) is Live
    monkeypatch.setenv("TERM", "dumb")
    assert type(choose_display("auto")) is Display


def test_launches_that_are_added_count_in_the_total(capfd: pytest.CaptureFixture[str]) -> None:
    point = Point(model="tiny", world_size=1)
    jobs = [Job(point=point, repeat=repeat) for repeat in range(3)]
    records = [make_record([make_rank(step_seconds=[9.0, 1.0])], repeat=repeat) for repeat in range(3)]
    member = Member(rank=0, host="a", pid=1, cores=[0], cgroup_cpu_quota=None)
    with Display() as display:
        display.start(Plan(jobs=jobs[:1], skipped=[], done=[]), [member])
        display.finish_job(jobs[0], records[0])
        display.extend(jobs[1:], "1 point not yet known to ± 2 %")
        for job, record in zip(jobs[1:], records[1:], strict=True):
            display.finish_job(job, record)
        assert (display.ledger.done, len(display.ledger.jobs)) == (3, 3)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "1 launches on 1 rank on 1 host"
    assert lines[1].startswith("[1/1] ")
    assert lines[2].startswith("1 point not yet known to ± 2 %: 2 more launches")
    assert [line[:5] for line in lines[3:]] == ["[2/3]", "[3/3]"]


def test_a_reader_who_leaves_ends_nothing(tmp_path: Path) -> None:
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    process = subprocess.Popen([sys.executable, "-c", SPEAK, str(tmp_path / "proof")], **pipes)
    process.stdout.close()
    process.stderr.close()
    process.stdin.close()
    assert process.wait(patience.SECONDS) == 3
    assert (tmp_path / "proof").read_text() == "went on"
