"""Sentences of the documents that say which of several comparisons hold: each p-value, corrected as the sentence says, from the records."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from functools import cache

import pandas as pd

import hvbench
from docs.published import REFERENCE, ROOT, compute_tables
from hvbench.analysis.frame.metrics import STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.stats.ratios import Ratio, adjust_holm, paired_ratio
from hvbench.records.store import RunFolder

EXPOSED = "exposed_communication_seconds"


@cache
def load(run: str) -> pd.DataFrame:
    return hvbench.load(ROOT / "results" / "reference" / run)


def read_words(path: str) -> str:
    """The text of a document with its lines joined, so that a sentence is found wherever it wraps."""
    return re.sub(r"\s+", " ", (ROOT / path).read_text(encoding="utf-8"))


def compare(a: pd.DataFrame, b: pd.DataFrame, figure: str = STEP) -> Ratio:
    """`figure` of b over that of a, launches of one repeat in pairs."""
    pairs = a[["repeat", figure]].merge(b[["repeat", figure]], on="repeat")
    return paired_ratio(pairs[f"{figure}_x"].tolist(), pairs[f"{figure}_y"].tolist())


def compare_each(launches: pd.DataFrame, by: Sequence[str], over: str, base: str) -> dict[tuple[object, ...], Ratio]:
    """(keys of `by`, value of `over`) -> its ratio to `base`, within each group."""
    return {
        (*key, value): compare(group[group[over] == base], others)
        for key, group in launches.groupby(list(by), dropna=False)
        for value, others in group[group[over] != base].groupby(over)
    }


def p_values(ratios: Sequence[Ratio]) -> list[float]:
    values = [ratio.p_value for ratio in ratios]
    return [value for value in values if value is not None]


def read_table(run: str, name: str) -> list[dict[str, str]]:
    """The rows of a table of a published run, as its CSV file has them."""
    tables = compute_tables(ROOT / "results" / "reference" / run)
    return list(csv.DictReader(io.StringIO(tables[f"tables/{name}.csv"])))


def test_five_of_eight_strategies_differ_from_horovod_once_corrected() -> None:
    rows = [row for row in read_table("strategies", "strategies") if row["strategy"] != "horovod"]
    ends = {
        (row["framework"], row["strategy"]): (
            float(row["step_ratio_to_horovod_low"]),
            float(row["step_ratio_to_horovod_high"]),
        )
        for row in rows
    }
    assert len(ends) == 8
    shorter = {key for key, (_, high) in ends.items() if high < 1}
    longer = {key for key, (low, _) in ends.items() if low > 1}
    assert {(framework, strategy.split()[0]) for framework, strategy in shorter} == {
        ("pytorch", "native"),
        ("tensorflow", "local"),
    }
    assert longer == {
        ("pytorch", "parameter_server"),
        ("pytorch", "parameter_server_async"),
        ("tensorflow", "parameter_server_async"),
    }
    assert "Corrected for all eight comparisons, five intervals leave out 1" in read_words("docs/communication.md")


def test_strategies_over_both_frameworks_are_in_words_what_the_report_says() -> None:
    answer = find_answer(Run(RunFolder(REFERENCE / "strategies").read_records()[0]))
    said = " ".join(each.text for each in (*answer.headlines, *answer.details))
    words = read_words("docs/communication.md")
    for figures in ("2.4 to 21.1 %", "13 to 27 %", "8.7 to 28.2 %", "1.8 to 26.5 %"):
        assert figures in said and figures in words


def test_compression_makes_a_difference_on_eight_of_ten_links() -> None:
    rows = [row for row in read_table("network", "links") if row["compression"] == "fp16"]
    assert len(rows) == 10
    shown = {
        (row["framework"], float(row["link_bits_per_second"]), float(row["uncompressed_to_compressed"]) > 1)
        for row in rows
        if not float(row["uncompressed_to_compressed_low"]) <= 1 <= float(row["uncompressed_to_compressed_high"])
    }
    slow = {(framework, link, True) for framework in ("pytorch", "tensorflow") for link in (2e8, 4e8, 1e9)}
    assert shown == slow | {("pytorch", 1e11, False), ("tensorflow", 3e9, False)}
    words = "eight hold when corrected for all ten: fp16 makes steps shorter up to 1 Gbit/s in both frameworks"
    assert words in read_words("docs/communication.md")


def test_the_readme_says_what_the_report_of_quickstart_says() -> None:
    answer = find_answer(Run(RunFolder(REFERENCE / "quickstart").read_records()[0]))
    said = {each.text for each in (*answer.headlines, *answer.details)}
    words = read_words("README.md")
    for beginning in ("TensorFlow is ", "bf16 is ", "fp16 on the wire is "):
        (text,) = (text for text in said if text.startswith(beginning))
        assert text.rstrip(".") in words, text


def test_compressed_steps_of_the_breakdown_are_longer() -> None:
    launches = load("breakdown")
    steps = compare_each(launches, ["framework"], "compression", "none")
    longer = (steps["pytorch", "fp16"].ratio, steps["tensorflow", "fp16"].ratio)
    words = read_words("results/reference/README.md")
    assert "steps are longer, {:.2f} times in PyTorch and {:.2f} times in TensorFlow".format(*longer) in words
    exposed = [
        compare(group[group["compression"] == "none"], group[group["compression"] == "fp16"], EXPOSED)
        for _, group in launches.groupby("framework")
    ]
    values = p_values([*steps.values(), *exposed])
    assert len(values) == 4 and max(adjust_holm(values)) <= 0.005
    assert "(p at most 0.005 each, corrected for the four)" in words


def test_launches_that_missed_the_target_are_counted() -> None:
    launches = load("large_batch")
    missed = launches[launches["steps_to_target"].isna() | (launches["status"] != "ok")]
    assert len(missed) == 6 and set(missed["framework"]) == {"pytorch"}
    batch = missed["micro_batch_size"] * missed["gradient_accumulation_steps"] * missed["world_size"]
    assert set(zip(missed["optimizer"], batch, missed["status"], strict=True)) == {
        ("sgd", 1024, "diverged"),
        ("lamb", 1024, "ok"),
    }
    assert f"{len(launches) - 6} of {len(launches)} launches reached the target" in read_words("docs/large-batch.md")
