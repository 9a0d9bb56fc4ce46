"""The pairs of `hvbench ab --all-pairs` -> a JSON file small enough to be published, and the gate's decisions on them.

A folder of `hvbench ab` is read once; what the study needs of it is kept as JSON: ln(B/A) pair by pair of the figures that
decide, point by point, and of the controls.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from hvbench.analysis.frame.metrics import STEP
from hvbench.comparison.ab.judge import compare_pairs
from hvbench.comparison.ab.pairs import read_ab, read_controls
from hvbench.comparison.gate.rule import LOOKS, Series, decide, is_final
from hvbench.errors import UsageError

STUDY = "HVBENCH_STUDY"  # a variable that nothing reads: arms that differ in it alone are equal
CALLS = ("regression", "inconclusive", "pass")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One `hvbench ab`: what arm b did, and (points) of metric -> ln(B/A) pair by pair, positive where B is worse."""

    name: str
    b: str  # `nothing` where the arms are equal
    points: list[dict[str, list[float]]]
    timings: list[str]  # the metrics that a machine that moved explains
    controls: dict[str, list[float]]
    in_turns: bool = False  # all pairs: both launches lived at the same time


def read_recorded(path: Path) -> Recorded:
    """A folder of `hvbench ab`, or the file that `keep_recorded` made of one; raises UsageError."""
    if path.suffix == ".json":
        try:
            return Recorded(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{path}: not recorded pairs: {error}") from None
    run = read_ab(path)
    comparison, sets, _ = compare_pairs(run, margin=0.03)
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


def decide_recorded(recorded: Recorded, *, margin: float) -> list[dict[str, object]]:
    """The gate's own decision on each point alone, as it was launched: step time and peak memory, look by look."""
    found = []
    for point in recorded.points:
        for look in LOOKS:
            series = [
                Series(worse_by=values[:look], margin=margin, is_timing=name in recorded.timings)
                for name, values in point.items()
            ]
            decisions = decide(series, controls={name: values[:look] for name, values in recorded.controls.items()})
            if is_final(decisions, pairs=look):
                break
        calls = {decision.call for decision in decisions}
        reasons = sorted({decision.reason for decision in decisions if decision.call == "inconclusive"})
        estimate = math.expm1(float(np.mean(point[STEP][:look])))
        call = next(call for call in CALLS if call in calls)
        found.append({"call": call, "pairs": min(look, len(point[STEP])), "estimate": estimate, "reasons": reasons})
    return found


def count_decisions(runs: list[Recorded], *, margin: float) -> list[dict[str, object]]:
    """A row for each thing that arm b did, in turns or not, in runs that came to a look: how often each verdict, and Wilson's 95 % interval of the regressions' share."""
    rows = []
    runs = [run for run in runs if len(run.points[0][STEP]) >= LOOKS[0]]  # with fewer pairs nothing is decided
    for b, in_turns in dict.fromkeys((run.b, run.in_turns) for run in runs):
        same = [run for run in runs if (run.b, run.in_turns) == (b, in_turns)]
        decisions = [each for run in same for each in decide_recorded(run, margin=margin)]
        counts = {call: sum(each["call"] == call for each in decisions) for call in CALLS}
        interval = scipy_stats.binomtest(counts["regression"], len(decisions)).proportion_ci(0.95, method="wilson")
        ends = {"regression_low": float(interval.low), "regression_high": float(interval.high)}
        pairs = float(np.mean([each["pairs"] for each in decisions]))
        spread = float(np.std(np.concatenate([point[STEP] for run in same for point in run.points]), ddof=1))
        rows.append(
            {
                "b": b,
                "in_turns": in_turns,
                "runs": len(same),
                "decisions": len(decisions),
                **counts,
                **ends,
                "mean_pairs": pairs,
                "spread": spread,
            }
        )
    return rows
