"""Tables for papers and notebooks, and a run as a DataFrame."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import hvbench
from hvbench.analysis.frame.columns import POINT_COLUMNS
from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show import exports
from hvbench.analysis.show.exports import render_latex, require_parquet, write_parquet
from hvbench.analysis.show.panels import drawing_settings, own_style
from hvbench.analysis.topics.throughput.table import throughput_table
from hvbench.errors import UsageError
from hvbench.records.store import RunFolder
from tests.unit.sample_records import make_quickstart, make_record

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "convergence"


def test_latex_escapes_every_text() -> None:
    lost = make_record(status="failed", message=r"100 % of \input{/etc/passwd} & $x_1$ #~^")
    latex = render_latex(throughput_table(Run([lost, *make_quickstart()[:2]])))
    assert r"100 \% of \textbackslash{}input\{/etc/passwd\} \& \$x\_1\$ \#\textasciitilde{}\textasciicircum{}" in latex
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 4  # the header and three points
    assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1
    assert r"\label{tab:throughput}" in latex


def test_parquet_holds_the_values_of_the_frame(tmp_path: Path) -> None:
    points = point_frame([make_record(status="oom", message="no memory"), *make_quickstart()[:3]])
    path = write_parquet(points, tmp_path / "launches.parquet")
    again = pd.read_parquet(path)
    assert list(again.columns) == list(points.columns)
    for name in ("tokens_per_second", "step_seconds_median", "peak_rss_bytes", "message"):
        assert again[name].isna().tolist() == points[name].isna().tolist()
        assert again[name].dropna().tolist() == points[name].dropna().tolist()


def test_without_pyarrow_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^Parquet needs pyarrow: pip install 'hvbench\[parquet\]'$"):
        require_parquet()


def test_a_run_is_loaded_with_documented_columns() -> None:
    frame = hvbench.load(REFERENCE)
    assert list(frame.columns) == [column.name for column in POINT_COLUMNS]
    assert len(frame) == len(RunFolder(REFERENCE).read_records()[0])
    assert frame.attrs["units"]["tokens_per_second"] == "tokens/s"
    assert set(frame.attrs["meanings"]) == set(frame.columns) and all(frame.attrs["meanings"].values())
    assert (frame.groupby("framework")["tokens_per_second"].mean() > 0).all()


def test_loading_says_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        hvbench.load(tmp_path)
    folder = RunFolder(tmp_path)
    folder.open_for_writing()
    folder.write_run({"suite": "example"})
    folder.write_record(make_quickstart()[0])
    folder.close()
    (tmp_path / "records" / "broken.json").write_text("{")
    with pytest.raises(UsageError, match=r"broken\.json: not JSON"):
        hvbench.load(tmp_path)
    assert len(hvbench.load(tmp_path, skip_unreadable=True)) == 1


def test_importing_hvbench_loads_no_pandas() -> None:
    code = "import sys, hvbench; assert hvbench.load; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_style_of_ones_own_is_on_top_and_ends_with_the_report(tmp_path: Path) -> None:
    (tmp_path / "own.mplstyle").write_text("font.size: 21\naxes.grid: False\n")
    before = drawing_settings()
    with own_style(tmp_path / "own.mplstyle"):
        inside = drawing_settings()
    assert inside["font.size"] == 21 and inside["axes.grid"] is False
    assert inside["svg.hashsalt"] == before["svg.hashsalt"]
    assert drawing_settings() == before


@pytest.mark.parametrize("content", ["no.such.setting: 1\n", "font.size: much\n", None])
def test_a_style_that_cannot_be_used_is_one_line(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "own.mplstyle"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match="own.mplstyle: not a matplotlib style: ") as caught, own_style(path):
        pass
    assert "\n" not in str(caught.value)
