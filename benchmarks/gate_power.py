"""Rates of the gate's decisions (false regressions, slowdowns found) from recorded pairs, relabelled and scaled.

    hvbench ab benchmarks/gate.toml --np 2 --a env:HVBENCH_STUDY=1 --b env:HVBENCH_STUDY=2 --all-pairs --out aa-1
    python benchmarks/gate_power.py aa-1 [aa-2 …] --decisions 10000 --keep results/reference/gate --out docs/images \\
        --guide docs/ci.md

The recorded pairs come from arms that are the same (A/A). A decision takes 18 pairs of a point (with replacement where
fewer were recorded), gives each pair's arms their labels by the toss of a coin, makes B slower by a fixed factor, and
decides as `hvbench ab` does: look at 6, 12 and 18 pairs, stop as soon as it is clear. A pair's control stays with it.
The same is done with normal pairs of several spreads, to show which spread of a machine the gate tolerates.

Beside that, every point of every folder is decided as it was launched, with no relabelling and no scaling: the real
decisions. Folders whose arms differ (by a delay, say) are only decided, and not drawn from.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import special
from scipy import stats as scipy_stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, it finds its neighbours and the hvbench beside it

from benchmarks.recorded_pairs import CALLS, STEP, Recorded, count_decisions, keep_recorded, read_recorded  # noqa: E402
from hvbench.comparison.gate.rule import CONTROL_MARGIN, LEVEL, LOOKS, Series, decide, is_final  # noqa: E402

POCOCK_LEVEL = 0.0221
SLOWDOWNS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.15)
SPREADS = (0.01, 0.02, 0.04, 0.06, 0.08, 0.12)
LARGE_POOL = 500  # pairs; drawing 18 of more with replacement hardly ever draws one twice
STUDIES_MARK = "from docs/images/gate_power.json"  # in the guide
REAL_MARK = "real decisions, from docs/images/gate_power.json"
CHECKED = 60  # decisions that are also taken by `hvbench.comparison.gate.rule` itself, one by one


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Recorded pairs of step medians: (pairs,) of ln(B/A), and (controls, pairs) of their controls."""

    name: str
    worse_by: np.ndarray
    controls: np.ndarray

    def describe(self) -> str:
        """How much one pair differs from the next."""
        controls = ", ".join(f"{row.std(ddof=1) * 100:.1f} %" for row in self.controls)
        return (
            f"{self.name}: {self.worse_by.size} pairs, spread {self.worse_by.std(ddof=1) * 100:.2f} %, mean "
            f"{self.worse_by.mean() * 100:+.2f} %; spread of the controls: {controls}"
        )


def pool_pairs(runs: list[Recorded]) -> Pairs:
    """The step medians of all points of runs whose arms are equal, as one pool."""
    worse_by = np.concatenate([point[STEP] for run in runs for point in run.points])
    # The kernel's control is always there; stolen time only where the hypervisor tells it.
    names = [name for name in runs[0].controls if all(name in run.controls for run in runs)]
    columns = [
        np.array([run.controls[name] for name in names]).reshape(len(names), -1) for run in runs for _ in run.points
    ]
    spread = worse_by.std(ddof=1) * 100
    way = "in turns" if runs[0].in_turns else "one after the other"
    return Pairs(
        name=f"recorded pairs, spread {spread:.1f} % (recorded, {way})",
        worse_by=worse_by,
        controls=np.concatenate(columns, axis=1),
    )


def draw(
    pairs: Pairs, slowdown: float, *, decisions: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(decisions, 18): relabelled pairs with B slower by `slowdown`; (decisions, controls, 18): their controls."""
    count, needed = pairs.worse_by.size, LOOKS[-1]
    if needed <= count <= LARGE_POOL:
        order = np.argsort(random.random((decisions, count)), axis=1)[:, :needed]
    else:
        order = random.integers(0, count, (decisions, needed))
    signs = random.choice([-1.0, 1.0], (decisions, needed))
    worse_by = pairs.worse_by[order] * signs + math.log1p(slowdown)
    return worse_by, np.moveaxis(pairs.controls[:, order], 0, 1) * signs[:, None]


def decide_many(worse_by: np.ndarray, controls: np.ndarray, *, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """The rule of `hvbench.comparison.gate.rule` for one timing, all decisions at once: calls (as places in CALLS), and pairs used."""
    calls = np.full(len(worse_by), CALLS.index("inconclusive"))
    used = np.full(len(worse_by), LOOKS[-1])
    for look in LOOKS:
        mean, error = locate_many(worse_by[:, :look])
        p_above = special.stdtr(look - 1, -mean / error)
        high = mean + error * special.stdtrit(look - 1, 1 - LEVEL / 2)
        moved = np.zeros(len(worse_by), dtype=bool)
        for control in np.moveaxis(controls, 1, 0):
            centre, width = locate_many(control[:, :look])
            p_other = 2 * special.stdtr(look - 1, -np.abs(centre) / width)
            moved |= (np.abs(np.expm1(centre)) >= CONTROL_MARGIN) & (p_other <= LEVEL)
        is_open = (calls == CALLS.index("inconclusive")) & ~moved
        is_worse = is_open & (p_above <= LEVEL / 2) & (np.expm1(mean) >= margin)
        is_pass = is_open & ~is_worse & (np.expm1(high) < margin)
        for found, call in ((is_worse, "regression"), (is_pass, "pass")):
            calls[found], used[found] = CALLS.index(call), look
    return calls, used


def locate_many(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and its standard error, row by row."""
    return values.mean(axis=1), np.maximum(values.std(axis=1, ddof=1), 1e-12) / math.sqrt(values.shape[1])


def check(worse_by: np.ndarray, controls: np.ndarray, calls: np.ndarray, *, margin: float) -> None:
    """Raise AssertionError unless the gate itself decides the first rows as `decide_many` did."""
    for row, control, call in zip(worse_by[:CHECKED], controls[:CHECKED], calls[:CHECKED], strict=True):
        for look in LOOKS:
            named = {str(index): each[:look] for index, each in enumerate(control)}
            decisions = decide([Series(worse_by=row[:look], margin=margin)], controls=named)
            if is_final(decisions, pairs=look):
                break
        assert decisions[0].call == CALLS[call], (decisions[0], CALLS[call])


def study(pairs: Pairs, *, decisions: int, margin: float, seed: int) -> list[dict[str, float]]:
    """Rates of the verdicts with Wilson's 95 % intervals, and the mean number of pairs, slowdown by slowdown."""
    rows = []
    for slowdown in SLOWDOWNS:
        random = np.random.default_rng([seed, round(slowdown * 1e4)])
        worse_by, controls = draw(pairs, slowdown, decisions=decisions, random=random)
        calls, used = decide_many(worse_by, controls, margin=margin)
        check(worse_by, controls, calls, margin=margin)
        row = {"slowdown": slowdown, "decisions": decisions, "mean_pairs": float(used.mean())}
        for index, call in enumerate(CALLS):
            hits = int((calls == index).sum())
            interval = scipy_stats.binomtest(hits, decisions).proportion_ci(0.95, method="wilson")
            row |= {call: hits / decisions, f"{call}_low": float(interval.low), f"{call}_high": float(interval.high)}
        rows.append(row)
    return rows


def make_normal(spread: float, *, seed: int) -> Pairs:
    """A large pool of normal pairs with a control that never moves."""
    worse_by = np.random.default_rng(seed).normal(0.0, spread, 4000)
    return Pairs(
        name=f"normal pairs, spread {spread * 100:g} %",
        worse_by=worse_by - worse_by.mean(),
        controls=np.zeros((0, 4000)),
    )


def study_level(*, trials: int, seed: int) -> dict[str, float]:
    """One-sided error of three looks at a constant level, of normal pairs of unknown spread and no margin."""
    random = np.random.default_rng(seed)
    smallest = np.ones(trials)
    for start in range(0, trials, 100_000):
        worse_by = random.standard_normal((min(100_000, trials - start), LOOKS[-1]))
        part = slice(start, start + len(worse_by))
        for look in LOOKS:
            mean, error = locate_many(worse_by[:, :look])
            smallest[part] = np.minimum(smallest[part], special.stdtr(look - 1, -mean / error))
    return {f"{level:g}": float((smallest <= level / 2).mean()) for level in (0.05, POCOCK_LEVEL, LEVEL)}


def plot(studies: dict[str, list[dict[str, float]]], path: Path, *, margin: float) -> list[Path]:
    """Slowdown against the rates of the three verdicts, a panel a study; the files written."""
    import matplotlib
    from matplotlib.figure import Figure

    from hvbench.analysis.show.panels import RC, save

    colours = {"regression": "#D55E00", "inconclusive": "#777777", "pass": "#009E73"}
    lines = {"regression": "-", "inconclusive": ":", "pass": "--"}
    columns = min(3, len(studies))
    height = -(-len(studies) // columns)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(1.2 + 3.0 * columns, 0.9 + 2.4 * height), layout="constrained")
        axes = figure.subplots(height, columns, sharex=True, sharey=True, squeeze=False).flat
        for panel in list(axes)[len(studies) :]:
            panel.set_visible(False)
        for panel, (name, rows) in zip(figure.axes, studies.items(), strict=False):
            x = [row["slowdown"] * 100 for row in rows]
            for call, colour in colours.items():
                panel.plot(
                    x,
                    [row[call] * 100 for row in rows],
                    lines[call],
                    marker="o",
                    color=colour,
                    label=call,
                    markersize=3,
                )
                ends = ([row[f"{call}_{end}"] * 100 for row in rows] for end in ("low", "high"))
                panel.fill_between(x, *ends, color=colour, alpha=0.2, linewidth=0)
            panel.axvline(margin * 100, color="#555555", linewidth=0.8, linestyle=":")
            panel.set_title(name)
        figure.axes[0].legend(loc="center right")
        figure.supxlabel(f"B is slower by (%); dotted line: the margin, {margin * 100:g} %")
        figure.supylabel("verdicts (%)")
        decisions = next(iter(studies.values()))[0]["decisions"]
        figure.suptitle(f"What the gate says of a slowdown ({decisions:,} decisions a point)")
        return save(figure, path)


def describe_studies(studies: dict[str, list[dict[str, float]]]) -> str:
    """The guide's table of decisions by relabelling and scaling, a row a study."""
    lines = [
        "| spread of pairs | false regression (0 %) | 5 % slower: regression | pass | inconclusive | 10 % slower: regression |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, rows in studies.items():
        at = {row["slowdown"]: row for row in rows}
        places = (
            (0.0, "regression"),
            (0.05, "regression"),
            (0.05, "pass"),
            (0.05, "inconclusive"),
            (0.10, "regression"),
        )
        figures = " | ".join(f"{at[slowdown][call] * 100:.2f} %" for slowdown, call in places)
        lines.append(f"| {name.rpartition('spread ')[2]} | {figures} |")
    return "\n".join(lines)


def describe_real(rows: list[dict[str, object]]) -> str:
    """The guide's table of real decisions, a row for each thing that arm b did; empty where none were taken."""
    if not rows:
        return ""
    lines = [
        "| what arm b does | launches of a pair | decisions | regression (95 % interval) | inconclusive | pass | pairs, mean | spread |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        share = f"{row['regression']} ({row['regression_low']:.0%} to {row['regression_high']:.0%})".replace("%", " %")
        way = "in turns" if row["in_turns"] else "one after the other"
        what = "the same" if row["b"] == "nothing" else f"`{row['b']}`"
        lines.append(
            f"| {what} | {way} | {row['decisions']} | {share} | {row['inconclusive']} | {row['pass']} | {row['mean_pairs']:.1f} | {row['spread'] * 100:.1f} % |"
        )
    return "\n".join(lines)


def rewrite_guide(path: Path, tables: dict[str, str]) -> None:
    """Put each table between `<!-- MARK -->` and the next `<!-- end -->` of the page; raises ValueError where a mark is missing."""
    text = path.read_text(encoding="utf-8")
    for mark, table in tables.items():
        before, opening, rest = text.partition(f"<!-- {mark} -->\n")
        _, closing, after = rest.partition("<!-- end -->")
        if not (opening and closing):
            raise ValueError(f"{path}: no <!-- {mark} --> … <!-- end -->")
        text = f"{before}{opening}{table}\n{closing}{after}"
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of hvbench ab --all-pairs, or files kept of them")
    parser.add_argument("--decisions", type=int, default=10_000, help="of each slowdown (default 10000)")
    parser.add_argument("--trials", type=int, default=1_000_000, help="of the study of the level")
    parser.add_argument("--margin", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for gate_power.json and the plot")
    parser.add_argument(
        "--keep", type=Path, help="folder for the pairs themselves, a small file a run, which this reads, too"
    )
    parser.add_argument("--guide", type=Path, help="page whose two tables are written anew: docs/ci.md")
    arguments = parser.parse_args()
    level = study_level(trials=arguments.trials, seed=arguments.seed)
    print(f"one-sided error of three looks, {arguments.trials:,} trials, by two-sided level of a look: {level}")
    recorded = [read_recorded(path) for path in arguments.runs]
    real = count_decisions(recorded, margin=arguments.margin)
    for row in real:
        counts = ", ".join(f"{row[call]} {call}" for call in CALLS)
        print(
            f"real decisions, b: {row['b']}, {'in turns' if row['in_turns'] else 'apart'}: {row['decisions']} in {row['runs']} runs: {counts}; {row['mean_pairs']:.1f} pairs"
        )
    equal = [[run for run in recorded if run.b == "nothing" and run.in_turns == in_turns] for in_turns in (True, False)]
    pools = [pool_pairs(runs) for runs in equal if runs]
    pools += [make_normal(spread, seed=arguments.seed) for spread in SPREADS]
    studies = {}
    for pairs in pools:
        print(pairs.describe())
        studies[pairs.name] = study(pairs, decisions=arguments.decisions, margin=arguments.margin, seed=arguments.seed)
        for row in studies[pairs.name]:
            rates = ", ".join(f"{call} {row[call] * 100:.2f} %" for call in CALLS)
            print(f"  slower by {row['slowdown'] * 100:4.1f} %: {rates}; {row['mean_pairs']:.1f} pairs")
    if arguments.keep:
        for run in recorded:
            keep_recorded(run, arguments.keep)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        content = {"level": level, "margin": arguments.margin, "looks": LOOKS, "real": real, "studies": studies}
        (arguments.out / "gate_power.json").write_text(json.dumps(content, indent=1) + "\n")
        if arguments.guide:
            rewrite_guide(arguments.guide, {STUDIES_MARK: describe_studies(studies), REAL_MARK: describe_real(real)})
        print(*plot(studies, arguments.out / "gate_power", margin=arguments.margin))


if __name__ == "__main__":
    main()
