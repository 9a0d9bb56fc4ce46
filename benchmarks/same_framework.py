"""Is "faster" ever said of a framework against itself? Real launches in turns, judged by the shipped rule.

    python benchmarks/same_framework.py --np 2                   measure (about 20 minutes on 2 cores), then print the table
    python benchmarks/same_framework.py FOLDER …                 judge what was measured already (folders of hvbench ab, or files kept of them)

Two equal arms of `hvbench ab` live at the same time and take turns, as the frameworks of a sweep do; pairs that follow each other are taken for
the rounds of a sweep. A family has five points of the suite, as the frameworks have five configurations in `quickstart`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, it finds its neighbours and the hvbench beside it

from benchmarks.recorded_pairs import Recorded, read_recorded  # noqa: E402
from hvbench.analysis.frame.metrics import STEP  # noqa: E402
from hvbench.analysis.stats.contrasts import Call, Contrast, Family, judge_family  # noqa: E402

SUITE = ROOT / "benchmarks" / "gate.toml"
CONFIGURATIONS = 5
ROUNDS = (3, 5)
INCONCLUSIVE = 3  # exit code of hvbench ab
BUDGET_SECONDS = 1500
HEADER = ("run", "rounds", "contrasts", "called", "over all", "called", "equal", "half width, median", "spread")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What the rule said of equal arms, families of so many rounds."""

    rounds: int
    contrasts: list[Contrast]
    means: list[Contrast]

    def row(self, run: Recorded) -> list[str]:
        """A line of the table."""
        called, means = (sum(map(is_called, each)) for each in (self.contrasts, self.means))
        equal = sum(each.call == Call.EQUAL for each in self.contrasts)
        widths = [(each.high / each.low) ** 0.5 - 1 for each in self.contrasts]
        cells = [len(self.contrasts), called, len(self.means), means, equal]
        return [
            run.name, str(self.rounds), *map(str, cells), f"{np.median(widths) * 100:.1f} %", f"{run.spread * 100:.1f} %"
        ]  # fmt: skip


def is_called(contrast: Contrast) -> bool:
    """Whether it is called faster or slower, which is false of equal arms."""
    return contrast.call in (Call.FASTER, Call.SLOWER)


def judge_equal(run: Recorded, *, rounds: int) -> Counts:
    """Every contrast of the run once: its points five at a time, its pairs `rounds` at a time."""
    families = list(make_families(run, rounds=rounds))
    return Counts(
        rounds=rounds,
        contrasts=[each for family in families for each in family.contrasts],
        means=[family.mean for family in families if family.mean],
    )


def make_families(run: Recorded, *, rounds: int) -> Iterator[Family]:
    """The rule on disjoint parts of what was recorded."""
    values = np.array([point[STEP] for point in run.points])
    size = min(CONFIGURATIONS, len(values))
    for first in range(0, len(values) - size + 1, size):
        for start in range(0, values.shape[1] - rounds + 1, rounds):
            yield judge_family(values[first : first + size, start : start + rounds].tolist())


def measure(folder: Path, *, np: int, framework: str, budget: float) -> None:
    """Launch two equal arms of `framework` in turns into `folder`; raises SystemExit where hvbench ab cannot."""
    same = f"set=framework={framework}"
    command = [sys.executable, "-m", "hvbench", "ab", str(SUITE), "--np", str(np), "--a", same, "--b", same]
    command += ["--all-pairs", "--budget", str(budget), "--out", str(folder)]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code not in (0, 1, INCONCLUSIVE):  # a verdict of the gate, whichever
        raise SystemExit(code)


def show(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(HEADER)} |", f"| :--- |{' ---: |' * (len(HEADER) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="measured already; without any, they are measured now")
    parser.add_argument("--np", type=int, default=2, help="ranks (default: 2)")
    parser.add_argument("--framework", default="pytorch")
    parser.add_argument(
        "--budget", type=float, default=BUDGET_SECONDS, metavar="SECONDS", help="no pair would end later"
    )
    parser.add_argument("--out", type=Path, default=Path("results/ab/same_framework"), help="where they are kept")
    options = parser.parse_args()
    if not options.runs:
        measure(options.out, np=options.np, framework=options.framework, budget=options.budget)
    recorded = [read_recorded(path) for path in options.runs or [options.out]]
    equal = [run for run in recorded if run.b == "nothing"]
    for run in recorded:
        if run not in equal:
            print(f"{run.name}: left out, arm b is not the same: {run.b}")
    judged = [(run, judge_equal(run, rounds=rounds)) for run in equal for rounds in ROUNDS]
    found = [(run, counts) for run, counts in judged if counts.contrasts]  # as many rounds as that were measured
    print(show([counts.row(run) for run, counts in found]))
    for rounds in ROUNDS:
        contrasts = [each for _, counts in found if counts.rounds == rounds for each in counts.contrasts]
        if contrasts:
            share = sum(map(is_called, contrasts)) / len(contrasts)
            print(f"{rounds} rounds: {share * 100:.1f} % of {len(contrasts)} contrasts of equal arms were called")


if __name__ == "__main__":
    main()
