"""Folders of results to make sites of: real run folders with invented records, among them broken and hostile ones."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hvbench.cli import run as run_command_line
from hvbench.comparison.ab.pairs import AbRun, Launched
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from tests.unit.sample_pages import HOSTILE
from tests.unit.test_compare import launches

BEGUN = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE = {"cpu_model": "Example One", "cpu_cores": 2, "memory_bytes": 8 * 2**30}
TWO = {"cpu_model": "Example Two", "cpu_cores": 4, "memory_bytes": 16 * 2**30}
REVISIONS = ("aaaaaaaaaaaa", "bbbbbbbbbbbb")
RUNS, STEP_AT = 9, 5  # of suite `mine` on the first machine; from that run on steps are longer
FRAMEWORKS = ("pytorch", "tensorflow")


def build_site(results: Path, out: Path, *more: str) -> int:
    """The exit code of `hvbench site`."""
    return run_command_line(("site", str(results), "--out", str(out), *more))


def write_run(path: Path, records: list[Record], *, day: int, **request: Any) -> Path:
    """A run folder."""
    folder = RunFolder(path)
    folder.open_for_writing()
    about = {"suite": path.parent.name, "question": "Which is faster?", "jobs": [], "skipped": []}
    folder.write_run(about | {"created_at": (BEGUN + timedelta(days=day)).isoformat()} | request)
    for record in records:
        folder.write_record(record)
    folder.close()
    return path


def make_records(
    *, seed: int, factor: float = 1.0, environment: dict[str, Any] = ONE, repeats: int = 3
) -> list[Record]:
    """A point a framework."""
    return [
        record
        for number, framework in enumerate(FRAMEWORKS)
        for record in launches(
            repeats=repeats, seed=10 * seed + number, factor=factor * (1 - 0.1 * number), environment=environment, framework=framework
        )
    ]  # fmt: skip


def write_mine(results: Path, number: int) -> Path:
    """Run `number` of suite `mine` on the first machine."""
    is_slow = number >= STEP_AT
    environment = ONE | {"hvbench_revision": REVISIONS[is_slow]}
    records = make_records(seed=number, factor=1.2 if is_slow else 1.0, environment=environment)
    return write_run(results / "mine" / f"202603{number + 1:02}T120000Z", records, day=number)


def write_ab(results: Path) -> Path:
    """Six pairs of the two revisions, of which the second is slower."""
    path = results / "ab" / "mine" / "20260320T120000Z"
    path.mkdir(parents=True)
    done = [Launched(pair=pair, arm=arm, control_seconds=[], seconds=3.0, exit_code=0) for pair in range(6) for arm in "ab"]  # fmt: skip
    arms = {arm: {"description": f"revision {revision}"} for arm, revision in zip("ab", REVISIONS, strict=True)}
    run = AbRun(
        path=path, suite="mine", arms=arms, orders=["ab"] * 6, seed=1, command="hvbench ab mine", launches=done,
        created_at=(BEGUN + timedelta(days=19)).isoformat(),
    )  # fmt: skip
    for each in done:
        factor, revision = (1.2, REVISIONS[1]) if each.arm == "b" else (1.0, REVISIONS[0])
        records = make_records(seed=30 + each.pair, factor=factor, environment=ONE | {"hvbench_revision": revision}, repeats=1)  # fmt: skip
        write_run(run.folder(each.pair, each.arm), records, day=19)
    run.write()
    return path


def write_wide(results: Path, *, points: int) -> Path:
    """A run of many points, a launch each: more than one page has rows."""
    records = [
        record
        for number in range(points)
        for record in launches(repeats=1, seed=number, environment=ONE, learning_rate=1e-4 * (1 + number))
    ]
    return write_run(results / "wide" / "20260310T120000Z", records, day=9)


def make_results(results: Path) -> Path:
    """Nine runs with a step, another machine's, an A/B comparison, a hostile run, a copy, and what cannot be read."""
    for number in range(RUNS):
        write_mine(results, number)
    write_ab(results)
    write_run(results / "copied" / "mine" / "20260304T120000Z", make_records(seed=50, environment=TWO), day=3)
    shutil.copytree(results / "mine" / "20260301T120000Z", results / "baselines" / "0123456789ab" / "mine")
    failed = launches(repeats=1, status="oom", message=HOSTILE, environment={"cpu_model": HOSTILE, "host": HOSTILE})
    hostile = {"suite": HOSTILE, "question": HOSTILE, "command": HOSTILE, "skipped": [{"point_id": HOSTILE, "reason": HOSTILE}]}  # fmt: skip
    write_run(
        results / "strange" / "<b>&'\"", [*failed, *launches(repeats=2, framework="tensorflow")], day=4, **hostile
    )
    for name, content in {"no json": "{", "no object": "[]", "another": json.dumps({"schema_version": 99})}.items():
        (results / "broken" / name / "records").mkdir(parents=True)
        (results / "broken" / name / "run.json").write_text(content)
    empty = write_run(results / "broken" / "no record", [], day=5)
    (empty / "records" / "x.r0.json").write_text("{}")
    (results / "linked").symlink_to(results / "mine")
    return results
