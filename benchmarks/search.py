"""What does `hvbench search` gain, and does it find more than random search in the same time?

    python benchmarks/search.py results/searches            100 minutes on 2 cores: 5 seeds of each, 10 minutes a search
    python benchmarks/search.py results/searches --only-read

Each search has a run folder `METHOD-SEED`; those that are complete are read and not run again. The gain of a search is that of its pairs of launches, with
seeds that it has not seen; the two methods are compared by what their pairs took to the target, a search a sample, as samples that were not paired (Welch).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hvbench.analysis.stats.contrasts import Contrast, as_ratios, judge_samples
from hvbench.sweep.search.confirm import judge
from hvbench.sweep.search.found import Pair
from hvbench.sweep.search.goals import GOALS

METHODS = {"search": [], "random": ["--sampler", "random", "--whole"]}
START = "from hvbench.cli import main; main()"


def run_search(folder: Path, words: Sequence[str]) -> None:
    """Launch one search, or go on with it."""
    command = [sys.executable, "-P", "-c", START, "search", *words, "--out", str(folder)]
    command += ["--resume"] if (folder / "run.json").exists() else []
    subprocess.run(command, check=True)


def read_found(folder: Path) -> dict | None:
    """run.json's `found`; None where the search has not come to its end."""
    path = folder / "run.json"
    return json.loads(path.read_text(encoding="utf-8")).get("found") if path.exists() else None


def read_pairs(found: dict) -> list[Pair]:
    """The pairs of one search."""
    return [Pair(**pair) for pair in found["pairs"]]


def mean_log(values: Sequence[float | None]) -> float:
    """Mean of the logarithms; infinite where a launch did not get there."""
    return math.inf if None in values or not values else math.fsum(map(math.log, values)) / len(values)


def show(contrast: Contrast | None) -> str:
    """`1.62 (1.50 to 1.75)`."""
    if contrast is None:
        return "no ratio"
    ends = "" if contrast.low is None else f" ({contrast.low:.2f} to {contrast.high:.2f})"
    return f"{contrast.ratio:.2f}{ends}"


def main() -> None:
    """Run what is missing, and print the table and the comparison as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder of all searches")
    parser.add_argument("--space", default="tiny")
    parser.add_argument("--goal", default="steps", choices=list(GOALS))
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--np", default="2")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only-read", action="store_true")
    options = parser.parse_args()
    goal = GOALS[options.goal]
    rows: dict[str, list[float]] = {method: [] for method in METHODS}
    print(
        "| method | seed | trials | ended early | default / found (95 % interval) | pairs |\n| :--- | ---: | ---: | ---: | :--- | ---: |"
    )
    for seed in range(options.seeds):
        for method, words in METHODS.items():
            folder = options.out / f"{method}-{seed}"
            asked = [
                options.space,
                "--np",
                options.np,
                "--budget",
                options.budget,
                "--goal",
                goal.name,
                "--seed",
                str(seed),
                *words,
            ]
            if read_found(folder) is None and not options.only_read:
                run_search(folder, asked)
            if (found := read_found(folder)) is None:
                continue
            pairs = read_pairs(found)
            contrast = judge(pairs, goal)
            told = contrast.turned() if isinstance(contrast, Contrast) else None
            print(
                f"| {method} | {seed} | {found['trials']} | {found['ended_early']} | {show(told)} | {len(pairs)} |",
                flush=True,
            )
            rows[method].append(mean_log([pair.found for pair in pairs]))
    if all(len(values) > 1 and all(map(math.isfinite, values)) for values in rows.values()):
        ratio = as_ratios(judge_samples([rows["search"]], [rows["random"]], has_mean=False)).contrasts[0]
        print(
            f"\n{goal.in_words} of what was found, search / random: {show(ratio)}, {options.seeds} searches each: {ratio.call}"
        )


if __name__ == "__main__":
    main()
