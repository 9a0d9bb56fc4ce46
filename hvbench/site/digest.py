"""A run folder, or that of an A/B comparison -> its summary, with the tables of its page. What hvbench has found before is asked, not found again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hvbench.analysis.frame.metrics import METRICS
from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.report.facts import describe_missing, list_environment, list_failures, read_command, read_suite
from hvbench.analysis.report.page.headlines import split_sentence
from hvbench.analysis.report.page.render import name_versions
from hvbench.analysis.show.sentences import Sentence
from hvbench.analysis.show.text import clean_text
from hvbench.comparison.history import name_revisions, values_of
from hvbench.errors import MissingData
from hvbench.records.fingerprint import fingerprint_id, machine_facts
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.site.collect import Place
from hvbench.site.render import render_run_body
from hvbench.site.repeat import list_settings
from hvbench.site.summary import Failed, PointSummary, RunSummary, RunTables, Said

MAX_FAILURES = 100  # that a run's page lists
MAX_PROBLEMS = 20  # files that are no records: named
UNKNOWN = "unknown machine"


def read_run(place: Place) -> tuple[Run, list[str]]:
    """The run at a place, and a line for each file that is no record; raises UsageError, and MissingData where it has none."""
    folder = RunFolder(place.path)
    request = folder.read_run()
    records, problems = folder.read_records()
    if not records:
        raise MissingData(f"holds no readable record{f': {problems[0]}' if problems else ''}")
    return Run(records, request, folder=place.name), problems


def digest_run(place: Place, run: Run, problems: Sequence[str]) -> RunSummary:
    """All that the pages need of a run."""
    newest = max(run.records, key=lambda record: record.started_at)
    failures = list_failures(run)
    script_revision = clean_text(name_revisions(run.records), limit=100)
    return RunSummary(
        id=place.id,
        name=clean_text(place.name),
        suite=clean_text(read_suite(run), limit=80) or "a suite without a name",
        question=clean_text(str(run.request.get("question") or ""), limit=500),
        command=read_command(run) or "",
        created_at=clean_text(str(run.request.get("created_at") or ""), limit=40),
        began=show_time(str(run.request.get("created_at") or ""), else_=newest.started_at),
        machine=name_machine(newest.environment),
        fingerprint=fingerprint_id(newest),
        fingerprints=sorted({fingerprint_id(record) for record in run.records}),
        facts=machine_facts(newest),
        hosts=sorted({clean_text(rank.host, limit=80) for record in run.records for rank in record.ranks})[:20],
        software=name_versions(list_environment(run.records)),
        revision=script_revision or name_own_revisions(run.records),
        script_revision=script_revision,
        settings=list_settings(newest.measure),
        launches=len(run.records),
        statuses=dict(Counter(run.points["status"])),
        missing=describe_missing(run),
        answer=[say(sentence) for sentence in find_answer(run).headlines],
        failures=[
            Failed(
                point_id=clean_text(one.point_id),
                launch=one.launch,
                status=clean_text(one.status, limit=40),
                reason=clean_text(one.reason, limit=300),
            )
            for one in failures[:MAX_FAILURES]
        ],
        more_failures=max(0, len(failures) - MAX_FAILURES),
        problems=list_problems(problems, place),
        points=digest_points(run),
    )


def digest_tables(place: Place, run: Run) -> RunTables:
    """The tables of a run's report."""
    return RunTables(id=place.id, body=render_run_body(run))


def say(sentence: Sentence) -> Said:
    """A sentence in the parts that a page shows."""
    parts = split_sentence(sentence.text)
    return Said(claim=parts.claim, figures=parts.figures, more=list(parts.more), command=parts.command)


def digest_points(run: Run) -> dict[str, PointSummary]:
    """Point -> how its launches ended, and each metric that all of its `ok` launches have."""
    values: dict[str, dict[str, list[float]]] = {}
    for metric in METRICS:
        for point_id, found in values_of(run.records, run.points, metric).items():
            values.setdefault(point_id, {})[metric.name] = found
    statuses: dict[str, Counter[str]] = {}
    for point_id, status in zip(run.points["point_id"], run.points["status"], strict=True):
        statuses.setdefault(point_id, Counter())[status] += 1
    points = {record.point_id: record.point for record in run.records}
    return {
        key: PointSummary(point=point, statuses=dict(statuses[key]), values=values.get(key, {}))
        for key, point in points.items()
    }


def list_problems(problems: Sequence[str], place: Place) -> list[str]:
    """A line for each file that is no record, named from its run on; of many the first, and how many more there are."""
    lines = [clean_text(line.replace(f"{place.path}/", ""), limit=300) for line in problems[:MAX_PROBLEMS]]
    more = len(problems) - len(lines)
    return [*lines, f"and {more:,} more files that are no records"] if more else lines


def name_machine(environment: Mapping[str, Any]) -> str:
    """`AMD EPYC, 2 cores, 24 GiB`: hardware alone, in the same words however a machine was started or is called."""
    gpu = environment.get("gpu")
    cores, memory = environment.get("cpu_cores"), environment.get("memory_bytes")
    words = [
        str(environment.get("cpu_model") or ""),
        f"{cores} core{'s' * (cores != 1)}" if type(cores) is int else "",
        f"{memory / 2**30:.0f} GiB" if type(memory) is int and 0 < memory < 2**60 else "",
        str(gpu.get("model") or "") if isinstance(gpu, Mapping) else "",
    ]
    return clean_text(", ".join(filter(None, words))) or UNKNOWN


def name_own_revisions(records: Sequence[Record]) -> str:
    """The revisions of hvbench that a run's launches state, or else the digests of its source."""
    found = {
        str(fact): None
        for record in records
        if (fact := record.environment.get("hvbench_revision") or record.environment.get("hvbench_source_digest"))
    }
    return clean_text(", ".join(found), limit=100)


def show_time(text: str, *, else_: str = "") -> str:
    """`2026-11-27 08:34`, UTC, of an ISO 8601 time; of another one where it is none, and nothing where that is none either."""
    for each in (text, else_):
        try:
            return datetime.fromisoformat(each).astimezone(UTC).strftime("%Y-%m-%d %H:%M")
        except (ValueError, OverflowError):
            continue
    return ""
