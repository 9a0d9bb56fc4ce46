"""No published figure without n and an interval: every table that a report writes, whoever added it, is walked.

A table states n in each row. Beside n, a column of numbers is one of these, and anything else fails here:

- what was set and not measured: an axis, a setting, a computed size;
- a figure with its interval: `x ± y %` in the cell, or a column right behind it whose name begins with the interval's;
- a quantile of so many pooled steps, which resemble each other within a launch: `x (60 steps)`;
- a figure of one seed, which several launches do not know better: its cell says so;
- one that has no interval by nature, listed below with the reason.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.published import DOCUMENTS, ROOT, read_quotes
from hvbench.analysis.show.cells import HEADERS
from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.records.record import Ablation, Ceiling, ParityStamp, Record
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from tests.unit.sample_noise import BATCHES, batch_record
from tests.unit.sample_records import make_convergence, make_launch, make_rank, make_record
from tests.unit.test_published_tables import EACH_RUN, report_texts, write_texts

INTERVAL = f"{CONFIDENCE * 100:g} % interval"

SET = {*Point.model_fields, *HEADERS.values(), *MeasureSettings.model_fields, "n", "target loss", "seeds"}
# Computed from the point alone, a high-water mark (the largest of n, which has no interval), or a comparison of the two.
NO_INTERVAL = {
    "peak memory (MiB)", "peak device memory (MiB)", "peak (MiB)", "before the point (MiB)",
    "activations and the rest (MiB)", "parameters (MiB)", "gradients (MiB)", "optimizer state (MiB)", "estimate (MiB)",
    "trained parameters", "of all (%)", "sent per step and rank (KiB)", "of the gradients (%)", "optimizer state (KiB)",
    "estimate / peak - 1 (%)", "all-reduce on the wire (MiB)",
    "growth (MiB)", "peak, twin/peer", "growth, twin/peer",  # of benchmarks/peers.py: of high-water marks
    "bar",  # what a figure beside it is held to
    "overflows",  # a count of one parity check
    "skipped steps", "own gradients", "on the wire",  # counted over all launches, not estimated
    "global batch", "looks",  # computed from the point; a count of what the interval beside it rests on
    "first loss",  # of benchmarks/peers.py: the same in every launch, and shows that the work was
}  # fmt: skip

COUNTS = ("n", "launches_ok", "launches_stamped", "pairs", "rounds")  # one of them in each row of a CSV file
SET_IN_CSV = {*Point.model_fields, *MeasureSettings.model_fields, "baseline_world_size"}
NO_INTERVAL_IN_CSV = {
    *COUNTS, "launches", "seeds", "seeds_ok", "loss_digests", "p_value",
    "launches_reached", "looks", "looks_late", "global_batch_samples", "batches", "batches_not_reached",  # counts
    "trained_steps", "skipped_steps", "overflows_own", "overflows_on_the_wire",  # the same
    "lowest_loss_scale", "last_loss_scale",  # of one launch
    "peak_rss_bytes", "start_rss_bytes", "activation_bytes", "peak_device_memory_bytes",  # high-water marks
    "allreduce_bytes", "parameter_bytes", "gradient_bytes", "optimizer_state_bytes", "estimated_peak_bytes",  # computed from the point
    "trained_parameters", "trained_parameters_share", "allreduce_bytes_per_step",  # the same
    "timed_steps", "longest_sequence_length",  # counts
    "underflows_share", "zeros_share", "overflows_share", "underflow_norm_share",  # counted in one training of a seed
    "launches_stamped", *ParityStamp.model_fields,  # largest errors of one parity check, each beside its tolerance
}  # fmt: skip
NOT_A_SUMMARY = {"tables/launches.csv"}  # one row a launch: the raw values


def sample_runs() -> dict[str, list[Record]]:
    """Runs that fill every table: several launches, ranks, world sizes, targets reached, ceilings and ablations."""
    both = ("pytorch", "tensorflow")
    scaled = [
        make_record(
            [make_rank(rank, step_seconds=scatter(repeat + rank), **parts(ranks)) for rank in range(ranks)],
            repeat=repeat, framework=framework, micro_batch_size=8 // ranks,
        )
        for framework in both for ranks in (1, 2, 4) for repeat in range(3)
    ]  # fmt: skip
    swept = [
        make_launch({"framework": framework, "precision": precision}, repeat=repeat)
        for framework in both for precision in ("fp32", "bf16") for repeat in range(3)
    ]  # fmt: skip
    return {
        "scaling": [record.model_copy(update={"parity": STAMP}) for record in scaled],
        "sweep": swept,
        "convergence": make_convergence(repeats=3),
        "network": make_linked(),
        "strategies": [
            make_launch({"framework": framework, "strategy": strategy}, repeat=repeat)
            for framework in both for strategy in ("horovod", "native", "local") for repeat in range(3)
        ],
        "adaptations": [
            make_launch({"framework": framework, "adaptation": adaptation}, repeat=repeat, evaluate_every=5)
            for framework in both for adaptation in ("full", "lora") for repeat in range(3)
        ],
        "batches": [
            batch_record(batch, round(50 * (1 + 90 / batch) * (1 + 0.05 * repeat)), framework=framework, repeat=repeat)
            for framework in both for batch in BATCHES for repeat in range(2)
        ],
    }  # fmt: skip


def make_linked() -> list[Record]:
    """Three launches of every compression on three links: slow ones take longer, compression costs where they are fast."""
    records = []
    for repeat in range(3):
        for compression, local, wire in (("none", 0.30, 1.0), ("fp16", 0.36, 0.5)):
            for link in (10**8, 4 * 10**8, 16 * 10**8):
                seconds = (local + wire * 5e7 / link) * (1 + 0.01 * ((repeat + link // 10**8) % 3))
                ranks = [make_rank(rank, step_seconds=[2.0, *[seconds] * 3]) for rank in range(2)]
                fields = {"compression": compression, "link_bits_per_second": link, "model": "small"}
                records.append(make_record(ranks, repeat=repeat, **fields))
    return records


def scatter(offset: int) -> list[float]:
    """A warm-up step and nine timed ones that differ."""
    return [2.0, *(1 + 0.1 * ((7 * step + offset) % 5) for step in range(9))]


def parts(ranks: int) -> dict:
    """A ceiling and an ablation, as a worker may leave them."""
    ceiling = Ceiling(
        gemm_flops_per_second=2e11, gemm_shape=[512, 512, 512], model_gemm_flops_per_second=1.5e11,
        fp32_gemm_flops_per_second=2e11, memory_bandwidth_bytes_per_second=2e10,
        allreduce_busbw_bytes_per_second=1e9 if ranks > 1 else None, allreduce_bytes=138_752, is_emulated=False,
    )  # fmt: skip
    seconds = [[0.30, 0.32, 0.31], [0.80, 0.82, 0.81], [0.95, 0.96, 0.97], [1.0, 1.1, 1.05], [0.10, 0.12, 0.11]]
    ablation = Ablation(
        forward_seconds=seconds[0], backward_seconds=seconds[1], local_step_seconds=seconds[2], step_seconds=seconds[3],
        allreduce_seconds=seconds[4] if ranks > 1 else [],
    )  # fmt: skip
    return {"ceiling": ceiling, "ablation": ablation}


STAMP = ParityStamp(
    is_proven=True, counterpart="tensorflow", updates=3, logits_relative_error=1e-6, logits_tolerance=1e-4, loss_relative_error=1e-7,
    gradient_relative_error=1e-6, update_relative_error=1e-6, overflows=0, worst="logits", worst_relative_error=1e-6,
    worst_tolerance=1e-4,
)  # fmt: skip


SAMPLE_RUNS = sample_runs()


def read_tables(text: str) -> Iterator[tuple[list[str], list[bool], list[list[str]]]]:
    """(header, whether each column is of numbers, rows) of every Markdown table in `text` that has such a column."""
    for block in re.findall(r"(?:^\|.*\|\n?)+", text, re.M):
        cells = (re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines())
        header, rule, *rows = ([cell.strip() for cell in line] for line in cells)
        numeric = [cell.endswith(":") for cell in rule]
        if any(numeric):
            yield header, numeric, rows


def find_bare_figures(text: str) -> list[str]:
    """A line for every figure in the Markdown tables of `text` that lacks n or an interval."""
    problems = []
    for header, numeric, rows in read_tables(text):
        if "n" not in header:
            problems.append(f"no column n: {header}")
            continue
        problems += [f"no n: {row}" for row in rows if not row[header.index("n")].isdecimal()]
        for column, name in enumerate(header):
            if not numeric[column] or name in SET | NO_INTERVAL or name.startswith(INTERVAL):
                continue
            has_own = column + 1 < len(header) and header[column + 1].startswith(INTERVAL)
            for row in rows:
                is_figure = re.match(r"[+-]?\d", row[column]) and row[header.index("n")] not in ("0", "1")
                if (
                    is_figure
                    and not has_own
                    and not re.search(r" [±≤>] |\(.+ … .+\)$|\((\d+ steps|one seed)\)$", row[column])
                ):
                    problems.append(f"{name} = {row[column]} has no interval: {row}")
    return problems


def find_bare_columns(text: str) -> list[str]:
    """The columns of numbers of a CSV table that are not listed and lack `_low` and `_high`; and if it has no count."""
    rows = list(csv.DictReader(io.StringIO(text)))
    names = list(rows[0]) if rows else []
    numeric = [name for name in names if is_numeric([row[name] for row in rows])]
    listed = SET_IN_CSV | NO_INTERVAL_IN_CSV
    stems = [name for name in numeric if not name.endswith(("_low", "_high")) and name not in listed]
    problems = [name for name in stems if not {f"{name}_low", f"{name}_high"} <= set(names)]
    return problems + ([] if any(name in names for name in COUNTS) else ["no count of launches"])


def is_numeric(values: list[str]) -> bool:
    known = [value for value in values if value]
    return bool(known) and all(re.fullmatch(r"[+-]?(\d[\d.]*(e[+-]?\d+)?|inf|nan)", value, re.I) for value in known)


@pytest.mark.parametrize("name", list(SAMPLE_RUNS))
def test_every_figure_of_a_written_table_has_n_and_an_interval(name: str) -> None:
    assert_figures_have_intervals(report_texts(SAMPLE_RUNS[name], {}))


def assert_figures_have_intervals(texts: dict[str, str]) -> None:
    """Hold a run's tables and its report, file -> text, to the rules at the head of this module."""
    pages = {file: text for file, text in texts.items() if file.endswith(".md")}
    assert "report.md" in pages and len(pages) >= 3
    assert {file: bare for file, text in pages.items() if (bare := find_bare_figures(text))} == {}
    files = {file: text for file, text in texts.items() if file.endswith(".csv") and file not in NOT_A_SUMMARY}
    assert len(files) >= 2
    assert {file: bare for file, text in files.items() if (bare := find_bare_columns(text))} == {}


@pytest.mark.parametrize("name", EACH_RUN)
def test_every_figure_of_a_published_run_has_n_and_an_interval(name: str) -> None:
    assert_figures_have_intervals(write_texts(name))


@pytest.mark.parametrize(
    "page", [page for page in DOCUMENTS if read_quotes(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_figure_that_a_document_quotes_has_n_and_an_interval(page: Path) -> None:
    assert find_bare_figures("\n\n".join(quote.text for quote in read_quotes(page))) == []


TABLE = f"| framework | n | tokens/s | {INTERVAL} | peak memory (MiB) | step (ms) |\n| :--- |{' ---: |' * 5}\n"


@pytest.mark.parametrize(
    ("row", "problems"),
    [
        ("| pytorch | 3 | 100 | 90 to 110 | 300 | 5.0 ± 2 % |", 0),
        ("| pytorch | 1 | 100 | n=1 | 300 | 5.0 |", 0),  # one launch has no interval, and says so
        ("| pytorch | 3 | 100 | 90 to 110 | 300 | 5.0 |", 1),
        ("| pytorch |  | 100 | 90 to 110 | 300 | 5.0 ± 2 % |", 1),
        ("| pytorch | 3 | 100 | 90 to 110 | 300 | not reached |", 0),
    ],
)
def test_the_walk_sees_a_bare_figure(row: str, problems: int) -> None:
    assert len(find_bare_figures(TABLE + row)) == problems
    assert find_bare_figures(TABLE.replace("| n |", "| m |") + row) != []


@pytest.mark.parametrize(
    ("header", "problems"),
    [
        ("launches_ok,rate,rate_low,rate_high", []),
        ("launches_ok,rate,rate_low,other", ["rate", "other"]),
        ("seed,rate,rate_low,rate_high", ["no count of launches"]),
    ],
)
def test_the_walk_sees_a_bare_column(header: str, problems: list[str]) -> None:
    assert find_bare_columns(f"{header}\n1,2.0,1.5,2.5\n") == problems
