"""How often do the published 95 % intervals hold the truth? Simulated launches through the functions that reports call.

    python benchmarks/coverage.py                     about 10 minutes on 2 cores: the table of docs/measurements.md
    python benchmarks/coverage.py --rounds 200 --only break-even

A case makes launches whose truth is known (three to ten of them, with equal or unequal spreads, leaning to one side as step
times do: gamma with a skewness of 1), asks the program for its interval, and looks whether the truth is in it. An interval
that is open to one side holds everything there.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, it finds its neighbours and the hvbench beside it

from hvbench.analysis.frame.axes import AXES  # noqa: E402
from hvbench.analysis.stats.best import bound_by_best  # noqa: E402
from hvbench.analysis.stats.contrasts import judge_family, rows_by_round  # noqa: E402
from hvbench.analysis.stats.estimates import (  # noqa: E402
    estimate_mean,
    estimate_rate,
    estimate_ratio,
    estimate_to_target,
)
from hvbench.analysis.stats.quotients import quotient_of_means  # noqa: E402
from hvbench.analysis.stats.ratios import paired_ratio, welch_ratio  # noqa: E402
from hvbench.analysis.stats.survival import Observed, estimate_arrival  # noqa: E402
from hvbench.analysis.topics.batch.noise import Looks, estimate_noise_scale  # noqa: E402
from hvbench.analysis.topics.batch.tradeoff import fit_tradeoff, steps_between  # noqa: E402
from hvbench.analysis.topics.links.model import LinkModel, link_models  # noqa: E402
from hvbench.communication.cost import error_factor  # noqa: E402
from hvbench.plan.precision import widest_look, widest_looks  # noqa: E402
from hvbench.spec.point import Point  # noqa: E402

LEAST = 0.93  # of a nominal 95 %
Random = np.random.Generator
Hits = dict[str, bool]
FIRST_ROUNDS, MOST_ROUNDS = 3, 40  # before and after those that a precision target adds


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting: `simulate` makes launches and says for each figure whether its interval holds the truth."""

    name: str
    function: str  # of the program, that the interval comes from
    setting: str
    simulate: Callable[[Random], Hits]
    weight: int = 1  # so many times fewer rounds: it takes long


def holds(low: float | None, truth: float, high: float | None) -> bool:
    """Whether an interval holds the truth; None and NaN are open ends."""
    is_above = low is None or math.isnan(low) or low <= truth
    return is_above and (high is None or math.isnan(high) or truth <= high)


def lean(random: Random, size: int | tuple[int, ...]) -> np.ndarray:
    """Deviations of mean 0 and variance 1 that lean to one side: gamma, skewness 1."""
    return random.gamma(4.0, size=size) / 2 - 2


def over_launches(n: int) -> Iterator[Case]:
    """Means and rates of launches, and ratios of two sets of them."""

    def means(random: Random) -> Hits:
        launches = 0.4 + 0.02 * lean(random, n)
        mean = estimate_mean(launches.tolist())
        return {"": holds(mean.low, 0.4, mean.high)}

    def rates(random: Random) -> Hits:
        rate = estimate_rate(np.exp(0.05 * lean(random, n)).tolist())
        return {"": holds(rate.low, 1.0, rate.high)}

    def unequal(random: Random) -> Hits:
        a, b = np.exp(0.02 * lean(random, n)).tolist(), np.exp(0.06 * lean(random, n)).tolist()
        welch, ratio = welch_ratio(a, b), estimate_ratio(a, b)
        return {"compared": holds(welch.low, 1.0, welch.high), "libraries": holds(ratio.low, 1.0, ratio.high)}

    def paired(random: Random) -> Hits:
        drift = 0.1 * random.standard_normal(n)
        a, b = np.exp(drift + 0.02 * lean(random, n)), 1.05 * np.exp(drift + 0.06 * lean(random, n))
        ratio = paired_ratio(a.tolist(), b.tolist())
        return {"": holds(ratio.low, 1.05, ratio.high)}

    def quotient(random: Random) -> Hits:
        drift = np.exp(0.05 * random.standard_normal(n))
        cost, saved = drift * (20 + 0.5 * lean(random, n)), drift * 0.01 + 0.001 * lean(random, n)
        found = quotient_of_means(cost.tolist(), saved.tolist())
        return {"": holds(found.low, 20 / 0.01, found.high)}

    def best(random: Random) -> Hits:
        drift = 0.05 * random.standard_normal(n)
        rates = dict(enumerate(0.5 * np.exp(drift + 0.03 * lean(random, n))))
        peaks = {
            k: dict(enumerate(size * np.exp(drift + 0.03 * lean(random, n)))) for k, size in enumerate((1.0, 0.98))
        }
        low, high = bound_by_best(rates, peaks) or (None, None)
        return {"": holds(low, 0.5, high)}

    count = f"{n} launches"
    yield Case(name="mean over launches", function="estimate_mean", setting=count, simulate=means)
    yield Case(name="rate or duration over launches", function="estimate_rate", setting=count, simulate=rates)
    yield Case(
        name="ratio of two sides",
        function="welch_ratio, estimate_ratio",
        setting=f"{count} a side, spreads 1:3",
        simulate=unequal,
    )
    yield Case(name="ratio of pairs", function="paired_ratio", setting=f"{n} pairs, drift", simulate=paired)
    yield Case(name="steps that pay back", function="quotient_of_means", setting=f"{n} pairs, drift", simulate=quotient)
    yield Case(
        name="share of the best of two libraries", function="bound_by_best", setting=f"{n} pairs, drift", simulate=best
    )


def to_target(n: int, *, lost: float) -> Iterator[Case]:
    """Seeds on their way to a target, looked at every ten steps; a share of them diverges."""

    def simulate(random: Random) -> Hits:
        steps = 80 * np.exp(0.2 * lean(random, n))
        seen = 10 * np.ceil(steps / 10)
        never, end = random.random(n) < lost, random.uniform(60, 400, n)
        launches = [
            Observed(value=math.inf, is_reached=False, seed=i) if never[i]
            else Observed(value=float(seen[i]), is_reached=True, seed=i) if seen[i] <= end[i]
            else Observed(value=float(10 * math.floor(end[i] / 10)), is_reached=False, seed=i)
            for i in range(n)
        ]  # fmt: skip
        arrival = estimate_arrival(launches)
        truth = 10 * math.ceil(median_of_lean(0.5 / (1 - lost)) / 10)
        hits = {"median, half arrived": holds(arrival.low, truth, arrival.high)}
        if not lost:
            mean = estimate_to_target(seen, seen - 10)
            hits["mean, evaluations every ten steps"] = holds(mean.low, mean_of_lean(), mean.high)
        return hits

    some = f", {100 * lost:.0f} % diverge, some are cut short" if lost else ""
    yield Case(
        name="steps to the target",
        function="estimate_arrival, estimate_to_target",
        setting=f"{n} seeds{some}",
        simulate=simulate,
    )


@cache
def many_of_lean() -> np.ndarray:
    """Very many of the steps to the target that `to_target` draws from."""
    return 80 * np.exp(0.2 * lean(np.random.default_rng(0), 1_000_000))


@cache
def median_of_lean(probability: float) -> float:
    """A quantile of the steps to the target."""
    return float(np.quantile(many_of_lean(), probability))


@cache
def mean_of_lean() -> float:
    """Their mean."""
    return float(many_of_lean().mean())


LINKS = (2e8, 4e8, 1e9, 3e9, 1e11)
PAYLOADS = {"none": 16e6, "fp16": 8e6}
LOCAL = {"none": 0.093, "fp16": 0.127}
HIDDEN = {"none": 0.0315, "fp16": 0.0466}
WIRE = 1.02


def step_on(compression: str, link: float) -> float:
    """Seconds of a step of two ranks."""
    return LOCAL[compression] + max(0.0, WIRE * 8 * PAYLOADS[compression] / link - HIDDEN[compression])


@cache
def linked_points(n: int) -> pd.DataFrame:
    """`n` launches of every compression on every link, without their step times, as `link_models` reads them."""
    point = Point(world_size=2).model_dump()
    rows = [
        {**{name: point[name] for name in AXES}, "compression": compression, "link_bits_per_second": link, "repeat": repeat,
         "status": "ok", "point_id": compression}
        for repeat in range(n) for link in LINKS for compression in PAYLOADS
    ]  # fmt: skip
    return pd.DataFrame(rows)


@cache
def true_break_even() -> float:
    """Bits per second at which compressing makes no difference."""
    return LinkModel(
        point={}, world_size=2, payload_bytes=PAYLOADS, local_seconds=LOCAL, hidden_seconds=HIDDEN, wire=WIRE, launches=0,
        links=(LINKS[0], LINKS[-1]),
    ).break_even("fp16")  # fmt: skip


def on_links(n: int, spreads: tuple[float, ...], *, drift: float = 0.0) -> Iterator[Case]:
    """Steps on links of different bandwidth: where compression breaks even, and what is fitted and predicted beside."""

    def simulate(random: Random) -> Hits:
        points = linked_points(n)
        spread = points["link_bits_per_second"].map(dict(zip(LINKS, spreads, strict=True))).to_numpy()
        factors = spread * lean(random, len(points)) + drift * random.standard_normal(n)[points["repeat"]]
        steps = [step_on(*key) for key in points[["compression", "link_bits_per_second"]].itertuples(index=False)]
        (model,) = link_models(points.assign(step_seconds_median=steps * np.exp(factors)), PAYLOADS)
        between = {"bits_per_second": 6e8}
        spans = {
            "break-even": (model.break_even_span("fp16"), true_break_even()),
            "local": (model.parameter_span("local_seconds", "none"), LOCAL["none"]),
            "hidden": (model.parameter_span("hidden_seconds", "none"), HIDDEN["none"]),
            "wire": (model.parameter_span("wire"), WIRE),
            "step between the links": (model.step_span("none", **between), step_on("none", 6e8)),
            "efficiency there": (model.efficiency_span("fp16", **between), LOCAL["none"] / step_on("fp16", 6e8)),
        }
        return {name: holds(span.low, truth, span.high) for name, (span, truth) in spans.items()}

    span = f"{100 * min(spreads):g} to {100 * max(spreads):g} %"
    setting = f"{n} launches on each of 5 links, spread {span}{', drift' if drift else ''}"
    yield Case(name="links", function="link_models", setting=setting, simulate=simulate, weight=8)


def at_gradients(looks: int) -> Iterator[Case]:
    """The noise scale of a quadratic in twelve dimensions: norms of 16 micro-batches of 4 samples and of their average."""
    curvature, sigma, gradient = np.linspace(0.5, 2.0, 12), np.linspace(1.0, 3.0, 12), 0.4 * np.linspace(0.5, 2.0, 12)
    truth = float(np.sum((curvature * sigma) ** 2) / np.sum(gradient**2))

    def simulate(random: Random) -> Hits:
        micro = gradient + curvature * sigma * random.standard_normal((looks, 16, 12)) / 2
        small, large = (micro**2).sum(axis=2).mean(axis=1), (micro.mean(axis=1) ** 2).sum(axis=1)
        seen = Looks(
            step=np.arange(looks), noise=(small - large) / (1 / 4 - 1 / 64), signal=(64 * large - 4 * small) / 60
        )
        scale = estimate_noise_scale(seen)
        return {"": holds(scale.low, truth, scale.high)}

    yield Case(name="noise scale", function="estimate_noise_scale", setting=f"{looks} looks", simulate=simulate)


def over_batches(batches: int, seeds: int, *, lack: float) -> Iterator[Case]:
    """Steps to the target at doubling batches, seen every ten steps; `lack`: how far a batch is off the law by itself."""

    def simulate(random: Random) -> Hits:
        sizes = [16 * 2**i for i in range(batches)]
        pairs = []
        for size in sizes:
            off = lack * random.standard_normal()
            steps = 100 * (1 + 60 / size) * np.exp(off + 0.05 * lean(random, seeds))
            seen = [
                Observed(value=10 * math.ceil(each / 10), is_reached=True, since=10 * math.ceil(each / 10) - 10)
                for each in steps
            ]
            pairs += [(size, middle) for middle in steps_between(seen)]
        fit = fit_tradeoff(*zip(*pairs, strict=True))
        assert fit is not None
        return {
            name: holds(estimate.low, truth, estimate.high)
            for name, estimate, truth in (
                ("S_min", fit.fewest_steps, 100),
                ("E_min", fit.fewest_samples, 6000),
                ("B_crit", fit.critical_batch, 60),
            )
        }

    setting = f"{batches} batches, {seeds} seed{'s' * (seeds > 1)} each, evaluations every ten steps, {100 * lack:g} % off the law"
    yield Case(name="critical batch", function="fit_tradeoff", setting=setting, simulate=simulate)


def of_held_out(cases: int) -> Iterator[Case]:
    """The next prediction of a model whose errors on held-out cases are known."""

    def simulate(random: Random) -> Hits:
        errors = 0.1 * random.standard_t(8, cases + 1)
        factor = error_factor(pd.DataFrame({"relative_error": np.expm1(errors[:-1])}))
        return {"": abs(errors[-1]) <= math.log(factor)}

    yield Case(
        name="predicted all-reduce", function="error_factor", setting=f"{cases} held-out cases", simulate=simulate
    )


def until_narrow(spread: float) -> Iterator[Case]:
    """Launches added until tokens/s are known to 2 %, at most forty."""

    def simulate(random: Random) -> Hits:
        launches = np.exp(spread * random.standard_normal(40))
        n = next((n for n in range(1, 40) if widest_look(launches[:n].tolist()) <= 0.02), 40)
        rate = estimate_rate(launches[:n])
        return {"": holds(rate.low, 1.0, rate.high)}

    yield Case(
        name="rate after launches until it is narrow",
        function="estimate_rate, widest_look",
        setting=f"spread {100 * spread:g} %, target 2 %",
        simulate=simulate,
        weight=2,
    )


def until_ratios_are_narrow(spreads: tuple[float, ...], truths: tuple[float, ...]) -> Iterator[Case]:
    """Rounds added to each configuration until the ratio of two frameworks is known to 3 % there, at most forty."""

    def simulate(random: Random) -> Hits:
        every = np.array(truths)[:, None] + np.array(spreads)[:, None] * random.standard_normal(
            (len(truths), MOST_ROUNDS)
        )
        rounds = [FIRST_ROUNDS] * len(truths)
        while True:
            logs = [dict(enumerate(each[:count].tolist())) for each, count in zip(every, rounds, strict=True)]
            widths = widest_looks(logs)
            wide = [place for place, width in enumerate(widths) if width > 0.03 and rounds[place] < MOST_ROUNDS]
            if not wide:
                break
            for place in wide:
                rounds[place] += 1
        family = judge_family(rows_by_round(logs))
        held = [
            holds(each.low, math.exp(truth), each.high) for each, truth in zip(family.contrasts, truths, strict=True)
        ]
        return {"all of them at once": all(held), "one of them": held[0]}

    spread = " and ".join(f"{100 * each:g}" for each in dict.fromkeys(spreads))
    differences = " and ".join(f"{100 * each:g}" for each in dict.fromkeys(truths))
    count = f"{len(truths)} configurations" if len(truths) > 1 else "one configuration"
    yield Case(
        name="ratios of frameworks after rounds until they are narrow",
        function="judge_family, widest_looks",
        setting=f"{count}, spread {spread} %, {differences} % apart, target 3 %",
        simulate=simulate,
        weight=8,
    )


def list_cases() -> list[Case]:
    """Every published interval, in the settings that decide about it."""
    equal, rising, falling = (0.03,) * 5, (0.01, 0.02, 0.03, 0.05, 0.06), (0.06, 0.05, 0.03, 0.02, 0.01)
    return [
        *(case for n in (3, 5, 10) for case in over_launches(n)),
        *(case for n in (3, 6, 10) for lost in (0.0, 0.2) for case in to_target(n, lost=lost)),
        *(case for n in (3, 5) for spreads in (equal, rising, falling) for case in on_links(n, spreads)),
        *on_links(3, rising, drift=0.05),
        *(case for looks in (5, 10, 30) for case in at_gradients(looks)),
        *(case for shape in ((4, 1), (6, 1), (6, 3)) for case in over_batches(*shape, lack=0.05)),
        *(case for cases in (5, 12, 30) for case in of_held_out(cases)),
        *(case for spread in (0.01, 0.02, 0.04) for case in until_narrow(spread)),
        *until_ratios_are_narrow((0.02,), (0.05,)),
        *until_ratios_are_narrow((0.035,), (0.0,)),
        *(case for spread in (0.01, 0.02, 0.035) for case in until_ratios_are_narrow((spread,) * 5, (0.0,) * 5)),
        *until_ratios_are_narrow((0.02,) * 5, (0.05, 0.05, 0.02, 0.0, 0.0)),
        *until_ratios_are_narrow((0.06, 0.02, 0.02, 0.02, 0.02), (0.0,) * 5),
    ]


def measure(case: Case, *, rounds: int, seed: int = 0) -> dict[str, float]:
    """Figure -> share of the rounds in which its interval held the truth."""
    counted = [case.simulate(np.random.default_rng([seed, number])) for number in range(max(1, rounds // case.weight))]
    return {name: sum(each[name] for each in counted) / len(counted) for name in counted[0]}


def main() -> None:
    """Simulate and print the table, the worst last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4000, help="simulated runs of each case (default: %(default)s)")
    parser.add_argument("--only", default="", help="cases whose name or function has this text")
    options = parser.parse_args()
    rows = []
    for case in list_cases():
        if options.only in f"{case.name} {case.function}":
            for figure, share in measure(case, rounds=options.rounds).items():
                name = f"{case.name}: {figure}" if figure else case.name
                rows.append((name, case.function, case.setting, f"{100 * share:.1f} %", options.rounds // case.weight))
                print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    header = ("figure", "function", "setting", "holds the truth", "simulated")
    print(tabulate(rows, headers=header, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
