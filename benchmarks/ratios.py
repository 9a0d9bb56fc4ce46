"""Samples of launches -> the tables of `benchmarks/peers.py`; pure arithmetic.

A launch's rate is the tokens of its timed steps divided by their seconds. A ratio compares the median step of two
contenders launched in the same round, once by the wall and once by the processor time of the process, which other work
on the machine changes less; its interval is over the rounds, on the log scale.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from tabulate import tabulate

from hvbench.analysis.stats.estimates import Estimate, estimate_rate

Launch = Mapping[str, Any]  # what `contender.run_case` returns, and its `round`

# Each implementation and what it is compared with.
PAIRS = (("pytorch", "huggingface"), ("pytorch", "plain-torch"), ("tensorflow", "keras-hub"))
GOAL = 1.2
CLOCKS = {"step_seconds": "twin/peer", "cpu_seconds": "by CPU time"}


def plan_rounds(contenders: Sequence[str], *, rounds: int, seed: int) -> list[list[str]]:
    """Who is launched when: a random order, then its reverse, then another (A B, B A, …)."""
    shuffle = random.Random(seed)
    orders: list[list[str]] = []
    for number in range(rounds):
        orders.append(list(reversed(orders[-1])) if number % 2 else shuffle.sample(list(contenders), len(contenders)))
    return orders


def timed_seconds(launch: Launch, *, clock: str = "step_seconds") -> list[float]:
    """Seconds of each step by one of CLOCKS, without the warm-up."""
    return launch[clock][launch["warmup_steps"] :]


def tokens_per_second(launch: Launch) -> float:
    """Tokens of the timed steps over their seconds."""
    seconds = timed_seconds(launch)
    return launch["tokens_per_step"] * len(seconds) / sum(seconds)


def select(launches: Sequence[Launch], **values: Any) -> dict[int, Launch]:
    """Round -> the launch whose fields have `values`."""
    return {each["round"]: each for each in launches if all(each[key] == value for key, value in values.items())}


def compare_steps(twin: Mapping[int, Launch], peer: Mapping[int, Launch], *, clock: str = "step_seconds") -> Estimate:
    """How many times as fast as `peer` the `twin` is, over the rounds that have both. ValueError if none has."""

    def typical(launch: Launch) -> float:
        return median(timed_seconds(launch, clock=clock))

    return estimate_rate(
        [typical(peer[number]) / typical(twin[number]) for number in sorted(twin.keys() & peer.keys())]
    )


def check_equal_work(launches: Sequence[Launch]) -> None:
    """ValueError unless all contenders of a shape trained as many parameters on as many tokens a step."""
    seen: dict[int, tuple[int, int, str]] = {}
    for each in launches:
        work = (each["parameters"], each["tokens_per_step"])
        known = seen.setdefault(each["sequence_length"], (*work, each["contender"]))
        if known[:2] != work:
            raise ValueError(f"{each['contender']} trains {work} parameters and tokens a step, {known[2]} {known[:2]}")


def cases_of(launches: Sequence[Launch]) -> list[dict[str, Any]]:
    """The shapes and precisions that were run, in their first order."""
    keys = dict.fromkeys((each["precision"], each["sequence_length"]) for each in launches)
    return [{"precision": precision, "sequence_length": length} for precision, length in sorted(keys, reverse=True)]


def rate_rows(launches: Sequence[Launch], contenders: Sequence[str]) -> list[dict[str, Any]]:
    """One row a case and contender: tokens/s over its launches, and the first loss."""
    rows = []
    for case in cases_of(launches):
        for name in contenders:
            chosen = select(launches, contender=name, **case)
            if not chosen:
                continue
            estimate = estimate_rate([tokens_per_second(each) for each in chosen.values()])
            rows.append(
                {
                    **case,
                    "contender": name,
                    "n": estimate.n,
                    "tokens/s": f"{estimate.centre:,.0f}",
                    "95 % interval": format_interval(estimate, ",.0f"),
                    "first loss": f"{next(iter(chosen.values()))['loss'][0]:.5f}",
                }
            )
    return rows


def ratio_rows(launches: Sequence[Launch]) -> list[dict[str, Any]]:
    """One row a case and pair of which both were run."""
    rows = []
    for case in cases_of(launches):
        for twin, peer in PAIRS:
            arms = [select(launches, contender=name, **case) for name in (twin, peer)]
            if not arms[0].keys() & arms[1].keys():
                continue
            row = {**case, "twin": twin, "peer": peer}
            estimates = {heading: compare_steps(*arms, clock=clock) for clock, heading in CLOCKS.items()}
            for heading, estimate in estimates.items():
                row |= {"n": estimate.n, heading: f"{estimate.centre:.2f} ({format_interval(estimate, '.2f')})"}
            row[f"goal {GOAL}"] = judge(estimates["twin/peer"])
            rows.append(row)
    return rows


def judge(estimate: Estimate) -> str:
    """`reached` or `missed` where the whole interval says so."""
    if estimate.low is None:
        return "n=1"
    if estimate.low >= GOAL:
        return "reached"
    return "missed" if estimate.high < GOAL else "undecided"


def format_interval(estimate: Estimate, form: str) -> str:
    """`low … high`, or `n=1` where one launch gives none."""
    return "n=1" if estimate.low is None else f"{estimate.low:{form}} … {estimate.high:{form}}"


def to_markdown(launches: Sequence[Launch], contenders: Sequence[str]) -> str:
    """Both tables."""
    tables = [rate_rows(launches, contenders), ratio_rows(launches)]
    texts = [
        tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True, stralign="right")
        for rows in tables
        if rows
    ]
    return "\n\n".join(texts) + "\n"
