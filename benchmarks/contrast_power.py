"""How often "faster" is wrong, and which differences it finds: the shipped rule on simulated sweeps.

    python benchmarks/contrast_power.py                              about a minute: the tables of docs/reading-a-report.md
    python benchmarks/contrast_power.py --guide docs/reading-a-report.md       write them there, and contrast_power.json beside its images
    python benchmarks/contrast_power.py --sweeps 1000

A sweep is ten points, five configurations in two frameworks, launched round by round; a launch's ln(rate) is its framework's and configuration's
effect, what its round and its place in it did to the machine, and chance. Two families are judged: the frameworks against
each other in five configurations, and the best of a framework's five against each of the rest. Thousands at once are decided by
`hvbench.analysis.stats.decision`, and the first few the long way, too, by `judge_family`; a difference ends the program.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, it finds its neighbours and the hvbench beside it

from hvbench.analysis.stats.contrasts import OF_RATIOS, Call, judge_family  # noqa: E402
from hvbench.analysis.stats.decision import Decided, decide, gather_best, gather_pairs  # noqa: E402

CONFIGURATIONS = 5
ROUNDS = (3, 5)
MORE_ROUNDS = (3, 5, 7, 10)
SPREAD = 0.035  # of a round's ln(A/B)
SPREADS = (0.02, 0.035, 0.05)
DIFFERENCE = math.log(1.05)
SMALL_SPREAD = 0.012  # at which equality can be said at all
CHECKED = 4  # sweeps of each kind that are judged the long way, too
MARKS = ("errors", "power", "report")  # tables in the guide: <!-- errors, from docs/images/contrast_power.json -->
Random = np.random.Generator
Noise = Callable[[Random, int, int], np.ndarray]  # (random, sweeps, rounds) -> (sweeps, 2, configurations, rounds)


def chance(random: Random, sweeps: int, rounds: int) -> np.ndarray:
    """Independent launches whose ratio in a round has standard deviation 1."""
    return random.standard_normal((sweeps, 2, CONFIGURATIONS, rounds)) / math.sqrt(2)


def scaled(*factors: float) -> Noise:
    """Launches of each configuration as noisy as its factor says."""
    return lambda random, sweeps, rounds: chance(random, sweeps, rounds) * np.array(factors)[:, None]


def heavy_tails(random: Random, sweeps: int, rounds: int) -> np.ndarray:
    """Student's t with 4 degrees of freedom."""
    return random.standard_t(4, (sweeps, 2, CONFIGURATIONS, rounds)) / 2


def rounds_in_common(random: Random, sweeps: int, rounds: int) -> np.ndarray:
    """Half of the variance is the round's of a framework, whatever the configuration: its workers landed well or badly."""
    shared = random.standard_normal((sweeps, 2, 1, rounds)) / math.sqrt(2)
    return (chance(random, sweeps, rounds) + shared) / math.sqrt(2)


def machine(states: np.ndarray) -> np.ndarray:
    """What the machine does to both frameworks, which take turns: (sweeps, places of all rounds) -> as launches, rounds run forth and back."""
    placed = states.reshape(len(states), -1, CONFIGURATIONS).copy()
    placed[:, 1::2] = placed[:, 1::2, ::-1]
    return placed.transpose(0, 2, 1)[:, None]


def drift(random: Random, sweeps: int, rounds: int) -> np.ndarray:
    """The machine slows down by six spreads (a fifth) from the first launch to the last."""
    places = CONFIGURATIONS * rounds
    return chance(random, sweeps, rounds) + machine(np.tile(np.linspace(0, 6, places), (sweeps, 1)))


def moods(random: Random, sweeps: int, rounds: int) -> np.ndarray:
    """The machine's speed is autocorrelated, 0.8 from one place to the next, with a spread of 1.5."""
    steps = random.standard_normal((sweeps, CONFIGURATIONS * rounds))
    states = np.empty_like(steps)
    states[:, 0] = steps[:, 0]
    for place in range(1, steps.shape[1]):
        states[:, place] = 0.8 * states[:, place - 1] + 0.6 * steps[:, place]
    return chance(random, sweeps, rounds) + machine(1.5 * states)


def habits(correlation: float) -> Noise:
    """Each framework's own speed is autocorrelated from a round to the next: taking turns does not take that out."""

    def draw(random: Random, sweeps: int, rounds: int) -> np.ndarray:
        found = chance(random, sweeps, rounds)
        for place in range(1, rounds):
            found[..., place] *= math.sqrt(1 - correlation**2)
            found[..., place] += correlation * found[..., place - 1]
        return found

    return draw


NOISES: dict[str, Noise] = {
    "equal spreads": chance,
    "one configuration 3 times as noisy": scaled(3, 1, 1, 1, 1),
    "two of five 3 times as noisy": scaled(3, 3, 1, 1, 1),
    "four of five 3 times as noisy": scaled(3, 3, 3, 3, 1),
    "spreads from 1 to 3": scaled(*np.geomspace(1, 3, CONFIGURATIONS)),
    "half of the spread common to a round": rounds_in_common,
    "heavy tails (t, 4 degrees of freedom)": heavy_tails,
    "machine drifts by a fifth": drift,
    "machine's speed autocorrelated (0.8)": moods,
    "frameworks' own speeds autocorrelated (0.05)": habits(0.05),
    "frameworks' own speeds autocorrelated (0.2)": habits(0.2),
}


def contrast_frameworks(logs: np.ndarray) -> Decided:
    """The family of (sweeps, 2, configurations, rounds): one framework against the other, in every configuration and over all."""
    values = logs[:, 0] - logs[:, 1]
    found = decide(gather_pairs(values))
    for index in range(min(CHECKED, len(values))):
        _require_same(found, index, values[index])
    return found


def contrast_best(logs: np.ndarray) -> Decided:
    """The family of (sweeps, points, rounds): the best point, by its mean, against each of the others in their order."""
    sweeps, points, rounds = logs.shape
    best = logs.mean(axis=-1).argmax(axis=-1)
    others = np.arange(points) != best[:, None]
    values = (logs[np.arange(sweeps), best][:, None] - logs)[others].reshape(sweeps, points - 1, rounds)
    found = decide(gather_best(values))
    for index in range(min(CHECKED, len(values))):
        _require_same(found, index, values[index], is_best=True)
    return found


def _require_same(decided: Decided, index: int, values: np.ndarray, **terms: Any) -> None:
    """Raise AssertionError where `judge_family` says anything else of one family."""
    family = judge_family(values.tolist(), **terms)
    contrasts = [*family.contrasts, *([family.mean] if family.mean else [])]
    ends = [(math.log(each.low), math.log(each.high), each.p_value) for each in contrasts]
    expected = np.stack([decided.low[index], decided.high[index], decided.p_value[index]], axis=-1)
    assert np.allclose(ends, expected), (ends, expected)
    called = [each.call in (Call.FASTER, Call.SLOWER) for each in contrasts]
    assert called == is_called(decided)[index].tolist()


def is_called(decided: Decided) -> np.ndarray:
    """(sweeps, contrasts and mean): faster or slower."""
    return (decided.p_value <= 0.05) & (np.abs(decided.mean) >= OF_RATIOS.least)


def is_equal(decided: Decided) -> np.ndarray:
    """(sweeps, contrasts and mean): within 3 % of each other, whatever the interval leaves open."""
    return ~is_called(decided) & (np.maximum(-decided.low, decided.high) <= OF_RATIOS.equal_within)


def count_errors(noise: Noise, *, rounds: int, sweeps: int, random: Random) -> dict[str, float]:
    """Shares of sweeps of equal points with any false "faster"; and of contrasts whose interval holds the truth."""
    logs = SPREAD * noise(random, sweeps, rounds)
    frameworks, best = contrast_frameworks(logs), contrast_best(logs[:, 0])
    return {
        "frameworks": float(is_called(frameworks).any(axis=1).mean()),
        "best": float(is_called(best).any(axis=1).mean()),
        "coverage": float(((frameworks.low <= 0) & (frameworks.high >= 0)).mean()),
    }


def count_power(*, rounds: int, spread: float, sweeps: int, random: Random) -> dict[str, float]:
    """Shares of sweeps in which a difference of 5 % is found, in all configurations or in one; and of false and right "equal"."""
    found = {}
    for name, changed in (("all", CONFIGURATIONS), ("one", 1)):
        logs = spread * chance(random, sweeps, rounds)
        logs[:, 0, :changed] += DIFFERENCE
        called = is_called(contrast_frameworks(logs))
        found |= {f"{name}: mean": float(called[:, -1].mean()), f"{name}: each": float(called[:, :changed].mean())}
        best = spread * chance(random, sweeps, rounds)[:, 0]
        best[:, 0] += DIFFERENCE
        is_first = best.mean(axis=-1).argmax(axis=-1) == 0
        found["best"] = float((is_called(contrast_best(best)) & is_first[:, None]).mean())
    logs = spread * chance(random, sweeps, rounds)
    found["equal: mean said so"] = float(is_equal(contrast_frameworks(logs))[:, -1].mean())
    logs[:, 0] += OF_RATIOS.equal_within
    found["3 % apart: anything said to be equal"] = float(is_equal(contrast_frameworks(logs)).any(axis=1).mean())
    return found


def count_report(*, rounds: int, sweeps: int, random: Random) -> dict[str, float]:
    """Shares of equal sweeps with any false claim, by how many questions a report of the suite quickstart asks."""
    logs = SPREAD * chance(random, sweeps, rounds)
    false = is_called(contrast_frameworks(logs)).any(axis=1)
    found = {"the frameworks": float(false.mean())}
    # What quickstart varies: batch, accumulation, precision and compression, each between two of its configurations, in both frameworks.
    for one, other in ((0, 1), (0, 2), (2, 3), (2, 4)):
        decided = decide(gather_pairs(logs[:, :, one] - logs[:, :, other]))
        false |= is_called(decided).any(axis=1)
    found["and four choices"] = float(false.mean())
    false |= is_called(contrast_best(logs.reshape(sweeps, -1, rounds))).any(axis=1)
    return found | {"and the best of all ten points": float(false.mean())}


def study(*, sweeps: int, seed: int) -> dict[str, Any]:
    """What contrast_power.json holds."""
    errors = {
        name: {
            str(rounds): count_errors(noise, rounds=rounds, sweeps=sweeps, random=np.random.default_rng([seed, rounds]))
            for rounds in ROUNDS
        }
        for name, noise in NOISES.items()
    }
    power = {
        f"{rounds}, {spread * 100:g} %": count_power(
            rounds=rounds, spread=spread, sweeps=sweeps, random=np.random.default_rng([seed, rounds, 1])
        )
        for spread in SPREADS
        for rounds in MORE_ROUNDS
    }
    report = {
        str(rounds): count_report(rounds=rounds, sweeps=sweeps, random=np.random.default_rng([seed, rounds, 2]))
        for rounds in ROUNDS
    }
    return {"sweeps": sweeps, "errors": errors, "power": power, "report": report}


def describe(content: Mapping[str, Any]) -> dict[str, str]:
    """Mark -> its table in the guide."""
    rows = [
        [name, *(found[str(rounds)][kind] for kind in ("frameworks", "best", "coverage") for rounds in ROUNDS)]
        for name, found in content["errors"].items()
    ]
    names = ("frameworks", "best of five", "intervals that hold the truth")
    header = ["equal points, spread 3.5 %", *(f"{name}, {rounds} rounds" for name in names for rounds in ROUNDS)]
    power = [[name, *found.values()] for name, found in content["power"].items()]
    titles = {
        "all: mean": "5 % everywhere: found over all",
        "all: each": "in a configuration",
        "one: mean": "5 % in one of five: over all",
        "one: each": "in that one",
        "best": "best by 5 %: over another",
    }
    figures = next(iter(content["power"].values()))
    report = [[f"{rounds}", *found.values()] for rounds, found in content["report"].items()]
    asked = list(next(iter(content["report"].values())))
    return {
        "errors": show_table(header, rows),
        "power": show_table(["rounds, spread", *(titles.get(name, name) for name in figures)], power),
        "report": show_table(["rounds", *asked], report),
    }


def show_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table of shares in per cent."""
    lines = [f"| {' | '.join(header)} |", f"| :--- |{' ---: |' * (len(header) - 1)}"]
    lines += [f"| {row[0]} | {' | '.join(f'{share * 100:.1f} %' for share in row[1:])} |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=10_000, help="of each kind (default: 10,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guide", type=Path, help="the document whose tables are rewritten")
    options = parser.parse_args()
    content = study(sweeps=options.sweeps, seed=options.seed)
    tables = describe(content)
    if options.guide:
        from benchmarks.gate_power import rewrite_guide

        rewrite_guide(options.guide, tables, source="contrast_power")
        path = options.guide.parent / "images" / "contrast_power.json"
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print("\n\n".join(tables.values()))


if __name__ == "__main__":
    main()
