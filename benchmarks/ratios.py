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

CLOCKS = {"step_seconds": "wall", "cpu_seconds": "by CPU time"}
EQUAL_WORDS = f"within {EQUAL_WITHIN * 100:g} %"
# How many times as fast as each of its peers a twin of model `small` should be at a sequence length; and how much of the speed
# of its own products and attention it should have.
BARS = {("pytorch", 128): 1.1, ("tensorflow", 128): 1.15, ("pytorch", 2048): 1.15, ("tensorflow", 2048): 1.3}
FLOOR = "+floor"
FLOOR_BAR = 1 / 1.12
MEMORY_BARS = {("tensorflow", "keras-hub", 2048): 0.5}  # of the peer's peak


@dataclass(frozen=True, kw_only=True)
class Question:
    """Pairs of contenders that are judged as one family at each length, and the headings of their table."""

    pairs: tuple[tuple[str, str], ...]
    headings: tuple[str, str]
    has_bar: bool = False


# Are the implementations slow; what do they add to their products and attention; what is a setting worth.
QUESTIONS = (
    Question(
        pairs=(
            ("pytorch", "huggingface"),
            ("pytorch", "plain-torch"),
            ("pytorch", "huggingface+compile"),
            ("pytorch", "plain-torch+compile"),
            ("pytorch+compile", "huggingface+compile"),
            ("pytorch+compile", "plain-torch+compile"),
            ("tensorflow", "keras-hub"),
            ("tensorflow+xla", "keras-hub+xla"),
        ),
        headings=("twin", "peer"),
        has_bar=True,
    ),
    Question(
        pairs=(("pytorch", "pytorch+floor"), ("tensorflow", "tensorflow+floor")),
        headings=("twin", "floor"),
        has_bar=True,
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
    """ValueError unless all contenders trained as many parameters on as many tokens a step, at each length."""
    for same in split_by_length(launches):
        first = same[0]
        for each in same:
            work, known = ((one["parameters"], one["tokens_per_step"]) for one in (each, first))
            if work != known:
                raise ValueError(
                    f"{each['contender']} trains {work} parameters and tokens a step, {first['contender']} {known}"
                )


def split_by_length(launches: Sequence[Launch]) -> list[list[Launch]]:
    """The launches of each sequence length, the shortest first."""
    lengths = sorted({each["sequence_length"] for each in launches})
    return [[each for each in launches if each["sequence_length"] == length] for length in lengths]


def rate_rows(launches: Sequence[Launch], contenders: Sequence[str]) -> list[Row]:
    """One row a contender and length: tokens/s over its launches, memory, and the first loss."""
    rows = []
    for same in split_by_length(launches):
        for name in contenders:
            if chosen := list(select(same, name).values()):
                rows.append({**describe_case(same), "contender": name, **describe_launches(chosen)})
    return rows


def describe_launches(chosen: Sequence[Launch]) -> Row:
    """Rate, memory and first loss of a contender's launches. What builds nothing and trains nothing has neither."""
    estimate, loss = estimate_rate([tokens_per_second(each) for each in chosen]), chosen[0]["loss"][0]
    return {
        "n": estimate.n,
        "tokens/s": f"{estimate.centre:,.0f}",
        "95 % interval": format_interval(estimate, ",.0f"),
        "peak (MiB)": "" if loss is None else f"{peak_bytes(chosen) / 2**20:,.0f}",
        "growth (MiB)": "" if loss is None else f"{growth_bytes(chosen) / 2**20:,.0f}",
        "first loss": "" if loss is None else f"{loss:.5f}",
    }


def peak_bytes(launches: Sequence[Launch]) -> float:
    """The peak resident memory of the process, the largest over launches: a high-water mark."""
    return max(each["peak_rss_bytes"] for each in launches)


def growth_bytes(launches: Sequence[Launch]) -> float:
    """The most that building and training added to it in a launch; 0 where one does not say what was there before."""
    return max(each["peak_rss_bytes"] - each.get("base_rss_bytes", each["peak_rss_bytes"]) for each in launches)


def ratio_rows(launches: Sequence[Launch], question: Question) -> list[Row]:
    """One row a length and pair of the question of which both were run."""
    return [row for same in split_by_length(launches) for row in rows_of_length(same, question)]


def rows_of_length(launches: Sequence[Launch], question: Question) -> list[Row]:
    """The rows of launches of one length."""
    families = {heading: judge(launches, question, clock=clock) for clock, heading in CLOCKS.items()}
    rows = []
    for index, pair in enumerate(pairs_of(launches, question)):
        contrasts = {heading: family.contrasts[index] for heading, family in families.items()}
        found = contrasts.pop("wall")
        row = {**describe_case(launches), **dict(zip(question.headings, pair, strict=True)), "n": found.rounds}
        row["/".join(question.headings)] = format_ratio(found)
        row |= {heading: format_ratio(contrast) for heading, contrast in contrasts.items()}
        if question.has_bar:
            row |= {"is": describe_call(found)} if question.headings[1] == "peer" else {}
            row["bar"] = judge_bar(found, find_bar(launches[0], pair))
        else:
            row["is"] = describe_call(found)
        rows.append(row)
    return rows


def memory_rows(launches: Sequence[Launch]) -> list[Row]:
    """One row a length and pair of a twin and a peer: their peaks, and what building and training added to them, as ratios."""
    rows = []
    for same in split_by_length(launches):
        for pair in QUESTIONS[0].pairs:
            sides = [list(select(same, name).values()) for name in pair]
            if not all(sides):
                continue
            ratio = peak_bytes(sides[0]) / peak_bytes(sides[1])
            growth = [growth_bytes(side) for side in sides]
            bar = MEMORY_BARS.get((*pair, same[0]["sequence_length"])) if is_of_bars(same[0]) else None
            rows.append(
                {
                    **describe_case(same),
                    "twin": pair[0],
                    "peer": pair[1],
                    "n": min(map(len, sides)),
                    "peak, twin/peer": f"{ratio:.2f}",
                    "growth, twin/peer": f"{growth[0] / growth[1]:.2f}" if all(growth) else "",
                    "bar": "" if bar is None else f"at most {bar:g}: {'reached' if ratio <= bar else 'missed'}",
                }
            )
    return rows


def find_bar(launch: Launch, pair: tuple[str, str]) -> float | None:
    """The bar of a pair at the launch's length; None where none is set."""
    if not is_of_bars(launch):
        return None
    return FLOOR_BAR if pair[1].endswith(FLOOR) else BARS.get((pair[0], launch["sequence_length"]))


def is_of_bars(launch: Launch) -> bool:
    """Whether bars are set for the launch's model."""
    return launch.get("model", "small") == "small"


def describe_case(launches: Sequence[Launch]) -> Row:
    """What all rows of a length have in common."""
    return {name: launches[0][name] for name in ("precision", "sequence_length")}


def describe_call(contrast: Contrast) -> str:
    """What the rule says of it, in a word or two."""
    return {Call.EQUAL: EQUAL_WORDS, Call.OPEN: "cannot be said"}.get(contrast.call, str(contrast.call))


def judge_bar(contrast: Contrast, bar: float | None) -> str:
    """The bar, and `reached` or `missed` where the whole interval says so."""
    if bar is None:
        return ""
    if contrast.low is None:
        return f"{bar:.3g}: n=1"
    verdict = "reached" if contrast.low >= bar else "missed" if contrast.high < bar else "undecided"
    return f"{bar:.3g}: {verdict}"


def describe_price(launches: Sequence[Launch]) -> list[str]:
    """A line for each question with a pair of which nothing can be said yet: how many rounds would tell 5 %."""
    lines = []
    for same in split_by_length(launches):
        for question in QUESTIONS:
            family = judge(same, question)
            if family is None or all(each.call is not Call.OPEN for each in family.contrasts):
                continue
            named = " or ".join(question.headings)
            rounds, had = rounds_to_tell(family), max(each.rounds for each in family.contrasts)
            if rounds > had:
                case = ", ".join(map(str, describe_case(same).values()))
                lines.append(
                    f"{case} tokens, {named}: a difference of 5 % takes about {rounds} rounds: --rounds {rounds}"
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
    """Rates, then a table a question, with memory behind the first."""
    first, *others = (ratio_rows(launches, question) for question in QUESTIONS)
    tables = [rate_rows(launches, contenders), first, memory_rows(launches), *others]
    return join_tables(tables)


def join_tables(tables: Sequence[Sequence[Row]]) -> str:
    """Those of the tables that have rows, in Markdown."""
    return "\n\n".join(format_table(rows) for rows in tables if rows) + "\n"


def format_table(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    return tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True, stralign="right")
