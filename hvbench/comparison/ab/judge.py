"""The pairs of an A/B comparison -> what differs, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hvbench.analysis.frame.axes import OF_SCRIPTS
from hvbench.analysis.report.profiles import PERFETTO, find_traces
from hvbench.comparison.ab.pairs import AbRun, describe_launching, load_pairs, read_ab, read_controls
from hvbench.comparison.compare import compare
from hvbench.comparison.gate.checks import Terms
from hvbench.comparison.gate.judge import judge_pairs
from hvbench.comparison.gate.judgement import Judgement
from hvbench.comparison.gate.policy import Policy
from hvbench.comparison.result import Comparison, LaunchSet
from hvbench.records.fingerprint import SOFTWARE

TREATMENT = (
    *SOFTWARE,
    "threads",
    "controller",
    "framework_versions",
    "memory_limit_bytes",
)  # what arms may differ in; the machine they may not


def judge_run(run: AbRun, *, policy: Policy, today: str) -> tuple[Judgement, list[str]]:
    """The verdict over the complete pairs of a run, and a line for each unreadable record."""
    comparison, sets, problems = compare_pairs(run)
    against = f"arm a ({run.arms['a'].get('description', '')})"
    terms = Terms(policy=policy, suite=run.suite, against=against, today=today)
    controls, notes = read_controls(run, sets), [*run.notes, describe_launching(run), *describe_traces(run, sets)]
    judgement = judge_pairs(comparison, terms, pairs=run.pairs, controls=controls, notes=notes)
    return judgement, problems


def compare_pairs(run: AbRun) -> tuple[Comparison, list[LaunchSet], list[str]]:
    """Both arms of a run compared, their records, and a line for each unreadable one."""
    sets, problems = load_pairs(run)
    of_script = OF_SCRIPTS if run.is_script else ()  # another revision may be called otherwise
    comparison = compare(sets, ignore={*run.changed_fields, *of_script}, treatment=TREATMENT)
    return comparison, sets, problems


def describe_traces(run: AbRun, sets: Sequence[LaunchSet]) -> list[str]:
    """Where the first trace of each arm lies, if its script was profiled."""
    found = []
    for side in sets:
        traces = [
            str(run.folder(record.repeat, side.name) / trace)
            for record in side.records
            for rank in record.ranks
            if rank.profile
            for trace in find_traces(rank.profile)
        ]
        found += [f"arm {side.name}: {traces[0]}"] if traces else []
    return [f"steps after the timed ones were profiled, see them in {PERFETTO}: {'; '.join(found)}"] if found else []


def is_ab(path: Path) -> bool:
    """Whether `path` is the folder of an A/B comparison."""
    return (path / "ab.json").is_file()


def judge_folder(path: Path, *, policy: Policy, today: str) -> tuple[Judgement, list[str]]:
    """The verdict over the pairs kept at `path`; raises UsageError."""
    return judge_run(read_ab(path), policy=policy, today=today)
