"""Every suite about speed: launches at known speeds through the sentences, and the answer to its question is in the first one."""

from __future__ import annotations

import re
from functools import cache

import pytest

from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.show.sentences import Sentence
from hvbench.analysis.topics.lengths import length_table, plot_lengths
from hvbench.analysis.topics.throughput.plot import plot_swept_axes
from hvbench.spec.suite import apply_overrides, load_suite
from tests.unit.sample_suites import SUITES, make_run_of, make_runs_of

N = r"5 rounds"
INTERVAL = r"95 % interval -?[\d.]+ to -?[\d.]+ %"


@cache
def first_sentence(name: str, repeats: int = 5) -> Sentence:
    return find_answer(make_run_of(name, repeats=repeats)).headlines[0]


ANSWERS = {
    "quickstart": (
        r"^TensorFlow with micro-batch 8, accumulation 1, bf16(?: \(emulated\))?, uncompressed trains fastest, at [\d,]+ tokens/s "
        rf"\(95 % interval .*, n = 5\): [\d.]+ % faster than the next, PyTorch with .* \({INTERVAL}, {N}\), "
        r"and faster than the other 8 by a factor of [\d.]+ to [\d.]+\.$"
    ),
    "smoke": r"^All 8 points ran to the end in PyTorch and TensorFlow, at [\d,]+ to [\d,]+ tokens/s; one launch a point does not "
    r"say which is faster; a difference of 5 % takes about \d+ more rounds, .*: `hvbench sweep example .* repeats=\d+`\.$",
    "accumulation": (
        rf"^Accumulation 8 spends 8\d % less on all-reduce and update per token than accumulation 1 over both frameworks "
        rf"\({INTERVAL}, {N}; .* in each\); accumulation 8 is \d+ % faster than accumulation 1 over both frameworks \({INTERVAL}, {N}; "
    ),
    "batch": (
        rf"^Throughput rises with each step up to micro-batch 32, the largest, in PyTorch and TensorFlow "
        rf"\({N}\); micro-batch 32 is [\d.]+ times as fast as micro-batch 1 .*, {N}; .*; it needs "
        rf"[\d.]+ times the memory .*{N}"
    ),
    "breakdown": (
        r"^Of a step of \d+ ms PyTorch with uncompressed spends 45 % in exposed communication, 24 % in backward, 18 % in optimizer, 12 % in forward "
        rf"\(n = 5, each ± .*of a step of \d+ ms TensorFlow .*; fp16 on the wire is \d+ % slower than uncompressed .*\({INTERVAL}, {N}; "
    ),
    "compilation": (
        r"^In PyTorch compiling pays after 1,\d+ to 1,\d+ steps, 3\.\d minutes of training \(95 % interval of each within 1,\d+ to 1,\d+ steps, n = 5\): it costs "
        rf"2\d\.\d s, then compiled is 1\d % faster than not compiled over the 2 pairs of points \({INTERVAL}, {N}; 11 % in each\); in TensorFlow compiling never "
        rf"pays: compiled is 20 % slower than not compiled over the 2 pairs of points \({INTERVAL}, {N}; .*\)\.$"
    ),
    "compression": rf"^fp16 on the wire is [\d.]+ % slower than uncompressed over the 6 pairs of points \({INTERVAL}, {N}; [\d.]+ to [\d.]+ % in each\)\.$",
    "input": (
        r"^A step in PyTorch waits [\d.]+ ms \([\d.]+ % of all; 95 % interval [\d.]+ to [\d.]+, n = 5\) for batches from arrays, "
        r"[\d.]+ ms \(.*n = 5\) for its own input with no workers, [\d.]+ ms \(.*n = 5\) for its own input with 2 workers; a step in TensorFlow waits "
        rf".*; in the rest of the step, the framework's own input and batches from arrays are within 3 % of each other over both frameworks .*{INTERVAL}, {N}\); "
        rf"2 input workers and 0 input workers are within 3 % of each other .*{INTERVAL}, {N}\)\.$"
    ),
    "knobs": rf"^Fusion matters most: fusion 128 MiB is \d+ % faster than no fusion over the 6 pairs of points \({INTERVAL}, {N}",
    "long_sequences": (
        r"^Under 2 GiB a worker fused attention fits sequences at least 4 to 16 times as long as plain attention \(8,192 instead of 512 tokens in PyTorch, "
        rf"8,192 instead of 512 tokens in TensorFlow\), and it is [\d.]+ % faster \({INTERVAL}, {N}; .* in each\)\.$"
    ),
    "precision": (
        rf"^bf16.* is 2[\d.]+ % faster than fp32 over the 4 pairs of points \({INTERVAL}, {N}; .*\); it needs [\d.]+ % less memory "
        rf"\({INTERVAL}, {N}; .*\); its training loss at the end is within 0\.\d+ % of fp32's; fp16.* is 2[\d.]+ % slower than fp32 .*{N}.*\.$"
    ),
    "scaling": (
        rf"^The second rank brings \d\d % of what the first does \({INTERVAL}, {N}; PyTorch \d+ %, TensorFlow \d+ %\); "
        rf"ranks 3 to 4 bring \d\d+ % each of what each rank before does \({INTERVAL}, {N}; "
    ),
    "strategies": (
        rf"^In PyTorch native \(DistributedDataParallel\) exchanges gradients fastest: [\d.]+ % faster than the next, horovod \({INTERVAL}, {N}\), and "
        rf"faster than the other 2 by \d+ to \d+ %; in TensorFlow native \(MultiWorkerMirroredStrategy\) exchanges gradients fastest: "
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_the_first_sentence_answers_the_suite_s_question(name: str) -> None:
    said = first_sentence(name, 1 if name == "smoke" else 5)
    assert re.search(ANSWERS[name], said.text), said.text
    assert not said.is_open


@pytest.mark.parametrize("name", sorted(set(ANSWERS) - {"breakdown", "long_sequences"}))
def test_one_launch_a_point_names_the_price(name: str) -> None:
    text = first_sentence(name, 1).text
    assert re.search(
        r"ran to the end in PyTorch and TensorFlow, at .*; one launch a point does not say which is faster; ", text
    ), text
    assert re.search(
        r"a difference of 5 % takes about \d+ more rounds, .*: `hvbench sweep example --np 2 .*repeats=\d+`\.$", text
    )


@pytest.mark.parametrize("name", sorted(set(ANSWERS) - {"smoke", "breakdown", "batch", "long_sequences"}))
def test_what_cannot_be_said_has_a_price(name: str) -> None:
    """Rounds that scatter by as much as the choices differ."""
    run = make_run_of(name, repeats=3, noise=1.0)
    text = find_answer(run).headlines[0].text
    assert "cannot say" in text or name == "scaling", text
    assert re.search(
        r"; a difference of (5|20|50) % takes about \d+ more rounds, .*: `hvbench sweep .* repeats=\d+`\.$", text
    ), text


def test_ranks_are_faster_and_a_precision_is() -> None:
    """2 ranks ARE faster; whatever is named in the singular IS."""
    details = [each.text for each in find_answer(make_run_of("scaling", repeats=5)).details]
    said = [text for text in details if re.match(r"^\d ranks", text)]
    assert said and all(re.match(r"^\d ranks are [\d.]+", text) for text in said), details


def test_a_suite_of_lengths_says_what_each_choice_fits_and_costs() -> None:
    run = make_run_of("long_sequences", repeats=5)
    found = find_answer(run)
    said = [each.text for each in (*found.headlines, *found.details) if each.topic == "lengths"]
    assert re.search(
        r"block recomputed fits sequences 4 times as long as all activations kept \(2,048 instead of 512 tokens in PyTorch, 2,048 instead of 512 tokens in "
        rf"TensorFlow\), and it is 2[\d.]+ % slower \({INTERVAL}, {N}; ", said[1]
    ), said  # fmt: skip
    table = length_table(run)
    column = table.header.index("longest (tokens)")
    assert {(row[1], row[2]): row[column : column + 2] for row in table.cells} == {
        ("none", "fused"): ["8,192", "–"], ("block", "fused"): ["8,192", "–"], ("none", "plain"): ["512", "2,048"], ("block", "plain"): ["2,048", "8,192"],
    }  # fmt: skip
    figures = plot_lengths(run) | plot_swept_axes(run)
    assert {"memory_by_sequence_length", "loss_by_sequence_length", "throughput_by_sequence_length"} <= set(figures)
    assert {
        panel.get_xlabel() for figure in figures.values() for panel in figure.axes if "sequence" in panel.get_xlabel()
    } == {"sequence length (tokens)"}
    assert "throughput_by_micro_batch_size" not in figures, "which goes together with the length"


def test_where_the_length_alone_varies_the_longest_of_each_framework_is_said() -> None:
    suite = apply_overrides(load_suite(SUITES / "long_sequences.toml"), ["attention=plain", "recompute=none"])
    said = find_answer(make_runs_of(suite, repeats=3)).headlines[0].text
    assert (
        said
        == "Under 2 GiB a worker sequences of 512 tokens fit in PyTorch, 2,048 do not; 512 tokens fit in TensorFlow, 2,048 do not."
    )
