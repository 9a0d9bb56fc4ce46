"""How long does `hvbench report` take over how many records, and how large is its page? From hundreds of records to 10,000.

    python benchmarks/report_growth.py
    python benchmarks/report_growth.py --runs 300x50 10000x50 1x20000 --launches 1

Each run is made of one real record of two ranks: `--launches` launches a point, points that differ in framework, precision,
compression and learning rate. `RxS` means R records of S timed steps. Each report is a process of its own; its stages are
timed by replacing their functions, each without the stages within it, in processor seconds.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hvbench.spec.point import Point  # noqa: E402

RUNS = ("300x50", "1200x50", "5000x50", "10000x50", "2x20000")
PER_STEP = ("data_seconds", "loss", "gradient_norm", "learning_rate", "loss_scale", "step_tokens")
CHOICES = tuple(itertools.product(("pytorch", "tensorflow"), ("fp32", "bf16"), ("none", "fp16")))

# Stage -> the functions that are it, as MODULE:NAME. What none of them covers is start-up, imports and writing files.
STAGES = {
    "reading": ("hvbench.records.store:RunFolder.read_records",),
    "frame": ("hvbench.analysis.frame.frames:point_frame", "hvbench.analysis.frame.frames:step_frame"),
    "tables": ("hvbench.analysis.report.contents:list_tables",),
    "plots": ("hvbench.analysis.report.contents:draw_figures", "hvbench.analysis.show.panels:save"),
    "page": ("hvbench.analysis.report.page.render:render_page",),
    "texts": ("hvbench.analysis.report.write:render_tables", "hvbench.analysis.report.markdown:render_report"),
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one report took: seconds, and the bytes of its page."""

    wall_seconds: float
    processor_seconds: float
    stages: dict[str, float]  # processor seconds
    page_bytes: int


def make_record(
    template: dict[str, Any], *, number: int, launch: int, steps: int, random: random.Random
) -> dict[str, Any]:
    """`template` as one launch of point `number`, with fresh step times and a falling loss."""
    record = copy.deepcopy(template)
    framework, precision, compression = CHOICES[number % len(CHOICES)]
    learning_rate = 1e-4 * (1 + number // len(CHOICES))
    chosen = {
        "framework": framework,
        "precision": precision,
        "compression": compression,
        "learning_rate": learning_rate,
    }
    point = Point.model_validate(record["point"] | chosen)
    record |= {"point": point.model_dump(), "point_id": point.point_id, "repeat": launch}
    record["measure"]["steps"] = steps
    total = record["measure"]["warmup_steps"] + steps
    speed = random.lognormvariate(0.0, 0.02)
    for rank in record["ranks"]:
        typical = speed * sorted(rank["step_seconds"])[len(rank["step_seconds"]) // 2]
        rank["step_seconds"] = [typical * random.lognormvariate(0.0, 0.1) for _ in range(total)]
        for name in (name for name in PER_STEP if rank.get(name)):
            rank[name] = [rank[name][-1]] * total
        rank["loss"] = [3.0 + 5.0 / (1 + 0.05 * step) + random.gauss(0.0, 0.05) for step in range(total)]
    return record


def write_run(folder: Path, *, of: Path, records: int, steps: int, launches: int) -> None:
    """A run folder with `records` records of `steps` timed steps, made of the first record of the run `of`."""
    template = json.loads(min((of / "records").glob("*.json")).read_text())
    generator = random.Random(0)
    (folder / "records").mkdir(parents=True)
    (folder / "run.json").write_bytes((of / "run.json").read_bytes())
    for index in range(records):
        number, launch = divmod(index, launches)
        record = make_record(template, number=number, launch=launch, steps=steps, random=generator)
        (folder / "records" / f"{record['point_id']}.r{launch}.json").write_text(json.dumps(record))


# --- in the process that reports ---


class Stopwatch:
    """Processor seconds of each stage; a stage that calls another does not count the other's."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._stage, self._since = "", 0.0

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed as a part of `stage`."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            outer = self._switch(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch(outer)

        return timed

    def _switch(self, stage: str) -> str:
        now = time.process_time()
        if self._stage:
            self.seconds[self._stage] += now - self._since
        outer, self._stage, self._since = self._stage, stage, now
        return outer


def find_stages() -> Iterator[tuple[str, Any, str]]:
    """(stage, owner, attribute) of every function of STAGES, in every module of hvbench that imported it by name."""
    functions = []
    for stage, names in STAGES.items():
        for name in names:
            module, _, path = name.partition(":")
            owner: Any = importlib.import_module(module)
            *outer, attribute = path.split(".")
            owner = functools.reduce(getattr, outer, owner)
            functions.append((stage, owner, attribute, getattr(owner, attribute)))
    for stage, owner, attribute, function in functions:
        yield stage, owner, attribute
        for name, module in list(sys.modules.items()):
            if name.startswith("hvbench.") and module is not owner and vars(module).get(attribute) is function:
                yield stage, module, attribute


def report_timed(run: Path, out: Path) -> None:
    """`hvbench report RUN` in this process; the stages' seconds as JSON in `out`."""
    from hvbench.cli.display.report import write_report

    stopwatch = Stopwatch()
    for stage, owner, attribute in list(find_stages()):
        setattr(owner, attribute, stopwatch.wrap(stage, getattr(owner, attribute)))
    write_report(run)
    out.write_text(json.dumps(stopwatch.seconds))


# --- in the process that measures ---


def measure_report(folder: Path) -> Cost:
    """Report the run in `folder` in a process of its own; raises CalledProcessError unless it ends well."""
    out = folder / "stages.json"
    command = [sys.executable, __file__, "--report", str(folder), "--out", str(out)]
    begun = time.perf_counter()
    before = os.times()
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return Cost(
        wall_seconds=time.perf_counter() - begun,
        processor_seconds=after.children_user + after.children_system - before.children_user - before.children_system,
        stages=json.loads(out.read_text()),
        page_bytes=(folder / "report.html").stat().st_size,
    )


def read_size(text: str) -> tuple[int, int]:
    """`1200x50` as (records, steps)."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text}: not RECORDSxSTEPS, such as 1200x50")
    return int(found[1]), int(found[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs", type=read_size, nargs="+", default=[read_size(text) for text in RUNS], help="RECORDSxSTEPS"
    )
    parser.add_argument("--launches", type=int, default=6, help="of a point")
    parser.add_argument(
        "--of", type=Path, default=ROOT / "results" / "reference" / "quickstart", help="run to take a record of"
    )
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.report:
        report_timed(arguments.report, arguments.out)
        return
    print(
        f"{'records':>8} {'steps':>7} {'processor':>11} {'wall':>9} {'a record':>10} {'page':>9}  processor seconds of each stage"
    )
    for records, steps in arguments.runs:
        with tempfile.TemporaryDirectory() as folder:
            write_run(Path(folder), of=arguments.of, records=records, steps=steps, launches=arguments.launches)
            cost = measure_report(Path(folder))
        stages = dict(cost.stages) | {"rest": cost.processor_seconds - sum(cost.stages.values())}
        print(
            f"{records:8,} {steps:7,} {cost.processor_seconds:9.1f} s {cost.wall_seconds:7.1f} s "
            f"{1e3 * cost.processor_seconds / records:7.2f} ms {cost.page_bytes / 1e6:6.2f} MB  "
            + ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items()),
            flush=True,
        )


if __name__ == "__main__":
    main()
