"""The report: what it says on top, that its links hold, and that it is the same for the same records."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from markupsafe import escape

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.markdown import render_report
from hvbench.analysis.report.write import write_report
from hvbench.analysis.topics.throughput.fastest import list_fastest
from hvbench.errors import StorageError
from hvbench.records.record import Outcome
from tests.unit.sample_records import (
    make_convergence,
    make_launch,
    make_rank,
    make_record,
    make_red_stamp,
    make_stamp,
)

RUN = {"suite": "example", "question": "Which is faster?", "command": "hvbench sweep example --np 2"}
FRAMEWORKS = ("pytorch", "tensorflow")


def both(*, repeats: int = 1):
    return [make_launch({"framework": name}, repeat=repeat) for name in FRAMEWORKS for repeat in range(repeats)]


def report_of(records, run=RUN) -> str:
    return render_report(Run(records, run), plots={})


def with_losses(*losses: list[float | None]) -> list:
    """One launch a framework, with these losses."""
    ranks = [make_rank(step_seconds=[0.1] * len(values), loss=values) for values in losses]
    return [make_record([rank], framework=name, world_size=1) for name, rank in zip(FRAMEWORKS, ranks, strict=True)]


def stamped(records, make=make_stamp) -> list:
    """The records with the stamp of a check before the sweep."""
    return [
        record.model_copy(
            update={"parity": make("pytorch" if record.point.framework == "tensorflow" else "tensorflow")}
        )
        for record in records
    ]


def test_links_and_paths_hold(tmp_path) -> None:
    paths = write_report(tmp_path, Run(make_convergence(), RUN))
    assert all(path.stat().st_size for path in paths)
    report = (tmp_path / "report.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", report)
    assert len(links) == 8
    assert all((tmp_path / link).is_file() for link in links)
    assert {path.relative_to(tmp_path).as_posix() for path in paths} >= {"report.md", "tables/launches.csv"}
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_the_same_records_give_the_same_files(tmp_path) -> None:
    first = write_report(tmp_path / "a", Run(both(), RUN))
    second = write_report(tmp_path / "b", Run(reversed(both()), RUN))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_frameworks_that_never_met_are_named_on_top() -> None:
    pytorch, tensorflow = both()
    lost = tensorflow.model_copy(update={"outcome": Outcome(status="oom", message="no memory"), "ranks": []})
    report = report_of([pytorch, lost])
    assert report.index("No configuration ended in ok in more than one framework") < report.index("## ")


def test_more_ranks_than_cores_is_said_on_top() -> None:
    crowded = make_record([make_rank(rank, step_seconds=[1.0, 1.0]) for rank in range(3)], environment={"cpu_cores": 2})
    report = report_of([crowded])
    assert report.index("> 3 ranks shared the 2 cores of a host") < report.index("## ")


def test_one_framework_needs_no_agreement() -> None:
    assert "the same work" not in report_of([make_launch({"framework": "pytorch"})])


def test_agreement_is_told_with_its_figures() -> None:
    alike = report_of(stamped(with_losses([5.0, 4.9], [5.0, 4.9])))
    assert "did the same work in this run" in alike and "fp32 0.0e+00" in alike
    assert "rank0/update/final_norm.gain 4.0e-06, allowed 1e-05" in alike and "| proven |" in alike
    assert "not compare" not in alike


def test_a_red_stamp_is_told_across_the_top_and_in_the_tables() -> None:
    records = stamped(with_losses([5.0, 4.9], [5.0, 4.9]), make_red_stamp)
    report = report_of(records)
    banner = next(line for line in report.splitlines() if line.startswith("> "))
    assert "NOT proven to do the same work" in banner and report.index(banner) < report.index("## ")
    assert "rank0/gradient/block0.mlp.up.weight 1.0e+00, allowed 1e-06" in banner
    speeds = report[report.index("## Throughput") : report.index("## Convergence")]
    assert speeds.count("| ok, NOT the same work |") == 2
    assert report.count("| not proven (rank0/gradient/block0.mlp.up.weight 1.0e+00, allowed 1e-06) |") == 2


def test_the_parity_table_is_a_file_and_left_out_where_nothing_was_checked(tmp_path) -> None:
    write_report(tmp_path / "a", Run(stamped(both()), RUN))
    assert "launches_stamped" in (tmp_path / "a" / "tables" / "parity.csv").read_text()
    write_report(tmp_path / "b", Run(both(), RUN))
    assert not (tmp_path / "b" / "tables" / "parity.csv").exists()


def test_fastest_point_with_its_interval() -> None:
    records = [
        make_launch({"framework": "pytorch", "micro_batch_size": batch}, repeat=repeat)
        for batch in (2, 32)
        for repeat in range(3)
    ]
    report = report_of(records)
    line = next(line for line in report.splitlines() if line.startswith("- **PyTorch**"))
    assert "micro-batch 32" in line and "n = 3" in line and "95 % interval" in line
    assert "Faster than the other, by " in line


def test_the_page_says_what_is_fastest_in_the_same_words(tmp_path) -> None:
    records = [
        make_launch({"framework": "pytorch", "micro_batch_size": batch}, repeat=repeat)
        for batch in (2, 32)
        for repeat in range(3)
    ]
    records += [make_record(status="oom", framework="tensorflow", micro_batch_size=batch) for batch in (2, 32)]
    write_report(tmp_path, Run(records, RUN))
    page, report = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    best, lost = list_fastest(Run(records))
    assert f"- **PyTorch**: {best.where}, at {best.rate} tokens/s ({best.interval}). {best.note}" in report
    assert all(text and escape(text) in page for text in (best.rate, best.where, best.interval, best.note))
    assert "- **TensorFlow**: no launch ended in `ok`." in report and not lost.rate


def test_one_launch_claims_no_order() -> None:
    records = [make_launch({"framework": "pytorch", "micro_batch_size": batch}) for batch in (4, 8)]
    assert "no interval). The highest rate measured; one launch of a point ranks nothing." in report_of(records)


def test_failures_skips_and_missing_launches_are_listed() -> None:
    records = [*both(), make_record(status="timeout", phase="measure", message="no step for 60 s", micro_batch_size=4)]
    keys = [f"{record.point_id}.r0" for record in records]
    run = {**RUN, "jobs": [*keys, "another.r0"], "skipped": [{"point_id": "p", "reason": "fp16 is emulated"}]}
    report = report_of(records, run)
    assert "**timeout** (measure: no step for 60 s)" in report
    assert "- p: **skipped** (fp16 is emulated)" in report
    assert "1 of 4 planned launches have no record" in report


def test_no_records_make_a_report_that_says_so(tmp_path) -> None:
    write_report(tmp_path, Run([], {}))
    assert "No launch has left a record yet" in (tmp_path / "report.md").read_text()


def test_hostile_strings_are_escaped() -> None:
    hostile = "<img src=x>|\n\n# x\n```"
    run = {"suite": hostile, "question": hostile, "command": f"a\n\n{hostile}", "skipped": [{"point_id": hostile}, 3]}
    records = [make_record(status="failed", message=hostile, environment={hostile: hostile})]
    report = report_of(records, run)
    assert not re.search(r"^# x|^```", report, flags=re.MULTILINE)
    lines = [line for line in report.splitlines() if "<img" in line]
    assert len(lines) == 1 and lines[0].startswith("    a")  # the command, in its indented block


def test_environment_shows_what_differs() -> None:
    records = [make_record(repeat=i, status="oom", environment={"cpu": {"cores": i}, "kernel": "6"}) for i in range(2)]
    report = report_of(records)
    assert "| cpu cores | 0; 1 |" in report
    assert "| kernel | 6 |" in report


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path) -> None:
    (tmp_path / "plots").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(tmp_path, Run(both(), RUN))


def test_the_package_itself_imports_nothing_heavy() -> None:
    code = "import sys, hvbench.analysis; sys.exit(bool({'pandas', 'matplotlib', 'numpy', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
