"""Pages of the HTML report to look at: real rendering of invented records, hostile ones included."""

from __future__ import annotations

from pathlib import Path

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.report.markdown import report_tables
from hvbench.analysis.report.page import render_page
from hvbench.analysis.topics.fastest import list_fastest
from hvbench.analysis.topics.findings import find_all
from hvbench.analysis.topics.plots import all_plots
from hvbench.analysis.topics.stamps import check_verdict
from hvbench.records.record import Record
from tests.unit.sample_records import make_quickstart, make_record

HOSTILE = "</script><script>document.title='taken'</script><img src=http://example.org/x onerror=alert(1)>\u202e\x00"


def write_page(path: Path, records: list[Record], run: dict | None = None, *, with_charts: bool = True) -> Path:
    """`report.html` alone: the plots' files are tested elsewhere, and charts take most of a page's time."""
    points, verdict = point_frame(records), check_verdict(records)
    page = render_page(
        points,
        tables=report_tables(points, records),
        figures=all_plots(records, points=points) if with_charts else {},
        records=records,
        run=run or {"suite": "example", "question": "Which is faster?", "command": "hvbench sweep example --np 2"},
        findings=find_all(points, verdict=verdict),
        fastest=list_fastest(points),
        verdict=verdict,
    )
    path.write_text(page, encoding="utf-8")
    return path


def make_failed() -> list[Record]:
    lost = [make_record(status=status, phase="measure", message=HOSTILE, model="small", micro_batch_size=64, precision=precision)
            for status, precision in (("oom", "fp32"), ("timeout", "bf16"))]  # fmt: skip
    return [*make_quickstart()[8:16], *lost]
