"""Runs kept to compare later ones with: one a suite and fingerprint, in `results/baselines/FINGERPRINT/SUITE/`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvbench.comparison.compare import compare
from hvbench.comparison.gate.checks import Terms
from hvbench.comparison.gate.judge import judge_baseline
from hvbench.comparison.gate.judgement import Judgement
from hvbench.comparison.gate.policy import Policy
from hvbench.comparison.result import LaunchSet
from hvbench.comparison.runs import BASELINES, load_launches, require_name
from hvbench.errors import MissingData, NotComparable, StorageError, UsageError
from hvbench.records.fingerprint import find_differences, fingerprint_id, machine_facts
from hvbench.records.record import Record
from hvbench.records.store import RECORD_NAME, RunFolder
from hvbench.spec.messages import shorten

OWN_FILES = ("run.json", ".lock", "report.md", "report.html")  # of a kept run, whose report is of its own records


MOST = 8  # differences that a message names


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One stored run."""

    fingerprint: str
    suite: str
    path: Path
    created_at: str
    points: int
    launches: int
    facts: dict[str, Any]  # of the fingerprint


def find_fingerprint(records: list[Record] | tuple[Record, ...], *, where: str) -> str:
    """The one fingerprint of a run's measured launches; raises MissingData or UsageError."""
    found = {fingerprint_id(record): machine_facts(record) for record in records if record.is_measured}
    if not found:
        raise MissingData(f"{where}: no launch ended in ok with a timed step")
    if len(found) > 1:
        first, second, *_ = found.values()
        raise UsageError(
            f"{where}: its launches ran on {len(found)} different machines or sets of software; a baseline has one "
            f"({show_differences(find_differences(first, second), 'one', 'another')})"
        )
    return next(iter(found))


def show_differences(differences: Mapping[str, tuple[Any, Any]], a: str, b: str) -> str:
    """`FACT: A …, B …` for the first few; what only one side states has no such line."""
    fields = "; ".join(
        f"{name}: {a} {shorten(one)}, {b} {shorten(other)}" for name, (one, other) in list(differences.items())[:MOST]
    )
    return fields or "facts that only one of them states"


def set_baseline(run: Path, *, root: Path) -> Baseline:
    """Keep the records of `run` as the baseline of its suite and fingerprint, in place of an older one.

    Raises UsageError, MissingData or StorageError.
    """
    suite = require_name(str(RunFolder(run).read_run().get("suite")))
    launches, problems = load_launches(run, name=suite)
    if problems:
        raise UsageError(f"{problems[0]}: a baseline needs every record to be readable")
    path = root / BASELINES / find_fingerprint(tuple(launches.records), where=str(run)) / suite
    if path.exists() and path.samefile(run):
        raise UsageError(f"{run}: is the baseline already")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{suite}-"))
        shutil.copy2(run / "run.json", aside / "run.json", follow_symlinks=False)
        (aside / "records").mkdir()
        for record in sorted((run / "records").glob("*.json")):
            shutil.copy2(record, aside / "records" / record.name, follow_symlinks=False)
        aside.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{suite}-old-"))
            path.rename(old / suite)
            aside.rename(path)
            move_what_is_not_ours(old / suite, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            aside.rename(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from None
    return read_baseline(path)


def move_what_is_not_ours(old: Path, new: Path) -> None:
    """Move what a user put into the older baseline into the new one; what hvbench wrote there stays. Raises OSError."""
    for folder, _, names in os.walk(old):
        inner = Path(folder).relative_to(old)
        for name in names:
            is_ours = name in OWN_FILES if inner == Path() else inner == Path("records") and RECORD_NAME.fullmatch(name)
            if not is_ours:
                (new / inner).mkdir(parents=True, exist_ok=True)
                (old / inner / name).rename(new / inner / name)


def read_baseline(path: Path) -> Baseline:
    """One stored baseline; raises UsageError or MissingData."""
    launches, _ = load_launches(path, name=path.name)
    good = [record for record in launches.records if record.outcome.status == "ok"] or list(launches.records)
    return Baseline(
        fingerprint=path.parent.name,
        suite=path.name,
        path=path,
        created_at=str(RunFolder(path).read_run().get("created_at", "")),
        points=len({record.point_id for record in launches.records}),
        launches=len(launches.records),
        facts=machine_facts(good[0]),
    )


def list_baselines(root: Path) -> tuple[list[Baseline], list[str]]:
    """All stored baselines, by suite and fingerprint, and a line for each that cannot be read."""
    paths = sorted(
        (root / BASELINES).glob("*/*/run.json"), key=lambda path: (path.parent.name, path.parent.parent.name)
    )
    kept, problems = [], []
    for path in paths:
        if not path.parent.name.startswith("."):
            try:
                kept.append(read_baseline(path.parent))
            except (UsageError, MissingData) as error:
                problems.append(str(error))
    return kept, problems


def judge_against_baseline(
    run: Path, *, root: Path, policy: Policy, today: str, baseline: Path | None = None
) -> tuple[Judgement, list[str]]:
    """Judge the run at `run` against the stored baseline of its suite and fingerprint, or against the run `baseline`.

    Raises UsageError; MissingData without a baseline; NotComparable when there is one of another fingerprint only.
    """
    suite = require_name(str(RunFolder(run).read_run().get("suite")))
    now, problems = load_launches(run, name="now")
    path = baseline or find_baseline(now, suite=suite, root=root, where=str(run))
    before, unreadable = load_launches(path, name="baseline")
    comparison = compare([before, now])
    repeats: dict[str, int] = {}
    for record in now.records:
        repeats[record.point_id] = repeats.get(record.point_id, 0) + (record.outcome.status == "ok")
    terms = Terms(policy=policy, suite=suite, against=f"the baseline {path}", today=today)
    judgement = judge_baseline(comparison, terms, launches=min(repeats.values()))
    return judgement, problems + unreadable


def find_baseline(now: LaunchSet, *, suite: str, root: Path, where: str) -> Path:
    """Folder of the baseline with the fingerprint of `now`; raises MissingData or NotComparable.

    One that an earlier hvbench recorded states fewer facts: it counts where all agree that both state, the newest first
    of those that state most.
    """
    fingerprint = find_fingerprint(tuple(now.records), where=where)
    path = root / BASELINES / fingerprint / suite
    if path.is_dir():
        return path
    kept, problems = list_baselines(root)
    others = [one for one in kept if one.suite == suite]
    if not others:
        unreadable = f" that can be read ({problems[0]})" if problems else ""
        raise MissingData(
            f"no baseline of {shorten(suite)}{unreadable} below {root / BASELINES}; keep one with hvbench baseline set RUN"
        )
    facts = machine_facts(next(record for record in now.records if record.is_measured))
    differences = {one.path: find_differences(one.facts, facts) for one in others}
    agreeing = [one for one in others if one.facts and not differences[one.path]]
    if agreeing:
        return max(agreeing, key=lambda one: (len(set(one.facts) & set(facts)), one.created_at)).path
    nearest = show_differences(min(differences.values(), key=len), "baseline", "now")
    raise NotComparable(
        f"no baseline of {suite} has this fingerprint ({fingerprint}); the nearest differs in {nearest}"
    )
