"""Records and `run.json` -> what a report lists besides tables: the request, the failures, the environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.quality import describe_crowding, describe_sources
from hvbench.analysis.show.cells import show_value
from hvbench.analysis.show.render import join_constants
from hvbench.analysis.show.tables import describe_constants
from hvbench.analysis.stats.estimates import describe_end, list_rows
from hvbench.analysis.topics.parity.stamps import verdict_of
from hvbench.analysis.topics.throughput.pairs import name_script
from hvbench.analysis.topics.wire import find_large_losses
from hvbench.records.fingerprint import describe_script_revision
from hvbench.records.record import Record
from hvbench.spec.script import ScriptPoint

MAX_VALUES = 4  # of one field of the environment; more are counted
MAX_COMMAND = 4000  # characters
SETTINGS_OF_SCRIPTS = (
    "warmup_steps", "steps", "repeats", "turns", "seed_per_repeat", "target_loss", "stop_at_target", "patience", "precision_target",
    "budget_seconds", "timeout_seconds",
)  # fmt: skip
TRACED = (
    "Horovod's timeline was recorded in this run, which slows every step.",
    "Read the timelines (timelines/), and do not publish the timings.",
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A launch that did not end in `ok`, or a point that was skipped (`launch` is None then). Texts are not escaped."""

    point_id: str
    launch: int | None
    status: str
    reason: str


def list_warnings(run: Run) -> list[tuple[str, str]]:
    """What must be known before any figure is read: titles and texts, not escaped."""
    verdict = verdict_of(run)
    traced = [TRACED] if was_traced(run.records) else []
    unproven = [(verdict.title, verdict.text)] if verdict and not verdict.is_proven else []
    lost = [("Not all of the text was read.", line) for line in list_text_left_out(run.records)]
    lost += [("Not all of a checkpoint was continued.", line) for line in list_lost_states(run.records)]
    said = [*describe_crowding(run.records), *describe_sources(run.records), *run.derive(find_large_losses)]
    return [*traced, *unproven, *lost, *(("", line) for line in said)]


def list_text_left_out(records: Iterable[Record]) -> list[str]:
    """A line for each text of which files were left out: how much was read, how much was not, and why."""
    lines: dict[str, None] = {}
    for record in records:
        facts = record.environment
        if why := facts.get("text_left_out"):
            files, size_bytes, lost = (facts.get(key) for key in ("text_files", "text_bytes", "text_bytes_left_out"))
            lines[
                f"{facts.get('data_source')}: {files} files with {size_bytes} bytes were read, {lost} bytes were not: {why}."
            ] = None
    return list(lines)


def list_lost_states(records: Iterable[Record]) -> list[str]:
    """A line for each checkpoint from which ranks could not take what they had each for itself."""
    return list(dict.fromkeys(str(why) for record in records if (why := record.environment.get("lost_state"))))


def was_traced(records: Iterable[Record]) -> bool:
    """Whether any worker recorded Horovod's timeline."""
    settings = [record.environment.get("horovod_settings") for record in records]
    return any(isinstance(each, Mapping) and "HOROVOD_TIMELINE" in each for each in settings)


def list_request(run: Run) -> dict[str, str]:
    """When it was asked and ran, with what settings, and what all points share; only what is known."""
    points, request = run.points, run.request
    started = sorted(points["started_at"]) if len(points) else []
    facts = {
        "asked at": request.get("created_at"),
        "launches": f"{len(points)}, from {started[0]} to {started[-1]}" if started else "none",
        "hvbench": request.get("hvbench_version"),
        "script": "; ".join(list_scripts(run)),
        "measured": ", ".join(f"{key} {show_value(value)}" for key, value in list_settings(run).items()),
        "same for all points": join_constants(describe_constants(points)) or None,
    }
    return {name: str(value) for name, value in facts.items() if value}


def list_settings(run: Run) -> dict[str, Any]:
    """How it was measured, as far as it is known; of scripts only what hvbench decides of theirs."""
    measure = run.request.get("measure")
    known = measure if isinstance(measure, Mapping) else {}
    return {
        key: value
        for key, value in known.items()
        if value is not None and (not run.is_of_scripts or key in SETTINGS_OF_SCRIPTS)
    }


def list_scripts(run: Run) -> list[str]:
    """Which files of people's own training were run: `train.py at 4f2c…, files 93ab…`."""
    found = {}
    for record in run.records:
        if isinstance(record.point, ScriptPoint):
            source = describe_script_revision(record)
            found[name_script(record.point.command) + (f" at {source}" if source else "")] = None
    return list(found)


def read_command(run: Run) -> str | None:
    """The command that was run, as one printable line."""
    if not run.request.get("command"):
        return None
    return "".join(c if c.isprintable() else " " for c in str(run.request["command"])[:MAX_COMMAND])


def read_suite(run: Run) -> str:
    """The name of the suite, from the request or else the records; not cleaned."""
    recorded = run.records[0].suite if run.records else "a run without a name"
    return str(run.request.get("suite") or recorded)


def list_failures(run: Run) -> list[Failure]:
    """Every launch that is neither `ok` nor ended early by a search, then every point that was skipped."""
    failures = [
        Failure(
            point_id=row["point_id"], launch=int(row["repeat"]), status=row["status"], reason=describe_end(row) or ""
        )
        for row in list_rows(run.points[~run.points["status"].isin(("ok", "stopped"))])
    ]
    skipped = run.request.get("skipped")
    for one in skipped if isinstance(skipped, list) else []:
        if isinstance(one, Mapping):
            name, reason = (str(one.get(key, "?")) for key in ("point_id", "reason"))
            failures.append(Failure(point_id=name, launch=None, status="skipped", reason=reason))
    return failures


def describe_missing(run: Run) -> str | None:
    """One sentence about planned launches without a record, if there are any."""
    jobs = run.request.get("jobs")
    if not isinstance(jobs, list):
        return None
    recorded = {f"{record.point_id}.r{record.repeat}" for record in run.records}
    missing = sum(1 for job in jobs if str(job) not in recorded)
    return f"{missing} of {len(jobs)} planned launches have no record: the run has not finished." if missing else None


def list_environment(records: Iterable[Record]) -> dict[str, str]:
    """Field -> the value that all records share, or the values that differ."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        fixed = {key: value for key, value in record.environment.items() if not key.startswith("load_")}
        for key, value in _flatten(fixed):  # the load differs every time: it stays in the records
            values.setdefault(key, {})[value] = None
        for rank in record.ranks:
            for key in ("host", "device", "threads"):
                values.setdefault(f"rank {key}", {})[str(getattr(rank, key))] = None
    return {
        key: "; ".join(sorted(found)) if len(found) <= MAX_VALUES else f"{len(found)} different values"
        for key, found in sorted(values.items())
    }


def _flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix} {key}".strip())
    elif isinstance(value, (list, tuple)):
        yield prefix, ", ".join(str(inner) for inner in value)
    elif value is not None:
        yield prefix, str(value)
