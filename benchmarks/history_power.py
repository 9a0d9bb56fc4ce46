"""How often `hvbench history` marks a step where there is none, and how often it finds one: simulated lines of runs.

    python benchmarks/history_power.py --lines 2000 --guide docs/ci.md

Lines without a step: white noise, autoregressive noise of order 1, a random walk, drifts with and without noise, heavy tails. Lines
with one: every run from the middle on is longer by so many standard deviations of a run's noise.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, it finds the hvbench beside it

from hvbench.comparison.changes import find_changes  # noqa: E402

RUNS = (8, 12, 20, 40)
SPREAD = 0.01  # of a run; the finder is of logarithms, so that no other spread differs
STEPS = (4, 6, 10)  # standard deviations

Line = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def autoregressive(rho: float) -> Line:
    """Noise of order 1, (lines, runs), of standard deviation 1."""

    def make(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        line = random.standard_normal(shape)
        for run in range(1, shape[1]):
            line[:, run] = rho * line[:, run - 1] + math.sqrt(1 - rho**2) * line[:, run]
        return line

    return make


def random_walk(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A machine whose speed wanders: every run is the one before plus noise."""
    return random.standard_normal(shape).cumsum(axis=1)


def straight_drift(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """White noise on a straight drift of half its standard deviation a run."""
    return random.standard_normal(shape) + 0.5 * np.arange(shape[1])


def noisy_walk(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """White noise on a random walk of 0.3 standard deviations a run."""
    return random.standard_normal(shape) + 0.3 * random_walk(random, shape)


def drift_and_memory(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Autoregressive noise (0.5) on a straight drift of 0.2 standard deviations a run."""
    return autoregressive(0.5)(random, shape) + 0.2 * np.arange(shape[1])


def heavy_tails(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Student's t with 4 degrees of freedom."""
    return random.standard_t(4, shape) / math.sqrt(2)


LINES: dict[str, Line] = {
    "white noise": autoregressive(0.0),
    "autoregressive, 0.3": autoregressive(0.3),
    "autoregressive, 0.5": autoregressive(0.5),
    "autoregressive, 0.7": autoregressive(0.7),
    "random walk": random_walk,
    "noise on a straight drift": straight_drift,
    "noise on a random walk": noisy_walk,
    "autoregressive, 0.5, on a drift": drift_and_memory,
    "heavy tails (t, 4 degrees of freedom)": heavy_tails,
}


def make_values(line: Line, *, lines: int, runs: int, step: float, seed: int) -> np.ndarray:
    """(lines, runs) of a metric, longer by `step` standard deviations from the middle on."""
    noise = line(np.random.default_rng([seed, runs]), (lines, runs))
    return np.exp(SPREAD * (noise + step * (np.arange(runs) >= runs // 2)))


def rate_of_alarms(line: Line, *, lines: int, runs: int, seed: int) -> float:
    """Share of lines without a step in which one is marked."""
    values = make_values(line, lines=lines, runs=runs, step=0.0, seed=seed)
    return float(np.mean([bool(find_changes(row)) for row in values]))


def rate_of_finds(line: Line, *, lines: int, runs: int, step: float, seed: int) -> float:
    """Share of lines whose step is marked within one run of where it is."""
    values = make_values(line, lines=lines, runs=runs, step=step, seed=seed)
    return float(np.mean([any(abs(place - runs // 2) <= 1 for place in find_changes(row)) for row in values]))


def study(*, lines: int, seed: int) -> dict[str, dict[str, float]]:
    """Kind of line -> `RUNS runs` of no step, and `RUNS runs, STEP` of a step -> share."""
    found: dict[str, dict[str, float]] = {}
    for name, line in LINES.items():
        row = {f"{runs} runs": rate_of_alarms(line, lines=lines, runs=runs, seed=seed) for runs in RUNS}
        for runs in (12, 20):
            for step in STEPS:
                key = f"{runs} runs, {step} SD"
                row[key] = rate_of_finds(line, lines=max(1, lines // 4), runs=runs, step=step, seed=seed)
        found[name] = row
        print(name, row, flush=True)
    return found


def describe(found: dict[str, dict[str, float]]) -> str:
    """The guide's table."""
    columns = list(next(iter(found.values())))
    titles = [f"no step, {name}" if "," not in name else f"found, {name}" for name in columns]
    lines = [f"| runs | {' | '.join(titles)} |", f"| :--- |{' ---: |' * len(columns)}"]
    lines += [f"| {name} | {' | '.join(f'{row[each]:.0%}' for each in columns)} |" for name, row in found.items()]
    return "\n".join(lines).replace("%", " %")


def main() -> None:
    from benchmarks.gate_power import rewrite_guide

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--lines", type=int, default=2000, help="without a step, of each kind and length; a quarter with one"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for history_power.json")
    parser.add_argument("--guide", type=Path, help="page whose table is written anew: docs/ci.md")
    arguments = parser.parse_args()
    found = study(lines=arguments.lines, seed=arguments.seed)
    if arguments.out:
        (arguments.out / "history_power.json").write_text(json.dumps(found, indent=1) + "\n")
    if arguments.guide:
        rewrite_guide(arguments.guide, {"history": describe(found)}, source="history_power")


if __name__ == "__main__":
    main()
