"""Comparisons and verdicts as text: the verdict first, nothing unescaped, and formats that their readers take."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from hvbench.cli import run as run_command_line
from hvbench.comparison.compare import compare
from hvbench.comparison.gate.checks import Terms
from hvbench.comparison.gate.judge import judge_pairs
from hvbench.comparison.gate.judgement import EXIT_CODES, Judgement
from hvbench.comparison.gate.policy import Policy, parse_policy
from hvbench.comparison.outputs import comparison as comparisons
from hvbench.comparison.outputs import verdict
from hvbench.comparison.result import Comparison
from tests.unit.test_baseline import keep
from tests.unit.test_compare import launches, parts, side

HOSTILE = "<script>|`x`\n::error::[a](http://b) @everyone =1+1 \x1b[31m\u202e $y$"


def changed(**changes: object) -> Comparison:
    b = launches(factor=1.1, seed=1) + launches(micro_batch_size=16, status="failed", message=HOSTILE)
    return compare(
        [side("old", launches() + launches(micro_batch_size=16), job="x"), side("new", b, job="x")], **changes
    )


def judged(comparison: Comparison | None = None, **changes: object) -> Judgement:
    return judge_pairs(
        comparison or compare([side("a", launches(), job="x"), side("b", launches(factor=1.1, seed=1), job="x")]),
        Terms(policy=Policy(), suite="mine", against="arm a", today="2026-01-01"), pairs=8, **changes,
    )  # fmt: skip


def junit(judgement: Judgement) -> str:
    pytest.importorskip("junitparser")
    return verdict.render_junit(judgement, timestamp="2026-01-01T00:00:00", hostname="host")


@pytest.mark.parametrize("style", ["text", "markdown"])
def test_the_verdict_comes_first_then_what_changed_most_then_everything(style: str) -> None:
    text = comparisons.RENDERERS[style](changed())
    titles = ["verdict", "what changed most", "everything", "on one side only, or ended otherwise"]
    places = [text.lower().index(title) for title in titles]
    assert places == sorted(places)
    assert "new against old, step time of 1 points: 1 worse, 0 better, 0 the same (within 3 %), 0 unclear." in text
    assert re.search(r"1\.\d+ .*1\.0\d+ to 1\.1\d+ .*slower", text)  # ratio, its interval, its word


def test_hostile_text_stays_text_everywhere() -> None:
    comparison = changed()
    judgement = judged(comparison)
    for text in (comparisons.render_markdown(comparison), verdict.render_markdown(judgement)):
        assert "<script" not in text and "@everyone" not in text and "](http:" not in text
    for text in (comparisons.render_text(comparison), verdict.render_text(judgement), junit(judgement)):
        assert not {"\x1b", "\u202e"} & set(text) and "\n::error" not in text
    lines = list(verdict.render_annotations(judgement))
    assert lines and all(line.startswith("::") and line.isprintable() and line.count("\n") == 0 for line in lines)
    assert not any(line.startswith("::") for line in verdict.render_text(judgement).splitlines())


def test_csv_has_a_row_a_point_and_metric_with_raw_values() -> None:
    rows = list(csv.DictReader(io.StringIO(comparisons.render_csv(changed()))))
    row = next(row for row in rows if row["metric"] == "step_seconds_median")
    assert float(row["ratio"]) == pytest.approx(1.1, rel=0.02) and float(row["a"]) == pytest.approx(0.05, rel=0.02)
    assert float(row["ratio_low"]) < float(row["ratio"]) < float(row["ratio_high"]) and row["call"] == "worse"


def test_json_says_all_of_it() -> None:
    content = json.loads(comparisons.render_json(changed()))
    assert content["is_comparable"] and content["arms"] == ["old", "new"] and content["verdict"]
    assert [each["is_crash"] for each in content["missing"]] == [True]
    assert content["losses"][0]["is_outside"] is False
    assert content["mismatches"] == {}, "both sides did the same work"


def test_figures_of_different_machines_come_with_the_fields_first_and_no_words() -> None:
    a, b = launches(environment={"cpu_model": "One"}), launches(factor=2.0, environment={"cpu_model": "Two"})
    text = comparisons.render_text(compare([side("a", a), side("b", b)]))
    assert text.splitlines()[2:4] == [
        "  Not comparable: the fingerprints differ, so no change is called a regression.", '  cpu_model: A "One", B "Two"'
    ]  # fmt: skip
    assert not {"slower", "faster", "worse", "better"} & set(
        re.findall(r"\w+", text.replace("worse by", "").rpartition("B/A:")[0])
    )


def test_a_markdown_comment_has_a_table_and_folds_the_rest() -> None:
    text = verdict.render_markdown(judged())
    assert text.startswith("### 🔴 hvbench: REGRESSION (mine, 8 pairs against arm a)")
    table = [line for line in text.partition("<details>")[0].splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in table} == {8} and len(table) == 4  # header, rule, step median, peak memory
    assert text.count("<details>") == text.count("</details>") == 1


def test_a_regression_names_the_part_of_the_step_that_grew_most() -> None:
    a, b = launches(ablation=parts(0.005)), launches(factor=1.2, seed=1, ablation=parts(0.015))
    judgement = judged(compare([side("a", a, job="x"), side("b", b, job="x")]))
    (found,) = judgement.of("regression")
    assert found.text.endswith("; the exposed communication grew most, by 10 ms (100 % of all that grew)")


def test_a_figure_that_the_policy_names_and_a_launch_lacks_is_missing() -> None:
    a, b = launches(ablation=parts(0.005)), launches(seed=1)
    comparison = compare([side("a", a, job="x"), side("b", b, job="x")])
    named = parse_policy("[metrics.exposed_communication_seconds]\ngate = true\n", where="p")
    verdicts = [
        judge_pairs(comparison, Terms(policy=policy, suite="mine", against="a", today="2026-01-01"), pairs=8)
        for policy in (Policy(), named)
    ]
    assert [each.exit_code for each in verdicts] == [0, 5]
    assert verdicts[1].headline().endswith(": exposed communication: not every launch has it")


# The schema of Apache Ant's reports, which CI servers share: element -> its required attributes, the other ones, and its
# children in order.
SCHEMA = {
    "testsuites": (set(), set(), ["testsuite"]),
    "testsuite": (
        {"name", "tests", "failures", "errors", "time", "timestamp", "hostname", "package", "id"}, {"skipped"},
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "properties": (set(), set(), ["property"]),
    "property": ({"name", "value"}, set(), []),
    "testcase": ({"name", "classname", "time"}, set(), ["failure", "error", "skipped"]),
    "failure": ({"type"}, {"message"}, []),
    "error": ({"type"}, {"message"}, []),
    "skipped": (set(), {"message"}, []),
    "system-out": (set(), set(), []),
    "system-err": (set(), set(), []),
}  # fmt: skip


def test_junit_counts_every_kind_where_ci_servers_look() -> None:
    root = ElementTree.fromstring(junit(judged(changed())))
    for element in root.iter():
        required, optional, children = SCHEMA[element.tag]
        assert required <= set(element.attrib) <= required | optional, element.attrib
        places = [children.index(child.tag) for child in element]
        assert places == sorted(places)
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "1")
    assert next(suite.iter("failure")).get("message").startswith("step time")


def test_annotations_are_errors_for_what_fails_and_warnings_for_what_is_unclear() -> None:
    assert [line.split()[0] for line in verdict.render_annotations(judged())] == ["::error"]
    unclear = compare([side("a", launches(), job="x"), side("b", launches(repeats=3), job="x")])
    assert {line.split()[0] for line in verdict.render_annotations(judged(unclear))} == {"::warning"}


def test_every_kind_has_a_mark_and_an_exit_code() -> None:
    assert set(verdict.MARKS) == set(EXIT_CODES) and set(verdict.NEXT) | {"accepted"} == set(EXIT_CODES)
    assert set(EXIT_CODES.values()) == {0, 1, 3, 4, 5}


def test_on_github_there_are_annotations_and_a_job_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for key in os.environ:
        if key.startswith(("HVBENCH_", "HOROVOD_", "OMPI_", "PMI_", "PMIX_", "GITHUB_")):
            monkeypatch.delenv(key)
    monkeypatch.chdir(tmp_path)
    a, b = keep("1", launches()), keep("2", launches(factor=1.1, seed=1))
    arguments = ("gate", b, "--baseline", a, "--fail-on-baseline")
    assert run_command_line(arguments) == 1 and "::error" not in capfd.readouterr().out
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert run_command_line(arguments) == 1
    assert "\n::error title=hvbench%3A regression::" in capfd.readouterr().out
    assert (tmp_path / "summary.md").read_text().startswith("### 🔴 hvbench: REGRESSION")


def test_a_file_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    a, b = keep("1", launches()), keep("2", launches())
    assert run_command_line(("compare", a, b, "--out", "no/such/folder.md")) == 5
    assert "cannot be written" in capfd.readouterr().err
