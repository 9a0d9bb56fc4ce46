"""Labelled files: what is read of them, which rows are refused in one line, and batches of samples of different lengths."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvbench.cli import run
from hvbench.errors import DataError
from hvbench.plan.skip import reason_to_skip
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.sweep.prepare import with_pretrainings
from hvbench.sweep.tasks import name_text
from hvbench.training import corpus
from hvbench.training.batches import Batches
from hvbench.training.checkpoints import Checkpoint, name_checkpoint, save_checkpoint
from hvbench.training.labelled.batches import cut
from hvbench.training.labelled.corpus import (
    describe_labelled,
    lengths_of,
    prepare_labelled,
    read_labelled_vocabulary,
)
from hvbench.training.labelled.rows import draw_split, examine_rows
from hvbench.training.labelled.snippets import find_snippets, snippets_file
from hvbench.training.labelled.source import source_of
from hvbench.training.layout import from_arrays, to_arrays
from hvbench.training.masking import CLASS, SEPARATOR, special_token
from hvbench.training.packages import find_packages, make_batches, prepare_text
from hvbench.training.pretraining import pretraining_point
from hvbench.training.schedule import samples_before
from hvbench.training.weights import initial_weights
from hvbench.worker.evaluation import describe_evaluation, evaluate
from hvbench.worker.loop import Loop

T = 16
ROWS = [(chr(97 + number % 3) * (1 + 7 * number % 23), "abc"[number % 3]) for number in range(200)]


def make_point(path: Path, **changes: Any) -> Point:
    fields = {
        "model": "tiny", "sequence_length": T, "objective": "classification", "num_classes": 3, "data": str(path), "world_size": 1,
        "micro_batch_size": 8,
    }  # fmt: skip
    return Point(**fields | changes)


def write_json_lines(path: Path, rows: list[Any], *, encoding: str = "utf-8") -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def write_rows(path: Path, rows: list[tuple[str, str]] = ROWS) -> Path:
    return write_json_lines(path, [{"text": text, "label": label} for text, label in rows])


def write_csv(path: Path, rows: list[tuple[str, ...]], *, names: tuple[str, ...] = ("text", "label")) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([names, *rows])
    return path


def texts_of(corpus: Any, split: str) -> list[tuple[str, str]]:
    samples = corpus.samples[split]
    tokens = getattr(corpus, split)
    begins = samples["end"] - lengths_of(samples)
    return [
        (bytes(tokens[begin : sample["end"]].tolist()).decode(), corpus.classes[int(sample["label"])])
        for begin, sample in zip(begins, samples, strict=True)
    ]


def test_every_row_is_a_sample_of_one_split_whatever_the_format(tmp_path: Path) -> None:
    """JSONL, CSV and another encoding of the same rows are the same text, to its digest."""
    rows = [*ROWS, ('a "quoted" text, of\ntwo lines ä', "a")]
    files = [write_rows(tmp_path / "rows.jsonl", rows), write_csv(tmp_path / "rows.csv", rows)]
    files.append(
        write_json_lines(
            tmp_path / "wide.JSONL", [{"text": text, "label": label} for text, label in rows], encoding="utf-16"
        )
    )
    found = [prepare_labelled(make_point(path), cache=tmp_path / "cache") for path in files]
    assert len({(each.digest, each.tokens_digest) for each in found}) == 1
    assert found[0].classes == ("a", "b", "c")
    splits = {split: texts_of(found[0], split) for split in ("train", "validation", "test")}
    assert sorted(row for each in splits.values() for row in each) == sorted(rows)
    assert all(len(splits[name]) > 5 for name in ("validation", "test")) and len(splits["train"]) > 140
    other = prepare_labelled(make_point(files[0], split_seed=1), cache=tmp_path / "cache")
    assert other.digest != found[0].digest and texts_of(other, "test") != splits["test"]


def test_files_beside_a_training_file_are_the_other_splits(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    for split, rows in (("train", ROWS[:100]), ("validation", ROWS[100:150]), ("test", ROWS[150:])):
        write_rows(folder / f"{split}.jsonl", rows)
    point = make_point(folder / "train.jsonl")
    found = prepare_labelled(point, cache=tmp_path / "cache")
    assert [texts_of(found, split) for split in ("train", "validation", "test")] == [
        ROWS[:100],
        ROWS[100:150],
        ROWS[150:],
    ]
    with pytest.raises(
        DataError, match=r"split_seed = 3 draws nothing, for validation.jsonl is beside it: leave it out"
    ):
        examine_rows(source_of(point.model_copy(update={"split_seed": 3})))
    (folder / "test.jsonl").unlink()
    without = prepare_labelled(point, cache=tmp_path / "cache")
    assert texts_of(without, "train") == ROWS[:100] and not len(without.samples["test"]) and not len(without.test)
    (folder / "validation.jsonl").unlink()
    assert {draw_split(number, ["validation", "test"], seed=0) for number in range(100)} == {
        "train",
        "validation",
        "test",
    }
    assert len(prepare_labelled(point, cache=tmp_path / "cache").samples["test"]) > 0
    with pytest.raises(DataError, match="set data to .*train.jsonl"):
        find_packages(make_point(folder), cache=tmp_path / "cache")


def test_a_label_that_changes_is_another_text(tmp_path: Path) -> None:
    """`--resume` compares this digest, and ranks the digest of the tokens, in which labels are, too."""
    path = tmp_path / "rows.jsonl"
    digests = set()
    for label in ("a", "b"):
        write_rows(path, [*ROWS[1:], (ROWS[0][0], label)])
        found = prepare_labelled(make_point(path), cache=tmp_path / "cache")
        digests |= {found.digest, found.tokens_digest}
    assert len(digests) == 4
    assert "label of text and text_b, split_seed 0" in name_text(make_point(path))
    named = [make_point(path), make_point(path, label_field="kind"), make_point(path, objective="regression")]
    assert len(set(map(name_text, named))) == 3, "each has a digest of its own"


GOOD = [{"text": text, "label": label} for text, label in ROWS]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*GOOD, {"text": "x"}, {"text": "y"}], "2 of 202 rows have no label (first: line 201); fields found: \"text\", \"label\""),
        ([*GOOD[:5], {"text": "x", "label": ""}, *GOOD], "1 of 206 rows have no label (first: line 6)"),
        ([*GOOD, {"text": "x", "label": 1.5}], "1 of 201 rows have a label that is neither text nor a whole number (first: line 201)"),
        ([*GOOD, {"text": " ", "label": "a"}], "1 of 201 rows have an empty text (first: line 201); correct these rows"),
        ([*GOOD, {"label": "a"}], "1 of 201 rows have no text (first: line 201)"),
        ([*GOOD, {"text": 7, "label": "a"}], "1 of 201 rows have a text that is not text"),
        ([*GOOD, {"text": "a\0b", "label": "a"}], "1 of 201 rows have a NUL character in text"),
        ([*GOOD, '{"text": "\\ud800", "label": "a"}'], "1 of 201 rows have half a surrogate pair in text"),
        ([*GOOD, '{"text": "x", "label": "\\ud800"}'], "1 of 201 rows have a label that is neither text nor a whole number"),
        ([*GOOD, {"text": "x", "text_b": "y", "label": "a"}], "1 of 201 rows have a text_b where the first row has none"),
        ([*GOOD[:2], '{"text": "x", ', *GOOD], "line 3 is no JSON: "),
        ([*GOOD[:2], "[1]"], 'line 3 is no JSON object, such as {"text": "…", "label": "…"}'),
        ([*GOOD[:2], '{"text": ' + "9" * 5000 + "}"], "line 3 cannot be read: "),
        ([{"text": "x", "label": "a"}] * 50, 'only one class, "a", in the training split'),
        (GOOD[:3], "too few to draw a tenth of them"),
        ([{"text": "x", "label": number} for number in range(2000)], "more than 1000 different values"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_one_line_with_their_count(tmp_path: Path, rows: list, message: str) -> None:
    with pytest.raises(DataError) as caught:
        examine_rows(source_of(make_point(write_json_lines(tmp_path / "rows.jsonl", rows))))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_lines_of_another_encoding_are_said_with_their_count(tmp_path: Path) -> None:
    good = "".join(json.dumps(row) + "\n" for row in GOOD).encode()
    bad = '{"text": "größe", "label": "a"}\n'.encode("latin-1")
    (tmp_path / "rows.jsonl").write_bytes(good + bad + bad)
    with pytest.raises(
        DataError, match=r"2 of 202 rows have bytes that are not utf-8 \(first: line 201\); one file has"
    ):
        examine_rows(source_of(make_point(tmp_path / "rows.jsonl")))
    assert examine_rows(source_of(make_point(tmp_path / "rows.jsonl", encoding="latin-1"))).rows["train"] > 100
    with pytest.raises(DataError, match="not shift_jis, or not all of it"):
        examine_rows(source_of(make_point(tmp_path / "rows.jsonl", encoding="shift_jis")))
    (tmp_path / "rows.csv").write_bytes(b"text,label\n" + b"aa,a\nbb,b\n" * 30 + "größe,a\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"1 of 61 rows have bytes that are not utf-8 \(first: line 62\)"):
        examine_rows(source_of(make_point(tmp_path / "rows.csv")))


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("body,label\nx,a\n", {}, 'no column text; its first line names "body", "label"'),
        ("body,kind\nx,a\n", {"text_field": "body"}, "no column label"),
        ("text,label\nx,a\n", {"second_text_field": "answer"}, "no column answer"),
        ("text,label,label\nx,a,b\n", {}, "two columns are named 'label'"),
        ("text,label\nx,a\ny\n", {}, "line 3 has 1 columns, the first line names 2"),
        ("text,label\nx,a,b\n", {}, "line 2 has 3 columns"),
        ('text,label\n"x,a\n', {}, "is no CSV: unexpected end of data"),
        ("text,label\nx,\n", {}, "1 of 1 rows has no label (first: line 2)"),
        ("text,label\n", {}, "no row in the training split"),
        ("", {}, "the file is empty"),
    ],
)
def test_a_file_with_other_columns_is_one_line(tmp_path: Path, content: str, changes: dict, message: str) -> None:
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        examine_rows(source_of(make_point(tmp_path / "rows.csv", **changes)))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_class_that_training_never_sees_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl")
    write_rows(tmp_path / "validation.jsonl", [("x", "a"), ("y", "d"), ("z", "d")])
    with pytest.raises(DataError, match=r'"d" in the validation split \(2 rows\) and never in training'):
        examine_rows(source_of(make_point(tmp_path / "train.jsonl")))
    with pytest.raises(DataError, match="the validation split; set data to .*train.jsonl"):
        examine_rows(source_of(make_point(tmp_path / "validation.jsonl")))


def test_the_model_has_the_classes_of_the_file_and_a_batch_of_its_samples(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    for changes, message in (
        ({"num_classes": 8}, "has 3 classes, num_classes is 8: set num_classes to 3"),
        ({"micro_batch_size": 400}, "training samples are fewer than the global batch, 400"),
    ):
        point = make_point(path, **changes)
        with pytest.raises(DataError, match=message):
            make_batches(point, prepare_text(point, cache=tmp_path / "cache"), rank=0)
    for changes, message in (
        ({"pretraining": "masked_lm"}, "has labelled ones: set pretraining_data to a text"),
        (
            {"data": "stdlib", "pretraining": "masked_lm", "pretraining_data": "x"},
            "pretraining_data is for labelled texts",
        ),
        ({"data": "snippets", "objective": "regression"}, "data snippets has classes"),
        ({"data": "snippets", "encoding": "latin-1"}, "that of snippets is known"),
    ):
        assert message in reason_to_skip(make_point(path, **changes), world_size=1)
    assert reason_to_skip(make_point(path, pretraining="masked_lm", pretraining_data="x"), world_size=1) is None


def test_texts_that_are_cut_are_said(tmp_path: Path) -> None:
    point = make_point(write_rows(tmp_path / "rows.jsonl"))
    found = prepare_labelled(point, cache=tmp_path / "cache")
    splits, cuts = describe_labelled(point, found)
    long = sum(len(text) > T for text, _ in texts_of(found, "train"))
    assert f"texts with 3 classes, {len(found.samples['train'])} for train" in splits
    assert f"longer than sequence_length {T}, and cut to it: {long} of {len(found.samples['train'])} for train" in cuts
    assert len(describe_labelled(make_point(tmp_path / "rows.jsonl", sequence_length=64), found)) == 1


def test_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": number % 11 - 1} for number in range(200)]
    found = prepare_labelled(make_point(write_json_lines(tmp_path / "rows.jsonl", rows)), cache=tmp_path / "cache")
    assert found.classes == tuple(map(str, range(-1, 10)))
    answers = [{"text": f"text {number}", "label": number % 2 == 0} for number in range(200)]
    found = prepare_labelled(make_point(write_json_lines(tmp_path / "yes.jsonl", answers)), cache=tmp_path / "cache")
    assert found.classes == ("false", "true")


@pytest.mark.parametrize("vocab_size", [256, 300])
def test_a_pair_is_both_texts_with_a_token_between_them_that_no_text_has(tmp_path: Path, vocab_size: int) -> None:
    rows = [(text, text[::-1] + "!", label) for text, label in ROWS]
    path = write_csv(tmp_path / "pairs.csv", rows, names=("question", "answer", "label"))
    point = make_point(path, text_field="question", second_text_field="answer", vocab_size=vocab_size)
    found = prepare_labelled(point, cache=tmp_path / "cache")
    separator = 0 if vocab_size == 256 else 188
    begins = found.samples["train"]["end"] - lengths_of(found.samples["train"])
    for begin, second in zip(begins, found.samples["train"]["second"], strict=True):
        assert found.train[begin + second - 1] == separator
    assert (found.train == separator).sum() == len(begins)
    assert (
        describe_labelled(point, found)[0].endswith(" for test")
        and "pairs of texts" in describe_labelled(point, found)[0]
    )


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(3, 4, "abc|wxyz"), (9, 2, "abcdef|wx"), (2, 9, "ab|wxyzuv"), (9, 9, "abcd|wxyz"), (20, 0, "abcdefghi")],
)
def test_of_a_pair_the_longer_text_is_cut_first(first: int, second: int, kept: str) -> None:
    texts = ("abcdefghijklmnopqrst"[:first], "wxyzuvlmnop"[:second])
    tokens = np.frombuffer(("|".join(texts) if second else texts[0]).encode(), dtype=np.uint8)
    found = cut(tokens, second=first + 1 if second else first, length=9)
    assert bytes(found).decode() == kept


def test_a_batch_is_padded_to_its_longest_rounded_up_and_counts_no_padding(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    point = make_point(path, micro_batch_size=2, gradient_accumulation_steps=2, world_size=2)
    corpus = prepare_text(point, cache=tmp_path / "cache")
    rows, lengths_seen = texts_of(corpus, "train"), set()
    for step in range(40):
        tokens = positions = 0
        for rank in range(2):
            batches = make_batches(point, corpus, rank=rank)
            inputs, labels, layout = batches.train_batch(step)
            counts = (layout.starts == 0).sum(axis=-1)
            assert inputs.shape == layout.starts.shape == (2, 2, inputs.shape[-1]) and labels.shape == (2, 2)
            assert inputs.shape[-1] - 4 < counts.max() <= inputs.shape[-1] and inputs.shape[-1] % 4 == 0
            assert layout.weights.tolist() == [1, 1]
            lengths_seen.add(inputs.shape[-1])
            tokens, positions = tokens + int(counts.sum()), positions + inputs.size
            for sample, label, count, starts in zip(
                inputs.reshape(4, -1), labels.ravel(), counts.ravel(), layout.starts.reshape(4, -1), strict=True
            ):
                text = bytes(sample[:count].tolist()).decode()
                assert (corpus.classes[label]) in {name for row, name in rows if row[:T] == text}
                assert not sample[count:].any() and (starts[count:] == count).all()
            again = from_arrays(to_arrays((inputs, labels, layout)))
            assert np.array_equal(again[2].starts, layout.starts)
        assert (batches.tokens_of_step(step), batches.padding_of_step(step)) == (tokens, positions - tokens)
    assert lengths_seen <= {4, 8, 12, 16} and len(lengths_seen) > 1


@pytest.mark.parametrize("kind", ["texts", "pairs of a bert", "tags"])
def test_packed_samples_share_rows_and_are_those_of_padded_batches(tmp_path: Path, kind: str) -> None:
    """Sample by sample, with their labels, in every pass of every rank; with fewer positions that are padding."""
    sizes = {"micro_batch_size": 12, "gradient_accumulation_steps": 2, "world_size": 2, "length_buckets": 6}
    if kind == "tags":
        point = tag_point(write_sentences(tmp_path / "rows.conll"), **sizes)
    else:
        point = make_point(write_rows(tmp_path / "rows.jsonl"), **sizes)
    if kind == "pairs of a bert":
        rows = [(text, text[::3] + "!", label) for text, label in ROWS]
        path = write_csv(tmp_path / "rows.csv", rows, names=("text", "text_b", "label"))
        point = point.model_copy(update={"family": "bert", "data": str(path), "sequence_length": 24})
    packed = point.model_copy(update={"padding": "packed"})
    corpus, seen, padding = prepare_text(point, cache=tmp_path / "cache"), set(), [0, 0]
    for step in range(9):
        positions = 0
        for rank in range(2):
            alone, together = (make_batches(each, corpus, rank=rank) for each in (point, packed))
            (inputs, labels, layout), batch = alone.train_batch(step), together.train_batch(step)
            assert [array.dtype for array in to_arrays(batch)] == list(map(np.dtype, together.dtypes))
            again = from_arrays(to_arrays(batch))[2]
            assert np.array_equal(again.starts, batch[2].starts) and np.array_equal(again.weights, layout.weights)
            seen.add(batch[0].shape)
            positions += batch[0].size
            for number in range(2):
                wanted = [row[starts == 0] for row, starts in zip(inputs[number], layout.starts[number], strict=True)]
                tags = None if kind != "tags" else labels[number]
                found = unpack(batch, number, tags=tags)
                if tags is None:
                    assert np.array_equal(batch[1][number], labels[number])
                    assert [each.tolist() for each, _ in found] == [each.tolist() for each in wanted]
                else:
                    expected = [(each.tolist(), tags[row][: len(each)].tolist()) for row, each in enumerate(wanted)]
                    assert sorted((each.tolist(), own.tolist()) for each, own in found) == sorted(expected)
        assert together.tokens_of_step(step) == alone.tokens_of_step(step)
        assert together.padding_of_step(step) == positions - together.tokens_of_step(step)
        padding = [padding[0] + alone.padding_of_step(step), padding[1] + together.padding_of_step(step)]
    shapes = [arrays[0].shape for arrays in together.rehearsals()]
    assert shapes == [(2, rows, point.sequence_length) for rows in (12, 10, 8, 6, 4, 2)] and seen <= set(shapes)
    for rehearsed in together.rehearsals():
        assert [array.dtype for array in to_arrays(rehearsed)] == list(map(np.dtype, together.dtypes))
    assert padding[1] < padding[0]


def unpack(batch: tuple, number: int, *, tags: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokens and targets of each sample of a pass, in their order where places say it, else in that of the rows."""
    inputs, targets, layout = batch
    length = inputs.shape[-1]
    begins = (np.arange(inputs.shape[1])[:, None] * length + layout.starts[number]).ravel()
    own = inputs[number].ravel()
    if tags is None:
        return [(own[begins == place], targets[number]) for place in layout.places[number]]
    asked = targets[number].ravel()
    return [
        (own[begins == place], asked[begins == place])
        for place in dict.fromkeys(begins.tolist())
        if (asked[begins == place] >= 0).any()
    ]


def test_snippets_of_the_standard_library_are_rows_that_every_machine_has(tmp_path: Path) -> None:
    code = '''#!/usr/bin/env of no use
# A comment that
#   has two lines.
"""A module with a docstring."""
class A:
    def go(self):
        "What this method does."
        # Why it does that, in a line.
        if self.there:

            return self.away + 1
    def silent(self): return "short"
'''
    assert find_snippets(code.encode()) == {
        "code": ["if self.there:\n    return self.away + 1"],
        "comment": ["!/usr/bin/env of no use\nA comment that\nhas two lines.", "Why it does that, in a line."],
        "docstring": ["A module with a docstring.", "What this method does."],
    }
    assert not any(find_snippets(b"print 'not of this Python'").values())
    path = snippets_file(cache=tmp_path, most=60)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["label"] for row in rows] == ["code", "comment", "docstring"] * 20
    path.write_text("kept")
    assert snippets_file(cache=tmp_path, most=60).read_text() == "kept", "written once"


def test_labelled_texts_have_the_tokens_of_the_text_that_pretraining_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HVBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("aaaa bbbb cccc\n" * 300)
    path, text = write_rows(tmp_path / "rows.jsonl"), str(tmp_path / "text.txt")
    both = [make_point(path, vocab_size=270, pretraining=name, pretraining_data=text) for name in ("none", "masked_lm")]
    corpora = [prepare_text(point) for point in both]
    assert len({each.tokens_digest for each in corpora}) == 1 and len(set(map(name_text, both))) == 1
    alone = prepare_text(make_point(path, vocab_size=270))
    assert alone.tokens_digest != corpora[0].tokens_digest and name_text(both[0]) != name_text(
        make_point(path, vocab_size=270)
    )
    learned = pretraining_point(both[1].model_copy(update={"pretraining_learning_rate": 0.5, "length_buckets": 2}))
    assert (learned.data, learned.objective, learned.learning_rate) == (text, "masked_lm", 0.5)
    assert learned.model_copy(update={"learning_rate": both[1].learning_rate}) == pretraining_point(both[1])
    assert read_labelled_vocabulary(both[1]) == corpus.read_vocabulary(text, vocab_size=270)
    assert (
        with_pretrainings([both[1]]) == [both[1], pretraining_point(both[1])]
        and with_pretrainings(both[:1]) == both[:1]
    )


BERT = Point(model="bert-tiny")
CLS, SEP = (special_token(name, BERT) for name in (CLASS, SEPARATOR))


def test_samples_of_a_bert_begin_with_a_class_token_and_their_texts_end_with_separators(tmp_path: Path) -> None:
    """As transformers' BertTokenizer has them; by their segments, what lies behind the first [SEP] is the second text."""
    frame = f"{chr(CLS)}%s{chr(SEP)}"
    for names, rows in (
        (("text", "label"), ROWS),
        (("text", "text_b", "label"), [(text, text[::2] + "!", label) for text, label in ROWS]),
    ):
        path = write_csv(tmp_path / f"{len(names)}.csv", rows, names=names)
        point = make_point(path, model="bert-tiny", sequence_length=T + 2)
        corpus = prepare_text(point, cache=tmp_path / "cache")
        wanted = set()
        for *texts, _ in rows:
            if sum(map(len, texts)) + len(texts) - 1 <= T:
                wanted.add(frame % chr(SEP).join(texts))
        found, seen = make_batches(point, corpus, rank=0), set()
        for step in range(25):
            inputs, _, layout = found.train_batch(step)
            counts = (layout.starts == 0).sum(axis=-1)
            for row, count in zip(inputs[0], counts[0], strict=True):
                sample = row[:count]
                assert (sample[0], sample[-1]) == (CLS, SEP) and (sample == SEP).sum() == len(names) - 1
                assert not row[count:].any()
                if count < T + 2:
                    seen.add("".join(map(chr, sample)))
            assert found.tokens_of_step(step) == counts.sum()
        assert seen <= wanted and len(seen) > 0.6 * len(wanted)
    words = tag_point(write_sentences(tmp_path / "rows.conll"), model="bert-tiny")
    corpus = prepare_text(words, cache=tmp_path / "cache")
    inputs, tags, layout = make_batches(words, corpus, rank=0).train_batch(0)
    last = (layout.starts == 0).sum(axis=-1) - 1
    assert (inputs[..., 0] == CLS).all() and (tags[..., 0] < 0).all()
    for row, own, end in zip(inputs[0], tags[0], last[0], strict=True):
        assert row[end] == SEP and own[end] < 0 <= own[end - 1]
        is_last = [row[place + 1] in (ord(" "), SEP) for place in range(1, end)]
        assert (own[1:end] >= 0).tolist() == is_last or end == T - 1, "unless a word is cut"


def test_what_a_bert_cuts_leaves_room_for_its_tokens_and_short_samples_have_none(tmp_path: Path) -> None:
    point = make_point(write_rows(tmp_path / "rows.jsonl"), model="bert-tiny")
    corpus = prepare_text(point, cache=tmp_path / "cache")
    long = sum(len(text) > T - 2 for text, _ in texts_of(corpus, "train"))
    assert f"and cut to it: {long} of " in describe_labelled(point, corpus)[1]
    for changes in ({"sequence_length": 7}, {"sequence_length": 28, "length_warmup_steps": 5}):
        reason = reason_to_skip(point.model_copy(update=changes), world_size=1)
        assert (
            reason == "labelled texts of family bert: 7 tokens are too few for two texts: samples must have at least 8"
        )
    gpt2 = prepare_text(make_point(tmp_path / "rows.jsonl"), cache=tmp_path / "cache")
    assert gpt2.digest == corpus.digest and gpt2.tokens_digest == corpus.tokens_digest, "single texts have no separator"


def test_a_special_token_s_name_in_a_text_is_text(tmp_path: Path) -> None:
    """Else a text with [SEP] in it would be two, of two segments."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    names = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "SEP", "a", "b", "c"]
    tokenizer = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.add_special_tokens(names[:4])
    (tmp_path / "bert").mkdir()
    tokenizer.save(str(tmp_path / "bert" / "tokenizer.json"))
    rows = [("a b", "a [SEP] " + "b " * (number % 5), "xyz"[number % 3]) for number in range(100)]
    path = write_csv(tmp_path / "rows.csv", rows, names=("text", "text_b", "label"))
    point = make_point(path, model="bert-tiny", initial_weights=str(tmp_path / "bert"))
    corpus = prepare_text(point, cache=tmp_path / "cache")
    inputs, _, layout = make_batches(point, corpus, rank=0).train_batch(0)
    for row, starts in zip(inputs[0], layout.starts[0], strict=True):
        sample = [names[token] for token in row[starts == 0]]
        assert sample[:8] == ["[CLS]", "a", "b", "[SEP]", "a", "[", "SEP", "]"]
        assert sample[8:] == ["b"] * (len(sample) - 9) + ["[SEP]"]


def test_the_shapes_that_batches_may_have_are_known_before(tmp_path: Path) -> None:
    for buckets, lengths in ((4, [16, 12, 8, 4]), (3, [16, 12, 6]), (1, [16]), (64, list(range(16, 0, -1)))):
        point = make_point(write_rows(tmp_path / "rows.jsonl"), length_buckets=buckets, gradient_accumulation_steps=2)
        batches = make_batches(point, prepare_text(point, cache=tmp_path / "cache"), rank=0)
        shapes = [inputs.shape for inputs, *_ in batches.rehearsals()]
        assert shapes == [(2, 8, length) for length in lengths]
        assert {batches.train_batch(step)[0].shape for step in range(9)} <= set(shapes)
    inputs, labels, layout = next(batches.rehearsals())
    seen = batches.train_batch(0)
    assert (labels.dtype, layout.starts.dtype, layout.weights.dtype) == (
        seen[1].dtype,
        seen[2].starts.dtype,
        seen[2].weights.dtype,
    )
    assert labels.shape == seen[1].shape and list(Batches.rehearsals(batches)) == []


@pytest.mark.parametrize("group_by_length", [False, True])
def test_samples_do_not_depend_on_ranks_accumulation_and_micro_batch(tmp_path: Path, group_by_length: bool) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    corpus = prepare_text(make_point(path), cache=tmp_path / "cache")
    seen = []
    for world_size, micro, accumulation in ((1, 8, 1), (2, 2, 2)):
        sizes = {"world_size": world_size, "micro_batch_size": micro, "gradient_accumulation_steps": accumulation}
        point = make_point(path, group_by_length=group_by_length, **sizes)
        ranks = [make_batches(point, corpus, rank=rank) for rank in range(world_size)]
        seen.append([labels_of(ranks, step) for step in range(45)])  # of two epochs
    assert seen[0] == seen[1]


def labels_of(ranks: list, step: int) -> list[tuple[int, bytes]]:
    """Label and text of each sample of a step, in the order of the global batch."""
    found = []
    for inputs, labels, layout in (batches.train_batch(step) for batches in ranks):
        counts = (layout.starts == 0).sum(axis=-1).ravel()
        texts = [bytes(row[:n].tolist()) for row, n in zip(inputs.reshape(len(counts), -1), counts, strict=True)]
        found += zip(labels.ravel().tolist(), texts, strict=True)
    return found


def test_grouped_by_length_an_epoch_sees_every_sample_once_and_less_padding(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    corpus = prepare_text(make_point(path), cache=tmp_path / "cache")
    padding = {}
    for group_by_length in (False, True):
        point = make_point(path, micro_batch_size=4, group_by_length=group_by_length)
        batches = make_batches(point, corpus, rank=0)
        whole = batches._windows(0, 2 * batches.samples_per_epoch).reshape(2, -1)
        assert all(sorted(epoch) == list(range(batches.samples_per_epoch)) for epoch in whole.tolist())
        assert not np.array_equal(whole[0], whole[1])
        padding[group_by_length] = sum(batches.padding_of_step(step) for step in range(batches.samples_per_epoch // 4))
    assert padding[True] < 0.6 * padding[False]


class Alone:
    """A classifier in numpy that sees a sample's tokens and nothing behind them: loss 1 + its mean token, class by its first token."""

    def evaluate(self, inputs: np.ndarray, targets: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return np.array([1.0 + row[begins == 0].mean() for row, begins in zip(inputs, starts, strict=True)])

    def logits(self, inputs: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return np.eye(3)[inputs[:, 0] - ord("a")]


def test_an_evaluation_counts_every_held_out_sample_once(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    corpus = prepare_text(make_point(path), cache=tmp_path / "cache")
    texts = [text[:T] for text, _ in texts_of(corpus, "validation")]
    labels = [label for _, label in texts_of(corpus, "validation")]
    for world_size in (1, 3):
        point = make_point(path, world_size=world_size)
        parts = [
            evaluate(Alone(), make_batches(point, corpus, rank=rank).validation_batches(1000), point=point)
            for rank in range(world_size)
        ]
        assert sum(part.samples for part in parts) == len(texts)
        assert {part.accuracy for part in parts} == {1.0} and {part.targets for part in parts} == {None}
        assert sum(part.counts.occurrences for part in parts).tolist() == [labels.count(name) for name in "abc"]
        loss = sum(part.loss * part.samples for part in parts) / len(texts)
        assert loss == pytest.approx(np.mean([1.0 + np.mean(list(text.encode())) for text in texts]))


SENTENCES = [
    (["Ab"] * (1 + number % 9) + ["x"], ["O"] * (1 + number % 9) + ["BI"[number % 2] + "-X"]) for number in range(120)
]


def write_sentences(path: Path, sentences: list = SENTENCES) -> Path:
    if path.suffix == ".conll":
        lines = ["-DOCSTART- O\n"]
        lines += ["".join(f"{word} NN {tag}\n" for word, tag in zip(*each, strict=True)) for each in sentences]
        path.write_text("\n".join(lines))
        return path
    return write_json_lines(path, [{"tokens": words, "tags": tags} for words, tags in sentences])


def tag_point(path: Path, **changes: Any) -> Point:
    return make_point(path, objective="token_classification", **changes)


def test_a_word_s_tag_is_that_of_its_last_token_whatever_the_format(tmp_path: Path) -> None:
    files = [write_sentences(tmp_path / f"rows{ending}") for ending in (".jsonl", ".conll")]
    found = [prepare_labelled(tag_point(path), cache=tmp_path / "cache") for path in files]
    assert len({(each.digest, each.tokens_digest) for each in found}) == 1
    assert found[0].classes == ("B-X", "I-X", "O")
    ends = found[0].samples["train"]["end"]
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        text, tags = bytes(found[0].train[begin:end].tolist()).decode(), found[0].tags["train"][begin:end]
        tagged = [(place, found[0].classes[tag]) for place, tag in enumerate(tags) if tag >= 0]
        words = text.split(" ")
        assert [place for place, _ in tagged] == (np.cumsum([len(word) + 1 for word in words]) - 2).tolist()
        assert (words, [tag for _, tag in tagged]) in SENTENCES


def test_the_weights_of_all_passes_make_a_mean_over_all_tags_and_a_cut_word_keeps_its_tag(tmp_path: Path) -> None:
    path = write_sentences(tmp_path / "rows.jsonl", [*SENTENCES, *[(["word" * 9, "x"], ["O", "B-X"])] * 30])
    point = tag_point(path, micro_batch_size=2, gradient_accumulation_steps=2, world_size=2)
    corpus = prepare_text(point, cache=tmp_path / "cache")
    for step in range(25):
        counts, weights = [], []
        for rank in range(2):
            inputs, tags, layout = make_batches(point, corpus, rank=rank).train_batch(step)
            assert tags.shape == inputs.shape and tags.dtype == np.int32
            assert ((tags >= 0).sum(axis=-1) > 0).all() and not ((tags >= 0) & (layout.starts > 0)).any()
            counts += (tags >= 0).sum(axis=(1, 2)).tolist()
            weights += layout.weights.tolist()
        assert weights == pytest.approx(np.array(counts) / np.mean(counts))


class NamesOne:
    """A tagger in numpy that calls a word that is x B-X, and any other one O: loss 1."""

    def evaluate(self, inputs: np.ndarray, targets: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return np.ones(len(inputs))

    def logits(self, inputs: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return np.eye(3)[np.where(inputs == ord("x"), 0, 2)]


def test_an_evaluation_of_tags_counts_their_entities_too(tmp_path: Path) -> None:
    """An I- after O begins an entity: all that are named are right, though half of their tags are not. What is cut is not judged."""
    for path, has_entities in (
        (write_sentences(tmp_path / "rows.jsonl"), True),
        (write_sentences(tmp_path / "kinds.jsonl", [(w, [tag[:1] + "x" for tag in t]) for w, t in SENTENCES]), False),
    ):
        point = tag_point(path)
        corpus = prepare_text(point, cache=tmp_path / "cache")
        batches = make_batches(point, corpus, rank=0)
        found = evaluate(NamesOne(), batches.validation_batches(1000), point=point, names=batches.class_names)
        whole = sum(length <= T for length in lengths_of(corpus.samples["validation"]))
        if has_entities:
            assert 0 < whole < len(corpus.samples["validation"]) == found.samples
            counts = found.entities
            assert counts.predictions.tolist() == counts.hits.tolist() == [whole]
            assert counts.occurrences.tolist() == [whole] and 0.5 < found.accuracy < 1
            assert describe_evaluation(found, step=1)["entity_counts"]["hits"] == [whole]
        else:
            assert found.entities is None and describe_evaluation(found, step=1)["entity_counts"] is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"tokens": ["a", "b"], "tags": ["O"]}],
            "1 of 1 rows has tokens and tags of different lengths (first: line 1)",
        ),
        ([{"tokens": "a b", "tags": ["O"]}], "a tokens that is no list"),
        ([{"tokens": [], "tags": []}], "an empty tokens"),
        ([{"tokens": ["a", ""], "tags": ["O", "O"]}], "an empty word"),
        ([{"tokens": ["a"], "tags": [None]}], "a tag in tags that is neither text nor a whole number"),
        ([{"text": "a", "label": "b"}], 'no tokens (first: line 1); fields found: "text", "label"'),
    ],
)
def test_sentences_that_cannot_be_used_are_one_line(tmp_path: Path, rows: list, message: str) -> None:
    with pytest.raises(DataError) as caught:
        examine_rows(source_of(tag_point(write_json_lines(tmp_path / "rows.jsonl", rows))))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_objectives_say_which_files_they_read(tmp_path: Path) -> None:
    (tmp_path / "rows.conll").write_text("word O\nalone\n")
    with pytest.raises(DataError, match="line 2 has one column, no tag"):
        examine_rows(source_of(tag_point(tmp_path / "rows.conll")))
    with pytest.raises(DataError, match="not in CSV"):
        examine_rows(source_of(tag_point(write_csv(tmp_path / "rows.csv", ROWS))))
    for changes, message in (
        (
            {"objective": "regression", "data": "stdlib"},
            "objective regression reads labelled texts: set data to a file",
        ),
        ({"objective": "classification", "data": "x.conll"}, "a .conll file has a tag for each word"),
    ):
        assert message in reason_to_skip(Point(model="tiny", world_size=1, **changes), world_size=1)


def test_the_labels_of_regression_are_numbers(tmp_path: Path) -> None:
    numbers = [number / 7 - 3 for number in range(200)]
    path = write_json_lines(tmp_path / "rows.jsonl", [{"text": f"t {number}", "label": number} for number in numbers])
    point = make_point(path, objective="regression")
    corpus = prepare_text(point, cache=tmp_path / "cache")
    assert corpus.classes == () and set(corpus.samples["train"]["label"]) <= set(numbers)
    inputs, labels, layout = make_batches(point, corpus, rank=0).train_batch(0)
    assert labels.dtype == np.float32 and labels.shape == (1, 8)
    for sample, count, label in zip(inputs[0], (layout.starts[0] == 0).sum(axis=-1), labels[0], strict=True):
        assert bytes(sample[:count].tolist()).decode() == f"t {min(numbers, key=lambda each: abs(each - label))}"[:T]
    halves = write_csv(tmp_path / "halves.csv", [(f"t {number}", f"{number % 2}.5") for number in range(100)])
    read = [
        prepare_text(make_point(halves, objective=name), cache=tmp_path / "cache")
        for name in ("regression", "classification")
    ]
    assert [set(each.samples["train"]["label"].tolist()) for each in read] == [{0.5, 1.5}, {0, 1}], (
        "of the same rows, in one cache"
    )
    write_csv(tmp_path / "rows.csv", [("x", "1"), ("y", "one"), ("z", "nan")])
    with pytest.raises(DataError, match=r"2 of 3 rows have a label that is no finite number \(first: line 3\)"):
        examine_rows(source_of(make_point(tmp_path / "rows.csv", objective="regression")))


def test_the_test_split_is_read_once_in_the_file_s_order(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    corpus = prepare_text(make_point(path), cache=tmp_path / "cache")
    read = []
    for rank in range(2):
        batches = make_batches(make_point(path, world_size=2), corpus, rank=rank)
        assert batches.test_samples == len(corpus.samples["test"])
        for batch in batches.test_batches():
            counts = (batch.starts == 0).sum(axis=-1)
            read += [bytes(row[:n].tolist()).decode() for row, n in zip(batch.inputs, counts, strict=True)][
                : batch.samples
            ]
    assert read == [text[:T] for text, _ in texts_of(corpus, "test")]


class Host:
    """A runtime and trainer of one of two ranks; the other is on a host that does not see this one's files."""

    world_size = 2

    def __init__(self, rank: int) -> None:
        self.rank, self.held = rank, {"parameters/x": np.zeros(1)}

    def gather(self, value: float) -> list[float]:
        return [value, 0.0] if self.rank == 0 else [1.0, value]

    def state(self) -> dict[str, np.ndarray]:
        return self.held

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        self.held = state


def test_a_rank_that_does_not_see_the_best_checkpoint_leaves_the_test_to_the_first_one(
    tmp_path: Path,
) -> None:
    point = make_point(write_rows(tmp_path / "rows.jsonl"), world_size=2, model="tiny", num_layers=1)
    corpus = prepare_text(point, cache=tmp_path / "cache")
    best = initial_weights(point)
    for rank, folder in enumerate((tmp_path / "here", tmp_path / "elsewhere")):
        host, batches = Host(rank), make_batches(point, corpus, rank=rank)
        measure = MeasureSettings(warmup_steps=1, steps=4, evaluate_every=1, keep_best=True)
        loop = Loop(point, measure, trainer=host, batches=batches, runtime=host, folder=folder)
        loop.best.loss, loop.best.step = 0.5, 2
        if rank == 0:
            arrays = {f"parameters/{name}": value for name, value in best.items()}
            header = loop.checkpoint_header.model_copy(update={"step": 2, "samples": samples_before(point, 2)})
            save_checkpoint(folder / name_checkpoint(2), Checkpoint(header=header, arrays=arrays))
        last, tested = loop.best.load(host, point, batches=batches, step=3)
        assert sum(batch.samples for batch in tested) == (batches.test_samples if rank == 0 else 0)
        assert (host.held.keys() == arrays.keys() and last is not None) if rank == 0 else last is None


def test_a_plan_refuses_labelled_texts_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HVBENCH_CACHE", str(tmp_path / "cache"))
    write_json_lines(tmp_path / "rows.jsonl", [*GOOD, {"text": "x"}])
    (tmp_path / "mine.toml").write_text('[point]\nobjective = "classification"\nnum_classes = 3\ndata = "rows.jsonl"\n')
    assert run(["plan", "mine.toml", "--np", "1"]) == 2
    assert "rows.jsonl: 1 of 201 rows have no label (first: line 201)" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"mine.toml", "rows.jsonl"}, "nothing was begun"
