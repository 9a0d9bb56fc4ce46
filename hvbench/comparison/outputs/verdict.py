"""A judgement as text, Markdown for a pull request, JUnit XML, JSON, and GitHub's annotations.

What records and folders say is untrusted: it is cleaned and escaped where it is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from hvbench.analysis.show.cells import NOT_AVAILABLE
from hvbench.analysis.show.text import clean_text, escape_markdown
from hvbench.comparison.gate.judge import EXIT_CODES, Finding, Judgement
from hvbench.comparison.gate.rule import LEVEL, LOOKS
from hvbench.comparison.outputs import comparison as comparisons

MARKS = {
    "regression": "🔴", "crash": "💥", "missing": "❔", "not comparable": "🚫", "inconclusive": "🟡", "accepted": "⚪", "pass": "🟢",
}  # fmt: skip
NEXT = {
    "regression": "Look at the figures below; if the change is meant, accept it in the policy with a reason and an end.",
    "inconclusive": "Not a failure and not a pass: run it again on a quieter machine, with a larger budget or longer steps.",
    "not comparable": "Launch both sides on one machine: hvbench ab.",
    "crash": "Some launches did not end in ok: see their logs.",
    "missing": "Something that the comparison needs is not there.",
    "pass": "",
}


def render_text(judgement: Judgement) -> str:
    """For a terminal or a log: the verdict first."""
    lines = [clean_text(judgement.headline(), limit=500), ""]
    for finding in judgement.findings:
        lines.append(f"  {finding.kind:14} {clean_text(_place(finding) + finding.text, limit=400)}")
    lines += ["", *(clean_text(f"note: {note}", limit=400) for note in judgement.notes), NEXT[judgement.verdict]]
    return "\n".join(lines).rstrip() + "\n"


def render_markdown(judgement: Judgement) -> str:
    """For a comment on a pull request: verdict, what was decided and on what, then all figures, folded."""
    blocks = [f"### {MARKS[judgement.verdict]} hvbench: {escape_markdown(judgement.headline(), limit=500)}"]
    if NEXT[judgement.verdict]:
        blocks.append(NEXT[judgement.verdict])
    decided = [finding for finding in judgement.findings if finding.change]
    if decided:
        header = (
            "",
            "point",
            "figure",
            "A",
            "B",
            "worse by",
            f"{(1 - LEVEL) * 100:.4g} % interval",
            "n",
            "p (sign-flip)",
        )
        lines = [f"| {' | '.join(header)} |", "| :--- | :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        lines += [f"| {' | '.join(_cells(finding))} |" for finding in decided]
        blocks.append("\n".join(lines))
    others = [finding for finding in judgement.findings if not finding.change]
    reasons = [finding for finding in decided if finding.kind not in ("pass",)]
    told = [
        f"- {MARKS[each.kind]} {escape_markdown(_place(each) + each.text, limit=500)}" for each in [*reasons, *others]
    ]
    told += [f"- {escape_markdown(note, limit=400)}" for note in judgement.notes]
    if told:
        blocks.append("\n".join(told))
    if judgement.comparison and judgement.comparison.points:
        everything = comparisons.render_markdown(judgement.comparison).replace("## ", "#### ")
        blocks.append(f"<details><summary>All figures</summary>\n\n{everything}\n</details>")
    return "\n\n".join(blocks) + "\n"


def _cells(finding: Finding) -> list[str]:
    change, decision = finding.change, finding.decision
    worse = NOT_AVAILABLE if decision.estimate is None else f"{decision.estimate:+.1%}".replace("%", " %")
    interval = (
        NOT_AVAILABLE if decision.low is None else f"{decision.low:+.1%} to {decision.high:+.1%}".replace("%", " %")
    )
    p_value = decision.sign_flip_p_value
    cells = [
        MARKS[finding.kind], finding.label, f"{change.metric.title} ({change.metric.unit})",
        comparisons.show_estimate(change.a, change), comparisons.show_estimate(change.b, change), worse, interval,
        str(decision.pairs or min(change.ratio.n_a, change.ratio.n_b)), NOT_AVAILABLE if p_value is None else f"{p_value:.2g}",
    ]  # fmt: skip
    return [escape_markdown(cell) for cell in cells]


def render_json(judgement: Judgement) -> str:
    """For programs."""
    findings = [
        {
            "kind": finding.kind, "point": finding.label, "point_id": finding.point_id, "metric": finding.metric, "text": finding.text,
            "decision": finding.decision and {
                **{name: value for name, value in vars(finding.decision).items() if name != "sign_flip_p_value"},
                "pairs": finding.decision.pairs, "sign_flip_p_value": finding.decision.sign_flip_p_value,
            },
        }
        for finding in judgement.findings
    ]  # fmt: skip
    content = {
        "schema_version": 1, "verdict": judgement.verdict, "exit_code": judgement.exit_code, "headline": judgement.headline(),
        "suite": judgement.suite, "against": judgement.against, "launches": judgement.launches, "findings": findings,
        "notes": judgement.notes, "looks": LOOKS,
    }  # fmt: skip
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def render_junit(judgement: Judgement, *, timestamp: str, hostname: str) -> str:
    """JUnit XML: a test case a finding; a regression is a failure, what broke or is missing an error, the rest skipped.

    Valid by the strict schema of Apache Ant's reports, which asks for more than CI servers do. `timestamp`: ISO 8601
    to the second, without a zone.
    """
    from junitparser import Attr, Error, Failure, JUnitXml, Skipped, SystemErr, SystemOut, TestCase, TestSuite

    class Suite(TestSuite):
        id = Attr("id")
        package = Attr("package")

    suite = Suite(clean_text(f"hvbench gate {judgement.suite}"))
    suite.id, suite.package = "0", clean_text(f"hvbench.{judgement.suite}")
    suite.timestamp, suite.hostname = timestamp, clean_text(hostname)
    suite.add_property("against", clean_text(judgement.against))
    suite.add_property("launches", str(judgement.launches))
    for finding in judgement.findings or (Finding(kind="missing", label="", metric="points", text="nothing to judge"),):
        case = TestCase(
            clean_text(finding.metric), classname=f"{suite.package}.{clean_text(finding.label or 'all')}", time=0.0
        )
        text, code = clean_text(finding.text, limit=1000), EXIT_CODES[finding.kind]
        if code == 1:
            case.result = [Failure(text, finding.kind)]
        elif code in (4, 5):
            case.result = [Error(text, finding.kind)]
        elif finding.kind != "pass":
            case.result = [Skipped(f"{finding.kind}: {text}")]
        suite.add_testcase(case)
    suite.append(SystemOut(clean_text(judgement.headline(), limit=1000)))
    suite.append(SystemErr(""))
    suite.update_statistics()
    document = JUnitXml()
    document.append(suite)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{document.tostring().decode()}\n"


def render_annotations(judgement: Judgement) -> Iterator[str]:
    """GitHub's workflow commands, one line each: errors for what fails the gate, warnings for what it cannot tell."""
    for finding in judgement.findings:
        code = EXIT_CODES[finding.kind]
        level = (
            "error"
            if code in (1, 4, 5)
            else "warning"
            if code == 3
            else "notice"
            if finding.kind == "accepted"
            else None
        )
        if level:
            yield f"::{level} title={_escape(f'hvbench: {finding.kind}', is_property=True)}::{_escape(_place(finding) + finding.text)}"


def _escape(text: str, *, is_property: bool = False) -> str:
    """As the runner's own toolkit escapes data and properties of a workflow command."""
    line = clean_text(text, limit=500).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return line.replace(":", "%3A").replace(",", "%2C") if is_property else line


def _place(finding: Finding) -> str:
    return f"{finding.label}: " if finding.label else ""
