"""Samples of launches -> the tables of `benchmarks/peers.py`; pure arithmetic.

A launch's rate is the tokens of its timed steps divided by their seconds. A ratio compares the steps of two contenders of
the same round (Hodges and Lehmann's estimate), once by the wall and once by the processor time of the process, which other
work on the machine changes less. What it is called over the rounds, `hvbench.analysis.stats.contrasts` decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from hvbench.analysis.stats.contrasts import EQUAL_WITHIN, Call, Contrast, Family, judge_family, rounds_to_tell
from hvbench.analysis.stats.estimates import Estimate, estimate_rate
from hvbench.analysis.stats.ratios import log_shift

Launch = Mapping[str, Any]  # what `contender.run_order` returns, and its `round`
Row = dict[str, Any]

GOAL = 1.2
CLOCKS = {"step_seconds": "wall", "cpu_seconds": "by CPU time"}
EQUAL_WORDS = f"within {EQUAL_WITHIN * 100:g} %"


@dataclass(frozen=True, kw_only=True)
class Question:
    """Pairs of contenders that are judged as one family, and the headings of their table."""

    pairs: tuple[tuple[str, str], ...]
    headings: tuple[str, str]
    has_goal: bool = False


# Are the implementations slow; what is a setting worth.
QUESTIONS = (
    Question(
        pairs=(
            ("pytorch", "huggingface"),
            ("pytorch", "plain-torch"),
            ("pytorch+compile", "huggingface+compile"),
            ("pytorch+compile", "plain-torch+compile"),
            ("tensorflow", "keras-hub"),
            ("tensorflow+xla", "keras-hub+xla"),
        ),
        headings=("twin", "peer"),
        has_goal=True,
    ),
    Question(
        pairs=(
            ("pytorch+onednn", "pytorch"),
            ("pytorch+compile", "pytorch"),
            ("huggingface+compile", "huggingface"),
            ("plain-torch+compile", "plain-torch"),
            ("tensorflow+xla", "tensorflow"),
            ("keras-hub+xla", "keras-hub"),
            ("huggingface", "huggingface+malloc"),
            ("plain-torch", "plain-torch+malloc"),
            ("keras-hub", "keras-hub+malloc"),
            *((f"{name}+again", name) for name in ("pytorch", "huggingface", "plain-torch", "tensorflow", "keras-hub")),
        ),
        headings=("with", "without"),
    ),
)


def timed_seconds(launch: Launch, *, clock: str = "step_seconds") -> list[float]:
    """Seconds of each step by one of CLOCKS, without the warm-up."""
    return launch[clock][launch["warmup_steps"] :]


def tokens_per_second(launch: Launch) -> float:
    """Tokens of the timed steps over their seconds."""
    seconds = timed_seconds(launch)
    return launch["tokens_per_step"] * len(seconds) / sum(seconds)


def select(launches: Sequence[Launch], contender: str) -> dict[int, Launch]:
    """Round -> the contender's launch."""
    return {each["round"]: each for each in launches if each["contender"] == contender}


def log_speeds(launches: Sequence[Launch], pair: tuple[str, str], *, clock: str = "step_seconds") -> list[float]:
    """ln of how many times as fast the first of the pair is, for each round that has both."""
    first, second = (select(launches, name) for name in pair)
    return [
        log_shift(*(timed_seconds(side[number], clock=clock) for side in (first, second)))
        for number in sorted(first.keys() & second.keys())
    ]


def judge(launches: Sequence[Launch], question: Question, *, clock: str = "step_seconds") -> Family | None:
    """The pairs of the question of which both were run, in its order, as one family; None where there are none."""
    logs = [log_speeds(launches, pair, clock=clock) for pair in pairs_of(launches, question)]
    return judge_family(logs, has_mean=False) if logs else None


def pairs_of(launches: Sequence[Launch], question: Question) -> list[tuple[str, str]]:
    """The pairs of the question that share a round."""
    return [pair for pair in question.pairs if log_speeds(launches, pair)]


def check_equal_work(launches: Sequence[Launch]) -> None:
    """ValueError unless all contenders trained as many parameters on as many tokens a step."""
    first = launches[0]
    for each in launches:
        work, known = ((one["parameters"], one["tokens_per_step"]) for one in (each, first))
        if work != known:
            raise ValueError(
                f"{each['contender']} trains {work} parameters and tokens a step, {first['contender']} {known}"
            )


def rate_rows(launches: Sequence[Launch], contenders: Sequence[str]) -> list[Row]:
    """One row a contender: tokens/s over its launches, and the first loss."""
    rows = []
    for name in contenders:
        chosen = select(launches, name)
        if not chosen:
            continue
        estimate = estimate_rate([tokens_per_second(each) for each in chosen.values()])
        rows.append(
            {
                **describe_case(launches),
                "contender": name,
                "n": estimate.n,
                "tokens/s": f"{estimate.centre:,.0f}",
                "95 % interval": format_interval(estimate, ",.0f"),
                "first loss": f"{next(iter(chosen.values()))['loss'][0]:.5f}",
            }
        )
    return rows


def ratio_rows(launches: Sequence[Launch], question: Question) -> list[Row]:
    """One row a pair of the question of which both were run."""
    families = {heading: judge(launches, question, clock=clock) for clock, heading in CLOCKS.items()}
    rows = []
    for index, pair in enumerate(pairs_of(launches, question)):
        contrasts = {heading: family.contrasts[index] for heading, family in families.items()}
        found = contrasts.pop("wall")
        row = {**describe_case(launches), **dict(zip(question.headings, pair, strict=True)), "n": found.rounds}
        row["/".join(question.headings)] = format_ratio(found)
        row |= {heading: format_ratio(contrast) for heading, contrast in contrasts.items()}
        row["is"] = describe_call(found)
        if question.has_goal:
            row[f"goal {GOAL}"] = judge_goal(found)
        rows.append(row)
    return rows


def describe_case(launches: Sequence[Launch]) -> Row:
    """What all rows have in common."""
    return {name: launches[0][name] for name in ("precision", "sequence_length")}


def describe_call(contrast: Contrast) -> str:
    """What the rule says of it, in a word or two."""
    return {Call.EQUAL: EQUAL_WORDS, Call.OPEN: "cannot be said"}.get(contrast.call, str(contrast.call))


def judge_goal(contrast: Contrast) -> str:
    """`reached` or `missed` where the whole interval says so."""
    if contrast.low is None:
        return "n=1"
    if contrast.low >= GOAL:
        return "reached"
    return "missed" if contrast.high < GOAL else "undecided"


def describe_price(launches: Sequence[Launch]) -> list[str]:
    """A line for each question with a pair of which nothing can be said yet: how many rounds would tell 5 %."""
    lines = []
    for question in QUESTIONS:
        family = judge(launches, question)
        if family is None or all(each.call is not Call.OPEN for each in family.contrasts):
            continue
        named = " or ".join(question.headings)
        rounds, had = rounds_to_tell(family), max(each.rounds for each in family.contrasts)
        if rounds > had:
            lines.append(
                f"{launches[0]['precision']}, {named}: a difference of 5 % takes about {rounds} rounds: --rounds {rounds}"
            )
    return lines


def format_ratio(contrast: Contrast) -> str:
    """`1.063 (1.041 … 1.086)`."""
    interval = "n=1" if contrast.low is None else f"{contrast.low:.3f} … {contrast.high:.3f}"
    return f"{contrast.ratio:.3f} ({interval})"


def format_interval(estimate: Estimate, form: str) -> str:
    """`low … high`, or `n=1` where one launch gives none."""
    return "n=1" if estimate.low is None else f"{estimate.low:{form}} … {estimate.high:{form}}"


def to_markdown(launches: Sequence[Launch], contenders: Sequence[str]) -> str:
    """Rates, then a table a question."""
    tables = [rate_rows(launches, contenders), *(ratio_rows(launches, question) for question in QUESTIONS)]
    return join_tables(tables)


def join_tables(tables: Sequence[Sequence[Row]]) -> str:
    """Those of the tables that have rows, in Markdown."""
    return "\n\n".join(format_table(rows) for rows in tables if rows) + "\n"


def format_table(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    return tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True, stralign="right")
