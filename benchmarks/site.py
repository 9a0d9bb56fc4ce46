"""How long does `hvbench site` take over 10,000 records, how large is the largest file, and what does building again cost?

    python benchmarks/site.py
    python benchmarks/site.py --runs 200x50 1x10000 --reference

`RxL` means R runs of L records each, made of one real record of two ranks: six launches a point at most, four suites, two machines, and
from the middle run on 6 % longer steps. `--reference` copies the published runs beside them. Each build is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report_growth import make_record  # noqa: E402

RUNS = ("200x50", "1x10000")
LAUNCHES = 6  # of a point
SUITES = 4
STEPS = 30  # timed, of each of two ranks
SLOWER = 1.06  # steps of the second half of the runs
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
MACHINES = ({"cpu_model": "Example A", "cpu_cores": 2}, {"cpu_model": "Example B", "cpu_cores": 8})


def write_results(folder: Path, *, of: Path, runs: int, records: int) -> None:
    """`runs` runs with `records` records each below `folder`, made of the first record of the run `of`."""
    template = json.loads(min((of / "records").glob("*.json")).read_text())
    request = json.loads((of / "run.json").read_text()) | {"jobs": [], "skipped": []}
    generator = random.Random(0)
    for number in range(runs):
        suite, machine = f"made{number % SUITES}", MACHINES[number // SUITES % len(MACHINES)]
        begun = BEGUN + timedelta(hours=6 * number)
        path = folder / suite / begun.strftime("%Y%m%dT%H%M%SZ")
        (path / "records").mkdir(parents=True)
        (path / "run.json").write_text(json.dumps(request | {"suite": suite, "created_at": begun.isoformat()}))
        template["environment"] |= machine | {"hvbench_revision": f"{number // (SUITES * 2):012x}"}
        for index in range(records):
            point, launch = divmod(index, LAUNCHES)
            record = make_record(template, number=point, launch=launch, steps=STEPS, random=generator)
            slow_down(record, by=SLOWER if number >= runs / 2 else 1.0)
            record["started_at"] = begun.isoformat()
            record["suite"] = suite
            (path / "records" / f"{record['point_id']}.r{launch}.json").write_text(json.dumps(record))


def slow_down(record: dict[str, Any], *, by: float) -> None:
    """Make every step of a record longer by a factor."""
    for rank in record["ranks"]:
        rank["step_seconds"] = [seconds * by for seconds in rank["step_seconds"]]


def time_build(results: Path, out: Path) -> tuple[float, float, str]:
    """Wall and processor seconds of `hvbench site`, and what it says; raises CalledProcessError unless it ends well."""
    command = [sys.executable, "-m", "hvbench", "site", str(results), "--out", str(out)]
    begun, before = time.perf_counter(), os.times()
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True
    )
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begun, spent, done.stdout.strip().rpartition("; ")[2]


def measure(runs: int, records: int, *, with_reference: bool) -> None:
    """Print one line: a first build, one where nothing has changed, and one where a run has come."""
    with tempfile.TemporaryDirectory() as folder:
        results, out = Path(folder) / "results", Path(folder) / "public"
        write_results(results, of=ROOT / "results" / "reference" / "quickstart", runs=runs, records=records)
        if with_reference:
            shutil.copytree(ROOT / "results" / "reference", results / "reference")
        first = time_build(results, out)
        again = time_build(results, out)
        newest = max(results.glob("made*/*"), key=lambda path: path.name)
        description = json.loads((newest / "run.json").read_text()) | {"created_at": "2027-01-01T00:00:00+00:00"}
        more = shutil.copytree(newest, newest.with_name("20270101T000000Z"))
        (more / "run.json").write_text(json.dumps(description))
        one_more = time_build(results, out)
        files = [path for path in out.rglob("*") if path.is_file() and ".cache" not in path.parts]
        largest = max(files, key=lambda path: path.stat().st_size)
        largest_bytes, total_bytes = largest.stat().st_size, sum(path.stat().st_size for path in files)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    cells = [f"{wall:6.1f} s ({spent:.1f} s of processors)" for wall, spent, _ in (first, again, one_more)]
    print(f"{runs:,} runs of {records:,} records{', published runs' if with_reference else ''}")
    print(f"  first build {cells[0]}, nothing changed {cells[1]}, one run more {cells[2]}: {one_more[2]}")
    print(
        f"  {len(files):,} files, {total_bytes / 1e6:.1f} MB; the largest {largest.relative_to(out)}, {largest_bytes / 1e6:.2f} MB; "
        f"a process had at most {memory:,.0f} MiB",
        flush=True,
    )


def read_size(text: str) -> tuple[int, int]:
    """`200x50` as (runs, records)."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text}: not RUNSxRECORDS, such as 200x50")
    return int(found[1]), int(found[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=read_size, nargs="+", default=[read_size(text) for text in RUNS], help="RxL")
    parser.add_argument("--reference", action="store_true", help="with the published runs")
    arguments = parser.parse_args()
    for runs, records in arguments.runs:
        measure(runs, records, with_reference=arguments.reference)


if __name__ == "__main__":
    main()
