"""A sweep in which a third of the points are made to fail, each in its own way: does any of them cost another?

python -m tests.faults.chaos --points 60 --launcher gloo
python -m tests.faults.chaos --points 60 --launcher mpi --kinds kill hang oom raise
python -m tests.faults.chaos --points 6 --np 8 --launcher gloo --kinds kill
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hvbench
from hvbench.records.record import Record
from tests.faults.sweeps import LAUNCHERS, NP, plan_jobs, read_outcomes, start_sweep, suite_text

# What each fault must look like in the record: outcome, part of the message.
EXPECTED = {
    "raise": ("failed", "RuntimeError: a fault on purpose in {phase}"),
    "kill": ("failed", "killed by SIGKILL"),
    "exit": ("failed", "exited with code 0 and without a word"),
    "hang": ("timeout", "rank {rank} was in hang (faults.py"),
    "hang-gil": ("timeout", "rank {rank} was in hang_with_gil (faults.py"),
    "hang-allreduce": ("timeout", "rank {rank} was in hang_in_allreduce (faults.py"),
    "freeze": ("timeout", "rank {rank} does not say where it is"),
    "garbage": ("failed", "its result-"),
    "oom": ("oom", "emory"),  # MemoryError; killed by SIGABRT, out of memory
}
PHASES = {
    "hang-allreduce": ("first_step", "warmup", "measure"),  # the others wait there too
    "garbage": ("first_step", "measure"),
}
ANY_PHASE = ("data", "build", "first_step", "warmup", "measure")


@dataclass(kw_only=True)
class Chaos:
    """What came out of a sweep with faults."""

    launcher: str
    points: int
    faults: dict[str, dict[str, Any]]  # key of a launch -> what struck it
    records: dict[str, Record]
    exit_code: int
    output: str
    wall_seconds: float
    mistakes: list[str] = field(default_factory=list)

    def lost_seconds(self) -> dict[str, list[float]]:
        """By kind of fault: seconds that the point and the start of new workers after it took, less a healthy point's.

        A healthy point is one whose workers had run another of its framework before. Where the next point is struck too,
        the start of its workers counts there.
        """
        keys = list(self.records)
        frameworks = [self.records[key].point.framework for key in keys]
        seconds = [self.records[key].duration_seconds for key in keys]
        usual = {}
        for framework in set(frameworks):
            warm = [
                seconds[place]
                for place in range(1, len(keys))
                if frameworks[place - 1] == frameworks[place] == framework
                and not self.faults.keys() & {keys[place], keys[place - 1]}
            ]
            usual[framework] = statistics.median(warm) if warm else 0.0
        lost: dict[str, list[float]] = {}
        for place, key in enumerate(keys):
            if key in self.faults:
                following = place + 1
                is_followed = (
                    following < len(keys)
                    and keys[following] not in self.faults
                    and frameworks[following] == frameworks[place]
                )
                restart = max(0.0, seconds[following] - usual[frameworks[following]]) if is_followed else 0.0
                own = max(0.0, seconds[place] - usual[frameworks[place]])
                lost.setdefault(self.faults[key]["kind"], []).append(own + restart)
        return lost


def choose_faults(text: str, kinds: Sequence[str], *, np: int, chance: random.Random) -> dict[str, dict[str, Any]]:
    """A fault for a third of each framework's launches, all kinds as often as each other, on random ranks in random phases."""
    jobs = plan_jobs(text, np=np)
    struck = []
    for framework in dict.fromkeys(job.point.framework for job in jobs):
        own = [index for index, job in enumerate(jobs) if job.point.framework == framework]
        struck += chance.sample(own, round(len(own) / 3))
    dealt = [kinds[number % len(kinds)] for number in range(len(struck))]
    chance.shuffle(dealt)
    return {
        jobs[index].key: {
            "kind": kind,
            "rank": chance.randrange(np),
            "phase": chance.choice(PHASES.get(kind, ANY_PHASE)),
            "point": jobs[index].point.point_id,
        }
        for index, kind in zip(struck, dealt, strict=True)
    }


def run_chaos(
    folder: Path,
    *,
    points: int,
    kinds: Sequence[str],
    launcher: str,
    timeout: float,
    chance: random.Random,
    np: int = NP,
) -> Chaos:
    """Sweep with faults and compare every record with what its fault, or none, must lead to."""
    text = suite_text(points)
    faults = choose_faults(text, kinds, np=np, chance=chance)
    begun = time.monotonic()
    options = ["--timeout", str(timeout), "--memory-limit", "2GiB", "--no-parity", "--no-report"]
    (folder / "clocks").mkdir()
    clock = {"kind": "clock", "folder": str(folder / "clocks")}
    sweep = start_sweep(text, folder, launcher=launcher, np=np, options=options, faults=[*faults.values(), clock])
    code, output = sweep.wait(120.0 * points)
    wall_seconds = time.monotonic() - begun
    sweep.wait_for_nobody()
    found = read_outcomes(sweep.folder)
    jobs = [job.key for job in plan_jobs(text, np=np)]
    records = {key: found[key] for key in jobs if key in found}
    chaos = Chaos(
        launcher=launcher,
        points=points,
        faults=faults,
        records=records,
        exit_code=code,
        output=output,
        wall_seconds=wall_seconds,
    )
    chaos.mistakes += [f"{key}: no record" for key in jobs if key not in found]
    chaos.mistakes += [f"{key}: not asked for" for key in found if key not in jobs]
    for key, record in records.items():
        chaos.mistakes += check_outcome(key, record, faults.get(key), logs=sweep.folder.path)
    chaos.mistakes += check_turns(records, folder / "clocks")
    if (
        f'File "{Path(hvbench.__file__).parent}' in output
    ):  # horovodrun shows its own traceback when a rank exits with 1
        chaos.mistakes.append(f"a traceback was shown: {output}")
    return chaos


def check_outcome(key: str, record: Record, fault: dict[str, Any] | None, *, logs: Path) -> list[str]:
    """How a record differs from what it must say."""
    outcome = record.outcome
    if fault is None:
        return [] if outcome.status == "ok" else [f"{key}: {outcome} without a fault"]
    status, message = EXPECTED[fault["kind"]]
    wanted = {"status": status, "rank": fault["rank"]} | (
        {} if fault["kind"] == "garbage" else {"phase": fault["phase"]}
    )
    if fault["kind"] != "garbage" and fault["phase"] == "measure":  # the first step after the warm-up
        wanted["step"] = record.measure.warmup_steps
    mistakes = [
        f"{key}: {name} {getattr(outcome, name)!r}, not {value!r}, after {fault}"
        for name, value in wanted.items()
        if getattr(outcome, name) != value
    ]
    if message.format(**fault) not in (outcome.message or ""):
        mistakes.append(f"{key}: message {outcome.message!r} after {fault}")
    if not outcome.log or not (logs / outcome.log).is_file():
        mistakes.append(f"{key}: no log at {outcome.log!r}")
    return mistakes


def check_turns(records: Mapping[str, Record], clocks: Path) -> list[str]:
    """What says that frameworks did not take turns: a record, or steps of two frameworks at the same time on any ranks."""
    mistakes = [f"{key}: not in turns" for key, record in records.items() if not record.in_turns]
    steps = sorted(
        (begun, ended, path.name.partition("-")[0])
        for path in clocks.glob("*.json")
        for begun, ended in json.loads(path.read_text())
    )
    if len({framework for *_, framework in steps}) < 2:
        mistakes.append("no clock of two frameworks")
    last: dict[str, float] = {}  # framework -> when the last of its steps so far ended
    for begun, ended, framework in steps:
        others = max((time for other, time in last.items() if other != framework), default=begun)
        if others > begun:
            mistakes.append(f"a step of {framework} began {others - begun:.4f} s before another framework's had ended")
        last[framework] = max(ended, last.get(framework, ended))
    return mistakes


def main() -> None:
    """Run the slow version and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--np", type=int, default=NP)
    parser.add_argument("--launcher", choices=LAUNCHERS, default="gloo")
    parser.add_argument("--kinds", nargs="+", choices=EXPECTED, default=["kill", "hang", "oom", "raise"])
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hvbench-chaos-") as folder:
        chaos = run_chaos(
            Path(folder),
            points=options.points,
            kinds=options.kinds,
            launcher=options.launcher,
            np=options.np,
            timeout=options.timeout,
            chance=random.Random(options.seed),
        )
    healthy = sum(record.outcome.status == "ok" for record in chaos.records.values())
    print(f"{chaos.launcher}, {options.np} ranks, seed {options.seed}, limit {options.timeout:g} s:")
    print(f"  {chaos.points} points, {len(chaos.faults)} faults, {healthy} ok, {chaos.wall_seconds:.0f} s in all")
    for kind, seconds in sorted(chaos.lost_seconds().items()):
        worst = max(seconds)
        print(
            f"  {kind:15} {len(seconds):3} times  lost {statistics.median(seconds):5.1f} s each (median), {worst:5.1f} s at most"
        )
    print(
        "\n".join([*chaos.mistakes, chaos.output] if chaos.mistakes else [])
        or "  every point ended as it should, and nothing was left running"
    )
    exhausted = Counter(record.outcome.message for record in chaos.records.values() if record.outcome.status == "oom")
    for message, count in exhausted.items():
        print(f"  oom, {count} times: {message}")
    raise SystemExit(1 if chaos.mistakes else 0)


if __name__ == "__main__":
    main()
