"""How often the gate is wrong, and which slowdowns it finds: the gate as it ships, on simulated and on recorded pairs.

    hvbench ab benchmarks/gate.toml --np 2 --a env:HVBENCH_STUDY=1 --b env:HVBENCH_STUDY=2 --all-pairs --out aa-1
    python benchmarks/gate_power.py results/reference/gate/*.json --out docs/images --guide docs/ci.md
    python benchmarks/gate_power.py aa-1 --keep results/reference/gate    # keep the pairs of another recording

A decision is one `hvbench ab` of a suite: step time and peak memory of every point, looks at 6, 12 and 18 pairs, the default
policy, and the verdict that gives the exit code. Thousands are decided at once by the rule that the gate itself calls, and the first
of each kind the long way, too, by `judge_pairs`; a difference ends the program. Recorded pairs (A/A: arms that are the
same) are judged as they were launched, and drawn from: eight points of a run, pairs in another order, each pair's arms
labelled by the toss of a coin.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, it finds its neighbours and the hvbench beside it

from benchmarks.recorded_pairs import Recorded, count_recorded, keep_recorded, read_recorded  # noqa: E402
from benchmarks.simulated_suites import (  # noqa: E402
    MEMORY,
    NOISES,
    Noise,
    count_verdicts,
    draw_memory,
    draw_small_memory,
    normal,
    verdicts_one_by_one,
)
from hvbench.analysis.frame.metrics import STEP  # noqa: E402
from hvbench.comparison.gate.policy import DEFAULT_MARGIN  # noqa: E402
from hvbench.comparison.gate.rule import CALLS, LEVELS, LOOKS  # noqa: E402

SLOWDOWNS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.15)  # of one point of eight
SPREADS = (0.01, 0.02, 0.04, 0.05, 0.06, 0.08, 0.12)
POINTS = 8
COUNTS = (1, 4, 8, 20)  # points of a suite
STUDIED = 0.05  # the spread at which suites of different sizes are compared
NOISY = 0.20  # a spread at which the margin does not help: noise alone carries estimates beyond it
CHECKED = 6  # suites of each kind that are judged the long way, too
PEAKS = (40, 100, 200, 400)  # MiB of a process
GROWTHS = (0, 4, 8, 12, 16)  # MiB
QUIET = 0.005  # a spread of step times at which memory alone decides
MARKS = (
    "spreads",
    "points",
    "memory",
    "noises",
    "recorded",
)  # tables in the guide: <!-- spreads, from docs/images/gate_power.json -->


def make_suites(
    random: np.random.Generator, *, points: int, decisions: int, spread: float, noise: Noise = normal
) -> dict[str, np.ndarray]:
    """Equal arms: metric -> (decisions, points, pairs) of ln(B/A)."""
    shape = (decisions, points)
    return {STEP: noise(random, shape) * spread, MEMORY: draw_memory(random, shape)}


def draw_recorded(run: Recorded, random: np.random.Generator, *, points: int, decisions: int) -> dict[str, np.ndarray]:
    """Suites of `points` recorded points, their pairs in random order with arms labelled at random."""
    values = {name: np.array([point[name] for point in run.points]) for name in run.points[0]}
    count, pairs = values[STEP].shape
    chosen = random.random((decisions, count)).argsort(axis=1)[:, :points, None]
    order = random.random((decisions, pairs)).argsort(axis=1)[:, None, : LOOKS[-1]]
    signs = random.choice([-1.0, 1.0], (decisions, 1, LOOKS[-1]))
    return {name: rows[chosen, order] * signs for name, rows in values.items()}


def slow_down(values: Mapping[str, np.ndarray], slowdown: float, *, points: int) -> dict[str, np.ndarray]:
    """The same with B's steps longer by `slowdown` at the first `points` points."""
    step = values[STEP].copy()
    step[:, :points] += math.log1p(slowdown)
    return {**values, STEP: step}


def decide(values: Mapping[str, np.ndarray], **sizes: float) -> dict[str, Any]:
    """Rates of the verdicts; raises AssertionError where the gate, called for one suite, says anything else."""
    row = count_verdicts(values, **sizes)
    first = {name: rows[:CHECKED] for name, rows in values.items()}
    one_by_one = verdicts_one_by_one(first, count=min(CHECKED, len(values[STEP])), **sizes)
    at_once = count_verdicts(first, **sizes)
    for call in CALLS:
        share = sum(verdict == call for verdict, _ in one_by_one) / len(one_by_one)
        assert math.isclose(share, at_once[call]), (call, one_by_one, at_once)
    assert math.isclose(at_once["mean_pairs"], sum(pairs for _, pairs in one_by_one) / len(one_by_one))
    return row


def study(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the gate says of equal arms, of one slower point and of a suite that is slower throughout."""
    points = values[STEP].shape[1]
    rows = {"one": [], "all": decide(slow_down(values, 0.05, points=points))}
    for slowdown in SLOWDOWNS:
        rows["one"].append({"slowdown": slowdown, **decide(slow_down(values, slowdown, points=1))})
    return rows


def study_memory(*, peak_mib: int, decisions: int, seed: int) -> list[dict[str, Any]]:
    """What the gate says of one point of a process of `peak_mib`, a row a growth of arm b's."""
    random, shape = np.random.default_rng([seed, peak_mib]), (decisions, 1)
    rows = []
    for growth in GROWTHS:
        sizes = {"peak_bytes": peak_mib * 2.0**20}
        memory = draw_small_memory(random, shape, growth_bytes=growth * 2.0**20, **sizes)
        values = {STEP: normal(random, shape) * QUIET, MEMORY: memory}
        rows.append({"growth_mib": growth, **decide(values, **sizes)})
    return rows


def study_noise(noise: Noise, *, decisions: int, seed: int) -> dict[str, float]:
    """`POINTS, SPREAD` -> share of false regressions of equal arms."""
    found = {}
    for points in COUNTS:
        for spread in (STUDIED, NOISY):
            random = np.random.default_rng([seed, points, round(spread * 100)])
            suites = make_suites(random, points=points, decisions=decisions, spread=spread, noise=noise)
            found[f"{points}, {spread * 100:g} %"] = decide(suites)["regression"]
    return found


def at(rows: Mapping[str, Any], slowdown: float) -> Mapping[str, Any]:
    """The row of that slowdown of one point."""
    return next(row for row in rows["one"] if row["slowdown"] == slowdown)


HEADER = (
    "equal: false regression",
    "pass",
    "pairs",
    "one point 5 % slower: found",
    "passes",
    "one 10 % slower: found",
    "all 5 % slower: found",
)


def describe_studies(studies: Mapping[str, Any], *, first: str) -> str:
    """A table of the guide: a row a study."""
    lines = [f"| {' | '.join([first, *HEADER])} |", f"|{' ---: |' * (1 + len(HEADER))}"]
    for name, rows in studies.items():
        equal, slower, twice = (at(rows, slowdown) for slowdown in (0.0, 0.05, 0.10))
        shares = [equal["regression"], equal["pass"], None, slower["regression"], slower["pass"], twice["regression"]]
        cells = [
            f"{equal['mean_pairs']:.1f}" if share is None else f"{share * 100:.1f} %"
            for share in [*shares, rows["all"]["regression"]]
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def describe_memory(studies: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The guide's table of small processes, a row a size."""
    header = ["peak memory of a process", "equal: false regression", "pass", "pairs"]
    header += [f"{growth} MiB more: found" for growth in GROWTHS[1:]]
    lines = [f"| {' | '.join(header)} |", f"|{' ---: |' * len(header)}"]
    for name, rows in studies.items():
        equal, *grown = rows
        cells = [f"{equal['regression'] * 100:.1f} %", f"{equal['pass'] * 100:.1f} %", f"{equal['mean_pairs']:.1f}"]
        cells += [f"{row['regression'] * 100:.1f} %" for row in grown]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def describe_noises(noises: Mapping[str, Mapping[str, float]]) -> str:
    """The guide's table of false regressions, a row a kind of noise, a column a number of points and spread."""
    columns = list(next(iter(noises.values())))
    lines = [f"| pairs (points, spread) | {' | '.join(columns)} |", f"| :--- |{' ---: |' * len(columns)}"]
    for name, found in noises.items():
        lines.append(f"| {name} | {' | '.join(f'{found[column] * 100:.1f} %' for column in columns)} |")
    return "\n".join(lines)


def describe_recorded(rows: Sequence[Mapping[str, Any]]) -> str:
    """The guide's table of recorded pairs, a row a run and a way to make suites of its points."""
    lines = [
        "| recorded run | what arm b does | spread | suite | suites | regression | inconclusive | pass | pairs, mean |",
        "| :--- | :--- | ---: | :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        what = "the same" if row["b"] == "nothing" else f"`{row['b']}`"
        cells = [row["run"], what, f"{row['spread'] * 100:.1f} %", row["suite"], f"{row['decisions']:,}"]
        cells += [f"{row[call] * 100:.1f} %" for call in ("regression", "inconclusive", "pass")]
        lines.append(f"| {' | '.join(cells)} | {row['mean_pairs']:.1f} |")
    return "\n".join(lines)


def describe(content: Mapping[str, Any]) -> dict[str, str]:
    """Mark -> its table in the guide."""
    tables = (
        describe_studies(content["spreads"], first="spread of pairs, 8 points"),
        describe_studies(content["points"], first="points, spread 5 %"),
        describe_memory(content["memory"]),
        describe_noises(content["noises"]),
        describe_recorded(content["recorded"]),
    )
    return dict(zip(MARKS, tables, strict=True))


def plot(studies: Mapping[str, Any], path: Path, *, margin: float) -> list[Path]:
    """Slowdown of one point of eight against the rates of the three verdicts, a panel a spread; the files written."""
    import matplotlib
    from matplotlib.figure import Figure

    from hvbench.analysis.show.panels import RC, save

    looks = {"regression": ("#D55E00", "-"), "inconclusive": ("#777777", ":"), "pass": ("#009E73", "--")}
    columns = min(4, len(studies))
    height = -(-len(studies) // columns)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(1.2 + 2.4 * columns, 0.9 + 2.4 * height), layout="constrained")
        axes = list(figure.subplots(height, columns, sharex=True, sharey=True, squeeze=False).flat)
        for panel in axes[len(studies) :]:
            panel.set_visible(False)
        for panel, (name, rows) in zip(axes, studies.items(), strict=False):
            x = [row["slowdown"] * 100 for row in rows["one"]]
            for call, (colour, line) in looks.items():
                y = [row[call] * 100 for row in rows["one"]]
                panel.plot(x, y, line, marker="o", color=colour, label=call, markersize=3)
                ends = ([row[f"{call}_{end}"] * 100 for row in rows["one"]] for end in ("low", "high"))
                panel.fill_between(x, *ends, color=colour, alpha=0.2, linewidth=0)
            panel.axvline(margin * 100, color="#555555", linewidth=0.8, linestyle=":")
            panel.set_title(f"spread {name}")
        axes[0].legend(loc="center right")
        figure.supxlabel(f"one point of eight is slower by (%); dotted line: the margin, {margin * 100:g} %")
        figure.supylabel("verdicts (%)")
        decisions = next(iter(studies.values()))["one"][0]["decisions"]
        figure.suptitle(f"What the gate says of a suite ({decisions:,} decisions a mark)")
        return save(figure, path)


def rewrite_guide(path: Path, tables: Mapping[str, str], *, source: str = "gate_power") -> None:
    """Put each table between `<!-- MARK, from … -->` and the next `<!-- end -->`; raises ValueError where a mark is missing."""
    text = path.read_text(encoding="utf-8")
    for mark, table in tables.items():
        opening = f"<!-- {mark}, from docs/images/{source}.json -->\n"
        before, found, rest = text.partition(opening)
        _, closing, after = rest.partition("<!-- end -->")
        if not (found and closing):
            raise ValueError(f"{path}: no {opening.strip()} … <!-- end -->")
        text = f"{before}{opening}{table}\n{closing}{after}"
    path.write_text(text, encoding="utf-8")


def study_everything(recorded: Sequence[Recorded], *, decisions: int, seed: int) -> dict[str, Any]:
    """What gate_power.json holds."""
    spreads, points = {}, {}
    for spread in SPREADS:
        random = np.random.default_rng([seed, round(spread * 1000)])
        suites = make_suites(random, points=POINTS, decisions=decisions, spread=spread)
        spreads[f"{spread * 100:g} %"] = study(suites)
    for run in recorded:
        if run.b == "nothing":
            suites = draw_recorded(run, np.random.default_rng(seed), points=POINTS, decisions=decisions)
            spreads[f"{run.spread * 100:.1f} % (drawn from {run.name})"] = study(suites)
    for count in COUNTS:
        random = np.random.default_rng([seed, count])
        points[str(count)] = study(make_suites(random, points=count, decisions=decisions, spread=STUDIED))
    memory = {f"{peak} MiB": study_memory(peak_mib=peak, decisions=decisions, seed=seed) for peak in PEAKS}
    noises = {name: study_noise(noise, decisions=decisions, seed=seed) for name, noise in NOISES.items()}
    return {
        "margin": DEFAULT_MARGIN,
        "looks": LOOKS,
        "levels": LEVELS,
        "spreads": spreads,
        "points": points,
        "memory": memory,
        "noises": noises,
        "recorded": count_recorded(recorded),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of hvbench ab --all-pairs, or files kept of them")
    parser.add_argument("--decisions", type=int, default=10_000, help="of each kind (default 10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for gate_power.json and the plot")
    parser.add_argument("--keep", type=Path, help="folder for the pairs themselves, a small file a run")
    parser.add_argument("--guide", type=Path, help="page whose tables are written anew: docs/ci.md")
    arguments = parser.parse_args()
    recorded = [read_recorded(path) for path in arguments.runs]
    if arguments.keep:
        for run in recorded:
            keep_recorded(run, arguments.keep)
    content = study_everything(recorded, decisions=arguments.decisions, seed=arguments.seed)
    for mark, table in describe(content).items():
        print(f"{mark}\n{table}\n")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "gate_power.json").write_text(json.dumps(content, indent=1) + "\n")
        print(*plot(content["spreads"], arguments.out / "gate_power", margin=content["margin"]))
    if arguments.guide:
        rewrite_guide(arguments.guide, describe(content))


if __name__ == "__main__":
    main()
