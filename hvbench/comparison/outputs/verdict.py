"""A verdict as text, Markdown for a pull request, JUnit XML, JSON, and GitHub's annotations.

What records and folders say is untrusted: it is cleaned and escaped where it is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from hvbench.analysis.show.cells import NOT_AVAILABLE
from hvbench.analysis.show.text import clean_text, escape_markdown
from hvbench.comparison.gate.judgement import Check, Judgement, Kind
from hvbench.comparison.gate.rule import LEVELS, LOOKS
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
# The level of GitHub's annotation of a check; none for a pass.
ANNOTATIONS = {
    Kind.NOT_COMPARABLE: "error",
    Kind.REGRESSION: "error",
    Kind.CRASH: "error",
    Kind.MISSING: "error",
    Kind.INCONCLUSIVE: "warning",
    Kind.ACCEPTED: "notice",
}


def render_text(judgement: Judgement) -> str:
    """For a terminal or a log: the verdict first."""
    lines = [clean_text(judgement.headline(), limit=500), ""]
    for check in judgement.checks:
        lines.append(f"  {check.kind:14} {clean_text(check.place + check.text, limit=400)}")
    lines += ["", *(clean_text(f"note: {note}", limit=400) for note in judgement.notes), NEXT[judgement.verdict]]
    return "\n".join(lines).rstrip() + "\n"


def render_markdown(judgement: Judgement) -> str:
    """For a comment on a pull request: verdict, what was decided and on what, then all figures, folded."""
    blocks = [f"### {MARKS[judgement.verdict]} hvbench: {escape_markdown(judgement.headline(), limit=500)}"]
    if NEXT[judgement.verdict]:
        blocks.append(NEXT[judgement.verdict])
    decided = [check for check in judgement.checks if check.change]
    if decided:
        header = ("", "point", "figure", "A", "B", "worse by", "interval", "n", "p (sign-flip)")
        lines = [f"| {' | '.join(header)} |", "| :--- | :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        lines += [f"| {' | '.join(_cells(check))} |" for check in decided]
        blocks.append("\n".join(lines))
    reasons = [check for check in decided if check.kind is not Kind.PASS]
    others = [check for check in judgement.checks if not check.change]
    items = [
        *(
            f"{MARKS[check.kind]} {escape_markdown(check.place + check.text, limit=500)}"
            for check in [*reasons, *others]
        ),
        *(escape_markdown(note, limit=400) for note in judgement.notes),
    ]
    if items:
        blocks.append("\n".join(f"- {item}" for item in items))
    if judgement.comparison and judgement.comparison.points:
        everything = comparisons.render_markdown(judgement.comparison).replace("## ", "#### ")
        blocks.append(f"<details><summary>All figures</summary>\n\n{everything}\n</details>")
    return "\n\n".join(blocks) + "\n"


def _cells(check: Check) -> list[str]:
    change, decision = check.change, check.decision
    worse = NOT_AVAILABLE if decision.estimate is None else f"{decision.estimate:+.1%}".replace("%", " %")
    interval = (
        NOT_AVAILABLE if decision.low is None else f"{decision.low:+.1%} to {decision.high:+.1%}".replace("%", " %")
    )
    p_value = decision.sign_flip_p_value
    cells = [
        MARKS[check.kind], check.label, f"{change.metric.title} ({change.metric.unit})",
        comparisons.show_estimate(change.a, change), comparisons.show_estimate(change.b, change), worse, interval,
        str(decision.pairs or min(change.ratio.n_a, change.ratio.n_b)), NOT_AVAILABLE if p_value is None else f"{p_value:.2g}",
    ]  # fmt: skip
    return [escape_markdown(cell) for cell in cells]


def render_json(judgement: Judgement) -> str:
    """For programs."""
    checks = [
        {
            "kind": check.kind, "point": check.label, "point_id": check.point_id, "metric": check.metric, "text": check.text,
            "decision": check.decision and {
                **{name: value for name, value in vars(check.decision).items() if name != "sign_flip_p_value"},
                "pairs": check.decision.pairs, "sign_flip_p_value": check.decision.sign_flip_p_value,
            },
        }
        for check in judgement.checks
    ]  # fmt: skip
    content = {
        "schema_version": 1, "verdict": judgement.verdict, "exit_code": judgement.exit_code, "headline": judgement.headline(),
        "suite": judgement.suite, "against": judgement.against, "launches": judgement.launches, "findings": checks,
        "notes": judgement.notes, "looks": LOOKS, "levels": LEVELS,
    }  # fmt: skip
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def render_junit(judgement: Judgement, *, timestamp: str, hostname: str) -> str:
    """JUnit XML: a test case a check; a regression is a failure, what broke or is missing an error, the rest skipped.

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
    for check in judgement.checks or (Check(kind=Kind.MISSING, label="", metric="points", text="nothing to judge"),):
        case = TestCase(
            clean_text(check.metric), classname=f"{suite.package}.{clean_text(check.label or 'all')}", time=0.0
        )
        text, code = clean_text(check.text, limit=1000), check.exit_code
        if code == 1:
            case.result = [Failure(text, check.kind.value)]
        elif code in (4, 5):
            case.result = [Error(text, check.kind.value)]
        elif check.kind is not Kind.PASS:
            case.result = [Skipped(f"{check.kind}: {text}")]
        suite.add_testcase(case)
    suite.append(SystemOut(clean_text(judgement.headline(), limit=1000)))
    suite.append(SystemErr(""))
    suite.update_statistics()
    document = JUnitXml()
    document.append(suite)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{document.tostring().decode()}\n"


def render_annotations(judgement: Judgement) -> Iterator[str]:
    """GitHub's workflow commands, one line each: errors for what fails the gate, warnings for what it cannot tell."""
    for check in judgement.checks:
        level = ANNOTATIONS.get(check.kind)
        if level:
            yield f"::{level} title={_escape(f'hvbench: {check.kind}', is_property=True)}::{_escape(check.place + check.text)}"


def _escape(text: str, *, is_property: bool = False) -> str:
    """As the runner's own toolkit escapes data and properties of a workflow command."""
    line = clean_text(text, limit=500).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return line.replace(":", "%3A").replace(",", "%2C") if is_property else line
