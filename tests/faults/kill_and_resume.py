"""`kill -9` of a sweep's whole process tree at random instants, each time followed by --resume.

python -m tests.faults.kill_and_resume --kills 50 --points 12 --launcher alone
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.sweeps import LAUNCHERS, RunningSweep, plan_jobs, start_sweep, suite_text

MAX_SECONDS = 300.0  # for the next record


@dataclass(kw_only=True)
class Outcome:
    """What the records say at the end."""

    planned: list[str]
    kills: int = 0
    rounds: int = 0
    ok: dict[str, int] = field(default_factory=dict)  # key -> records that say ok
    problems: list[str] = field(default_factory=list)
    rows: int = 0  # in the table of launches

    @property
    def is_complete(self) -> bool:
        """Every launch is there once, nothing else is, and no file was left half written."""
        return self.ok == dict.fromkeys(self.planned, 1) and not self.problems and self.rows == len(self.planned)


def kill_and_resume(folder: Path, *, kills: int, points: int, launcher: str, chance: random.Random) -> Outcome:
    """Sweep, kill, resume, until `kills` have struck; then let it finish. A sweep that ends before its kill begins anew."""
    text = suite_text(points)
    outcome = Outcome(planned=[job.key for job in plan_jobs(text)])
    span = 30.0  # seconds in which a kill falls; then as long as the last undisturbed sweep took
    done: dict[str, bytes] = {}
    round_folder = folder / "round-0"
    round_folder.mkdir()
    while True:
        sweep = start_sweep(text, round_folder, launcher=launcher, options=["--resume", "--no-parity"])
        begun = time.monotonic()
        if outcome.kills < kills:
            wait_for_instant(sweep, span=span, chance=chance)
            if sweep.process.poll() is None:
                sweep.kill()
                sweep.process.communicate()
                outcome.kills += 1
                check_untouched(sweep.folder.records_path, done, outcome)
                continue
        code, output = sweep.wait()
        span = max(5.0, 0.9 * (time.monotonic() - begun))
        sweep.wait_for_nobody()
        if code:
            outcome.problems.append(f"exit code {code}: {output[-500:]}")
            return outcome
        check_untouched(sweep.folder.records_path, done, outcome)
        attempts, problems = sweep.folder.read_attempts()
        outcome.problems += problems
        outcome.ok = {}
        for _, record in attempts:
            key = f"{record.point_id}.r{record.repeat}"
            outcome.ok[key] = outcome.ok.get(key, 0) + (record.outcome.status == "ok")
        outcome.rows = len((sweep.folder.path / "tables" / "launches.csv").read_text().splitlines()) - 1
        outcome.rounds += 1
        if outcome.kills >= kills or not outcome.is_complete:
            return outcome
        round_folder, done = folder / f"round-{outcome.rounds}", {}
        round_folder.mkdir()


def wait_for_instant(sweep: RunningSweep, *, span: float, chance: random.Random) -> None:
    """Any instant of `span` seconds, or, as often, one within the second in which the next record is written."""

    def count() -> int:
        return sum(1 for _ in sweep.folder.records_path.glob("*.json"))

    is_any, before = chance.random() < 0.5, count()
    until = time.monotonic() + (chance.uniform(0.0, span) if is_any else MAX_SECONDS)
    while time.monotonic() < until and sweep.process.poll() is None:
        if not is_any and count() > before:
            time.sleep(chance.uniform(0.0, 1.0))
            return
        time.sleep(0.01)


def check_untouched(records: Path, done: dict[str, bytes], outcome: Outcome) -> None:
    """Records that were there before a kill are there after it, byte for byte."""
    for path in records.glob("*.json"):
        done.setdefault(path.name, path.read_bytes())
    for name, content in done.items():
        if not (records / name).exists() or (records / name).read_bytes() != content:
            outcome.problems.append(f"{name} was lost or rewritten")


def main() -> None:
    """Run the slow version and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--launcher", choices=LAUNCHERS, default="alone")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hvbench-kill-") as folder:
        outcome = kill_and_resume(
            Path(folder),
            kills=options.kills,
            points=options.points,
            launcher=options.launcher,
            chance=random.Random(options.seed),
        )
    print(
        f"{outcome.kills} kills in {outcome.rounds} sweeps of {len(outcome.planned)} launches under {options.launcher}: "
        f"{'complete, nothing lost, nothing twice' if outcome.is_complete else outcome}; {time.monotonic() - begun:.0f} s"
    )
    raise SystemExit(0 if outcome.is_complete else 1)


if __name__ == "__main__":
    main()
