"""What `benchmarks/gpu.py` measured -> its tables, in Markdown; pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.contenders import OF_PYTORCH
from benchmarks.ratios import Launch, Question, Row, format_interval, join_tables, ratio_rows, select, tokens_per_second
from hvbench.analysis.stats.estimates import estimate_rate

Raced = Mapping[str, Any]  # what `benchmarks.gpu_race` writes

GIB = 2**30

QUESTIONS = (
    Question(
        pairs=tuple(
            (f"pytorch{setting}", f"{peer}{setting}")
            for setting in ("", "+compile", "+max")
            for peer in ("huggingface", "plain-torch")
        ),
        headings=("twin", "peer"),
    ),
    Question(
        pairs=(
            *((f"{name}+{setting}", name) for name in OF_PYTORCH for setting in ("compile", "max")),
            *((f"pytorch{setting}+recompute", f"pytorch{setting}") for setting in ("", "+compile", "+max")),
        ),
        headings=("with", "without"),
    ),
)


def to_markdown(races: Sequence[Raced], checks: Sequence[Row]) -> str:
    """All tables: rates and what they cost, the ratios of pairs, what the device waits for, CPU against GPU, what failed."""
    rates = [row for race in races for row in rate_rows(race)]
    waits = [row for race in races for row in wait_rows(race)]
    failures = [row for race in races for row in failure_rows(race)]
    ratios = [
        [{"model": race["case"]["model"], **row} for race in races for row in ratios_of(race, question)]
        for question in QUESTIONS
    ]
    tables = [rates, *ratios, waits, checks, failures]
    return join_tables(tables)


def case_of(race: Raced) -> Row:
    """Model and precision."""
    return {name: race["case"][name] for name in ("model", "precision")}


def failure_rows(race: Raced) -> list[Row]:
    """One row a reason: the contenders without figures."""
    reasons = dict.fromkeys(race["failed"].values())
    return [
        {
            **case_of(race),
            "without figures": " ".join(n for n, each in race["failed"].items() if each == why),
            "why": why,
        }
        for why in reasons
    ]


def rate_rows(race: Raced) -> list[Row]:
    """One row a contender: tokens/s over its rounds, utilization, memory, energy, compile time."""
    rows = []
    for name, facts in race["contenders"].items():
        launches = list(select(race["launches"], name).values())
        if not launches:
            continue
        rate = estimate_rate([tokens_per_second(each) for each in launches])
        flops = rate.centre * race["model_flops_per_token"]
        peak = race["ceilings"]["gemm_flops_per_second"]
        memory = facts["peak_device_memory_bytes"]
        rows.append(
            {
                **case_of(race),
                "samples a step": race["case"]["micro_batch_size"],
                "contender": name,
                "n": rate.n,
                "tokens/s": f"{rate.centre:,.0f}",
                "95 % interval": format_interval(rate, ",.0f"),
                "MFU (%)": f"{100 * flops / peak:.1f}",
                "peak memory (GiB)": "" if memory is None else f"{memory / GIB:.1f}",
                "mJ a token": format_joules(launches),
                "compiling (s)": f"{race['compiling_seconds'][name]:.0f}" if name in race["compiling_seconds"] else "",
                "first loss": f"{facts['first_loss']:.5f}",
            }
        )
    return rows


def format_joules(launches: Sequence[Launch]) -> str:
    """Energy of the card over all turns, a token; empty where nothing measures it."""
    if any(each["joules"] is None for each in launches):
        return ""
    tokens = sum(each["tokens_per_step"] * len(each["step_seconds"]) for each in launches)
    return f"{1e3 * sum(each['joules'] for each in launches) / tokens:.2f}"


def ratios_of(race: Raced, question: Question) -> list[Row]:
    """One row a pair of which both were raced, without the columns that say nothing of a GPU."""
    hidden = ("sequence_length", "by CPU time")
    rows = ratio_rows(race["launches"], question) if race["launches"] else []
    return [{name: value for name, value in row.items() if name not in hidden} for row in rows]


def wait_rows(race: Raced) -> list[Row]:
    """One row a contender: for how much of a step its kernels run, and what the device waits for longest."""
    rows = []
    for name, facts in race["contenders"].items():
        stream, launches = facts["stream"], select(race["launches"], name)
        if not stream or not launches:
            continue
        step = median(value for each in launches.values() for value in each["step_seconds"])
        gap, seconds = next(iter(stream["gap_seconds"].items()), ("", 0.0))
        rows.append(
            {
                **case_of(race),
                "contender": name,
                "step (ms)": f"{1e3 * step:.2f}",
                "kernels run (ms)": f"{1e3 * stream['busy_seconds']:.2f}",
                "device waits (%)": f"{100 * max(0.0, 1 - stream['busy_seconds'] / step):.1f}",
                "kernels": f"{stream['kernels']:.0f}",
                "longest wait": f"{1e3 * seconds:.2f} ms {gap}".replace("|", "/").replace(", ", ","),
            }
        )
    return rows
