"""Seconds that `hvbench compare` takes, by number of records: up to 10,000 records with a million samples.

    python benchmarks/compare_growth.py --records 1250 2500 5000 10000

Two runs are made of one real record of two ranks: half of the records each, six launches a point, fifty timed steps a launch.
Each comparison is a process of its own, timed from its start to its end.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hvbench.spec.point import Point  # noqa: E402

LAUNCHES = 6  # of a point, on each side
STEPS = 50  # of each of the two ranks
PER_STEP = ("data_seconds", "loss", "gradient_norm", "learning_rate", "loss_scale", "step_tokens")


def make_record(template: dict[str, Any], *, seed: int, launch: int, random: random.Random) -> dict[str, Any]:
    """`template` as launch number `launch` of another point, with fresh step times."""
    record = copy.deepcopy(template)
    point = Point.model_validate({**record["point"], "seed": seed})
    steps = record["measure"]["warmup_steps"] + STEPS
    record |= {"point": point.model_dump(), "point_id": point.point_id, "repeat": launch}
    record["measure"]["steps"] = STEPS
    for rank in record["ranks"]:
        typical = sorted(rank["step_seconds"])[len(rank["step_seconds"]) // 2]
        rank["step_seconds"] = [typical * random.lognormvariate(0.0, 0.1) for _ in range(steps)]
        for name in (each for each in PER_STEP if each in rank):
            rank[name] = [rank[name][-1]] * steps
    return record


def write_run(folder: Path, template: dict[str, Any], run: dict[str, Any], *, records: int, seed: int) -> None:
    """A run folder with so many records."""
    generator = random.Random(seed)
    (folder / "records").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run))
    for number in range(records):
        record = make_record(template, seed=number // LAUNCHES, launch=number % LAUNCHES, random=generator)
        (folder / "records" / f"{record['point_id']}.r{record['repeat']}.json").write_text(json.dumps(record))


def time_compare(folder: Path) -> float:
    """Seconds of `hvbench compare a b --format json` in `folder`; raises CalledProcessError unless it ends well."""
    command = [sys.executable, "-m", "hvbench", "compare", "a", "b", "--format", "json", "--out", "out.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--records", type=int, nargs="+", default=[1250, 2500, 5000, 10_000], help="of both runs together"
    )
    parser.add_argument(
        "--of", type=Path, default=ROOT / "results" / "reference" / "quickstart", help="run to take a record of"
    )
    arguments = parser.parse_args()
    template = json.loads(min((arguments.of / "records").glob("*.json")).read_text())
    run = json.loads((arguments.of / "run.json").read_text())
    for records in arguments.records:
        with tempfile.TemporaryDirectory() as folder:
            for seed, name in enumerate("ab"):
                write_run(Path(folder) / name, template, run, records=records // 2, seed=seed)
            seconds = time_compare(Path(folder))
            size = sum(path.stat().st_size for path in Path(folder).rglob("*.json"))
        print(
            f"{records:6} records, {records * STEPS * 2:9,} samples, {size / 1e6:6.1f} MB: {seconds:6.2f} s, {seconds / records * 1e3:.2f} ms a record"
        )


if __name__ == "__main__":
    main()
