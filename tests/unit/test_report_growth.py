"""The benchmark of a report's cost: its runs are real runs, and every stage that it times exists."""

from __future__ import annotations

from benchmarks import report_growth
from hvbench.records.store import RunFolder


def test_every_stage_is_found_where_it_is_called() -> None:
    found = {stage for stage, owner, name in report_growth.find_stages() if callable(getattr(owner, name))}
    assert found == set(report_growth.STAGES)


def test_a_run_has_so_many_records_of_so_many_steps_and_several_launches_a_point(tmp_path) -> None:
    of = report_growth.ROOT / "results" / "reference" / "quickstart"
    report_growth.write_run(tmp_path, of=of, records=5, steps=50, launches=2)
    records, problems = RunFolder(tmp_path).read_records()
    assert problems == [] and len(records) == 5
    assert len({record.point_id for record in records}) == 3
    assert {len(rank.step_seconds) - record.warmup_steps for record in records for rank in record.ranks} == {50}
