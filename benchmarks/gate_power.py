"""How often is the gate wrong, and what does it see? Decisions by relabelling and by scaling recorded pairs.

    hvbench ab suites/smoke.toml --np 2 --a env:HVBENCH_STUDY=1 --b env:HVBENCH_STUDY=2 --all-pairs --out aa-1
    python benchmarks/gate_power.py aa-1 [aa-2 …] --decisions 10000 --out docs/images

The recorded pairs come from arms that are the same (A/A). A decision takes 18 of them in random order (with
replacement where fewer were recorded), gives each pair's arms their labels by the toss of a coin, makes B slower by a
fixed factor, and decides as `hvbench ab` does: look at 6, 12 and 18 pairs, stop as soon as it is clear. All metrics of
all points of a pair, and its controls, stay together, so what they have in common stays too.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats as scipy_stats

from hvbench.ab import read_ab, read_controls
from hvbench.abtest import compare_pairs
from hvbench.gate import LEVEL, LOOKS, Series, decide, is_final

POCOCK_LEVEL = 0.0221
SLOWDOWNS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.15)
CALLS = ("regression", "inconclusive", "pass")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The pairs of one A/A run: (series, pairs) of ln(B/A), and (controls, pairs)."""

    name: str
    worse_by: np.ndarray
    margins: list[float]
    is_timing: list[bool]
    controls: np.ndarray
    titles: list[str]


def read_recorded(path: Path, *, margin: float) -> Recorded:
    """The decisive metrics of every point of an `hvbench ab` of two arms alike; raises UsageError."""
    run = read_ab(path)
    comparison, sets, _ = compare_pairs(run, margin=margin)
    chosen = [(point, change) for point in comparison.points for change in point.changes if change.metric.is_decisive]
    pairs = min(len(change.worse_by) for _, change in chosen)
    controls = [values[:pairs] for values in read_controls(run, sets).values()]
    return Recorded(
        name=path.name,
        worse_by=np.array([change.worse_by[:pairs] for _, change in chosen]),
        margins=[margin] * len(chosen),
        is_timing=[change.metric.is_timing for _, change in chosen],
        controls=np.array(controls).reshape(len(controls), pairs),
        titles=[f"{point.label} {change.metric.title}" for point, change in chosen],
    )


def draw(recorded: Recorded, slowdown: float, random: np.random.Generator) -> tuple[str, int]:
    """One complete decision over relabelled pairs; the verdict and the pairs that it took."""
    count, needed = recorded.worse_by.shape[1], LOOKS[-1]
    order = random.permutation(count)[:needed] if count >= needed else random.integers(0, count, needed)
    signs = random.choice([-1.0, 1.0], needed)
    worse_by = recorded.worse_by[:, order] * signs
    worse_by = worse_by + np.where(recorded.is_timing, math.log1p(slowdown), 0.0)[:, None]
    controls = recorded.controls[:, order] * signs
    for look in LOOKS:
        series = [
            Series(worse_by=row[:look], margin=margin, is_timing=is_timing)
            for row, margin, is_timing in zip(worse_by, recorded.margins, recorded.is_timing, strict=True)
        ]
        decisions = decide(series, controls={str(i): row[:look] for i, row in enumerate(controls)})
        if is_final(decisions, pairs=look):
            break
    calls = {decision.call for decision in decisions}
    return next(call for call in CALLS if call in calls), look


def study(recorded: Recorded, *, decisions: int, seed: int) -> list[dict[str, float]]:
    """Rates of the verdicts and the mean number of pairs, slowdown by slowdown."""
    rows = []
    for slowdown in SLOWDOWNS:
        random = np.random.default_rng([seed, round(slowdown * 1e4)])
        drawn = [draw(recorded, slowdown, random) for _ in range(decisions)]
        counts = Counter(call for call, _ in drawn)
        row = {
            "slowdown": slowdown,
            "decisions": decisions,
            "mean_pairs": float(np.mean([pairs for _, pairs in drawn])),
        }
        for call in CALLS:
            interval = scipy_stats.binomtest(counts[call], decisions).proportion_ci(0.95, method="wilson")
            row |= {call: counts[call] / decisions, f"{call}_low": interval.low, f"{call}_high": interval.high}
        rows.append(row)
    return rows


def study_level(*, trials: int, seed: int) -> dict[str, float]:
    """One-sided error of three looks at a constant level, of normal pairs of unknown spread and no margin."""
    random = np.random.default_rng(seed)
    smallest = np.ones(trials)
    for start in range(0, trials, 100_000):
        pairs = random.standard_normal((min(100_000, trials - start), LOOKS[-1]))
        for look in LOOKS:
            seen = pairs[:, :look]
            t = seen.mean(axis=1) / (seen.std(axis=1, ddof=1) / math.sqrt(look))
            part = slice(start, start + len(pairs))
            smallest[part] = np.minimum(smallest[part], scipy_stats.t.sf(t, look - 1))
    return {f"{level:g}": float((smallest <= level / 2).mean()) for level in (0.05, POCOCK_LEVEL, LEVEL)}


def describe(recorded: Recorded) -> str:
    """How much the recorded pairs differ, series by series."""
    lines = [f"{recorded.name}: {recorded.worse_by.shape[1]} recorded pairs"]
    for title, row in zip(recorded.titles, recorded.worse_by, strict=True):
        lines.append(f"  {title}: one pair to the next {row.std(ddof=1) * 100:.2f} %, mean {row.mean() * 100:+.2f} %")
    lines += [
        f"  control {i}: {row.std(ddof=1) * 100:.2f} %, mean {row.mean() * 100:+.2f} %"
        for i, row in enumerate(recorded.controls)
    ]
    return "\n".join(lines)


def plot(studies: dict[str, list[dict[str, float]]], path: Path) -> list[Path]:
    """Slowdown against the rates of the three verdicts, a panel a recorded run."""
    import matplotlib
    from matplotlib.figure import Figure

    from hvbench.analysis.panels import RC, save

    colours = {"regression": "#D55E00", "inconclusive": "#999999", "pass": "#009E73"}
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(1.0 + 3.6 * len(studies), 3.2), layout="constrained")
        axes = figure.subplots(1, len(studies), sharey=True, squeeze=False)[0]
        for panel, (name, rows) in zip(axes, studies.items(), strict=True):
            x = [row["slowdown"] * 100 for row in rows]
            for call, colour in colours.items():
                panel.plot(x, [row[call] * 100 for row in rows], "o-", color=colour, label=call, markersize=3.5)
                panel.fill_between(
                    x,
                    *([row[f"{call}_{end}"] * 100 for row in rows] for end in ("low", "high")),
                    color=colour,
                    alpha=0.2,
                )
            panel.axvline(3, color="#555555", linewidth=0.8, linestyle=":")
            panel.set_title(f"{name}\n{rows[0]['decisions']:,} decisions a point")
            panel.set_xlabel("B is slower by (%); dotted: the margin")
        axes[0].set_ylabel("verdicts (%)")
        axes[-1].legend(loc="center right")
        figure.suptitle("What the gate says of a slowdown, by scaling recorded A/A pairs")
        return save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of hvbench ab with two arms alike")
    parser.add_argument("--decisions", type=int, default=10_000, help="of each slowdown (default 10000)")
    parser.add_argument("--trials", type=int, default=1_000_000, help="of the study of the level")
    parser.add_argument("--margin", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for gate_power.json and the plot")
    arguments = parser.parse_args()
    level = study_level(trials=arguments.trials, seed=arguments.seed)
    print(f"one-sided error of three looks, {arguments.trials:,} trials, by two-sided level of a look: {level}")
    studies = {}
    for path in arguments.runs:
        recorded = read_recorded(path, margin=arguments.margin)
        print(describe(recorded))
        studies[path.name] = study(recorded, decisions=arguments.decisions, seed=arguments.seed)
        for row in studies[path.name]:
            rates = ", ".join(f"{call} {row[call] * 100:.2f} %" for call in CALLS)
            print(f"  slower by {row['slowdown'] * 100:4.1f} %: {rates}; {row['mean_pairs']:.1f} pairs")
    if arguments.out and studies:
        arguments.out.mkdir(parents=True, exist_ok=True)
        content = {"level": level, "margin": arguments.margin, "looks": LOOKS, "studies": studies}
        (arguments.out / "gate_power.json").write_text(json.dumps(content, indent=1) + "\n")
        print(*plot(studies, arguments.out / "gate_power"))


if __name__ == "__main__":
    main()
