"""A run in the forms that other programs read: each is parsed again, and its figures are those of the summary."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as read_by_prometheus

from hvbench.analysis.formats import NAMES
from hvbench.analysis.formats.catalogue import FORMATS, write_formats
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.estimates import summary_rows
from hvbench.cli import run as run_command
from hvbench.records.store import RunFolder

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
MLLOG = re.compile(r":::MLLOG (\{.*\})")


@pytest.fixture(scope="module")
def run() -> Run:
    folder = RunFolder(REFERENCE / "convergence")
    return Run(folder.read_records()[0], folder.read_run())


def test_the_command_line_knows_all_formats() -> None:
    assert tuple(FORMATS) == NAMES


@pytest.mark.parametrize("read", [text_string_to_metric_families, read_by_prometheus])
def test_openmetrics_are_read_by_prometheus_own_library(read: object, run: Run) -> None:
    families = {family.name: family for family in read(FORMATS["openmetrics"]["openmetrics.prom"](run))}
    rows = {row["point_id"]: row for row in summary_rows(run)}
    for name in ("tokens_per_second", "step_seconds_median", "final_validation_loss"):
        for end in ("", "_low", "_high"):
            samples = families[f"hvbench_{name}{end}"].samples
            assert {sample.labels["point_id"] for sample in samples} == set(rows)
            for sample in samples:
                assert sample.value == rows[sample.labels["point_id"]][f"{name}{end}"]
                assert sample.labels["suite"] == "convergence" and sample.labels["precision"] in ("fp32", "bf16")
    (launches,) = families["hvbench_launches"].samples
    assert (launches.labels["status"], launches.value) == ("ok", 12.0)


def test_benchmarks_have_values_and_intervals(run: Run) -> None:
    rows = summary_rows(run)
    bencher = json.loads(FORMATS["bencher"]["bencher.json"](run))
    smaller, bigger = (json.loads(render(run)) for render in FORMATS["github-action-benchmark"].values())
    for row in rows:
        name = f"convergence/{row['point_id']}"
        assert bencher[name]["tokens-per-second"] == {
            "value": row["tokens_per_second"],
            "lower_value": row["tokens_per_second_low"],
            "upper_value": row["tokens_per_second_high"],
        }
        (rate,) = (entry for entry in bigger if entry["name"] == f"{name} tokens_per_second")
        (step,) = (entry for entry in smaller if entry["name"] == f"{name} step_seconds_median")
        assert rate["value"] == row["tokens_per_second"] and rate["unit"] == "tokens/s" and "n = 3" in rate["extra"]
        assert step["value"] == row["step_seconds_median"] and " to " in step["range"]


def test_mlperf_s_events_are_in_order_and_whole(run: Run) -> None:
    lines = FORMATS["mlperf"]["mlperf.log"](run).splitlines()
    events = [json.loads(MLLOG.fullmatch(line)[1]) for line in lines]
    launches: dict[tuple[str, int], list[dict]] = {}
    for event in events:
        launches.setdefault((event["metadata"]["point_id"], event["metadata"]["repeat"]), []).append(event)
    assert set(launches) == {(record.point_id, record.repeat) for record in run.records}
    for record in run.records:
        mine = launches[record.point_id, record.repeat]
        keys = [event["key"] for event in mine]
        assert keys[0] == "init_start" and keys[-1] == "run_stop" and keys.count("run_start") == 1
        assert mine[-1]["metadata"]["status"] == "success"
        times = [event["time_ms"] for event in mine]
        assert times == sorted(times)
        losses = [event["value"] for event in mine if event["key"] == "eval_error"]
        assert len(losses) == len(record.ranks[0].evaluations) == keys.count("eval_start")


def test_a_label_cannot_break_a_line(run: Run) -> None:
    strange = run.records[0].model_copy(update={"suite": 'a"b\\c'})
    text = FORMATS["openmetrics"]["openmetrics.prom"](Run([strange]))
    families = list(text_string_to_metric_families(text))
    assert {sample.labels["suite"] for family in families for sample in family.samples} == {'a"b\\c'}


def test_formats_are_written_beside_the_report(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [path.name for path in write_formats(tmp_path, run, ["bencher", "mlperf"])] == ["bencher.json", "mlperf.log"]
    assert run_command(["report", str(tmp_path), "--format", "csv"]) == 2
    assert "'openmetrics', 'bencher'" in capsys.readouterr().err
