"""The pairs of `hvbench ab --all-pairs` -> a JSON file small enough to be published, and the gate's verdicts on them.

A folder of `hvbench ab` is read once; what the study needs of it is kept as JSON: ln(B/A) pair by pair of the figures that
decide, point by point, and of the controls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulated_suites import judge_suite
from hvbench.analysis.frame.metrics import STEP
from hvbench.comparison.ab.judge import compare_pairs
from hvbench.comparison.ab.pairs import read_ab, read_controls
from hvbench.comparison.gate.rule import CALLS, LOOKS
from hvbench.errors import UsageError

STUDY = "HVBENCH_STUDY"  # a variable that nothing reads: arms that differ in it alone are equal
DRAWN_POINTS, DRAWN_SUITES = 8, 200


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One `hvbench ab`: what arm b did, and (points) of metric -> ln(B/A) pair by pair, positive where B is worse."""

    name: str
    b: str  # `nothing` where the arms are equal
    points: list[dict[str, list[float]]]
    timings: list[str]  # the metrics that a machine that moved explains
    controls: dict[str, list[float]]
    in_turns: bool = False  # all pairs: both launches lived at the same time

    @property
    def spread(self) -> float:
        """Standard deviation of a pair's ln(B/A) of the step time, within the points."""
        variances = [np.var(point[STEP], ddof=1) for point in self.points]
        return float(np.sqrt(np.mean(variances)))


def read_recorded(path: Path) -> Recorded:
    """A folder of `hvbench ab`, or the file that `keep_recorded` made of one; raises UsageError."""
    if path.suffix == ".json":
        try:
            return Recorded(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{path}: not recorded pairs: {error}") from None
    run = read_ab(path)
    comparison, sets, _ = compare_pairs(run)
    changes = [
        [each for each in point.changes if each.metric.is_decisive and each.worse_by] for point in comparison.points
    ]
    pairs = min(len(each.worse_by) for point in changes for each in point)
    return Recorded(
        name=path.name,
        b="nothing" if has_equal_arms(run.arms) else run.arms["b"]["description"],
        points=[{each.metric.name: list(each.worse_by[:pairs]) for each in point} for point in changes],
        timings=sorted({each.metric.name for point in changes for each in point if each.metric.is_timing}),
        controls={name: list(values[:pairs]) for name, values in read_controls(run, sets).items()},
        in_turns=all(each.in_turns for each in run.launches),
    )


def has_equal_arms(arms: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether both arms do the same: same interpreter, revision and fields, and no variable that anything reads."""
    a, b = (
        {key: value for key, value in arm.items() if key not in ("description", "variables")} for arm in arms.values()
    )
    return a == b and {name for arm in arms.values() for name in arm["variables"]} <= {STUDY}


def keep_recorded(recorded: Recorded, folder: Path) -> None:
    """Write `NAME.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rounded = json.loads(json.dumps(asdict(recorded)), parse_float=lambda text: round(float(text), 7))
    (folder / f"{recorded.name}.json").write_text(json.dumps(rounded) + "\n", encoding="utf-8")


def arrays_of(recorded: Recorded) -> dict[str, np.ndarray]:
    """Metric -> (points, pairs) of ln(B/A)."""
    return {name: np.array([point[name] for point in recorded.points]) for name in recorded.points[0]}


def count_recorded(runs: Sequence[Recorded]) -> list[dict[str, Any]]:
    """Verdicts of the gate on recorded pairs as they were launched: a row a run and way to make suites of its points."""
    rows = []
    for run in runs:
        values = arrays_of(run)
        count = len(run.points)
        if values[STEP].shape[1] < LOOKS[0]:
            continue  # with fewer pairs nothing is decided
        random = np.random.default_rng(0)
        drawn = np.array([random.permutation(count)[:DRAWN_POINTS] for _ in range(DRAWN_SUITES)])
        suites = {
            f"all {count} points": [range(count)],
            f"{DRAWN_POINTS} of its points": drawn if count > DRAWN_POINTS else [],
            "each point alone": [[index] for index in range(count)],
        }
        for name, chosen in suites.items():
            judged = [
                judge_suite({metric: each[list(indices)] for metric, each in values.items()}, controls=run.controls)
                for indices in chosen
            ]
            if not judged:
                continue
            shares = {call: float(np.mean([str(one.verdict) == call for one in judged])) for call in CALLS}
            pairs = float(np.mean([one.launches for one in judged]))
            described = {"run": run.name, "b": run.b, "spread": run.spread, "suite": name}
            rows.append({**described, "decisions": len(judged), **shares, "mean_pairs": pairs})
    return rows
