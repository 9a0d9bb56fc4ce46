"""Pages of the HTML report to look at: real rendering of invented records, hostile ones included."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.contents import draw_figures
from hvbench.analysis.report.page.render import render_page
from hvbench.records.record import Record
from tests.unit.sample_records import make_quickstart, make_record

HOSTILE = "</script><script>document.title='taken'</script><img src=http://example.org/x onerror=alert(1)>\u202e\x00"


def write_page(path: Path, records: list[Record], run: dict | None = None, *, with_charts: bool = True) -> Path:
    """`report.html` alone: the plots' files are tested elsewhere, and charts take most of a page's time."""
    request = run or {"suite": "example", "question": "Which is faster?", "command": "hvbench sweep example --np 2"}
    one = Run(records, request)
    path.write_text(render_page(one, plots=draw_figures(one) if with_charts else []), encoding="utf-8")
    return path


def draw_all(records: list[Record]) -> dict[str, Figure]:
    """File stem -> figure of every plot that a report of these records has."""
    return {name: figure for part in draw_figures(Run(records)) for name, figure in part.figures.items()}


def make_failed() -> list[Record]:
    lost = [make_record(status=status, phase="measure", message=HOSTILE, model="small", micro_batch_size=64, precision=precision)
            for status, precision in (("oom", "fp32"), ("timeout", "bf16"))]  # fmt: skip
    return [*make_quickstart()[8:16], *lost]
