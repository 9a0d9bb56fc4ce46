"""What a sweep shows: as it grows, and when nobody reads it any more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hvbench.cli.display import Display
from hvbench.launch.placement import Member
from hvbench.plan import Job, Plan
from hvbench.spec import Point
from tests.unit.sample_records import make_rank, make_record

SPEAK = """
import sys
from pathlib import Path
from hvbench.cli.display import Display
display = Display()
sys.stdin.read()
with display:
    for number in range(3):
        display.prepare(f"line {number}")
display.show("a result")
Path(sys.argv[1]).write_text("went on")
raise SystemExit(3)
"""


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
        assert (display.bar.tasks[0].completed, display.bar.tasks[0].total) == (3, 3)
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
    assert process.wait(60) == 3
    assert (tmp_path / "proof").read_text() == "went on"
