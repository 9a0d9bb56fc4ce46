"""The table of metrics of labels: means over launches, of validation and of the test, and nothing of a language model."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hvbench.analysis.frame.frames import launch_row
from hvbench.analysis.frame.run import Run
from hvbench.analysis.topics.labels import TOPIC, label_tables
from hvbench.records.record import LabelCounts, LabelMoments, Record
from tests.unit.sample_records import make_evaluation, make_rank, make_record


def make_labelled(*, hits: int, repeat: int = 0, has_test: bool = True, **changes) -> Record:
    """Two ranks that each evaluated ten samples of two classes, so many of them right, and the test likewise."""
    counts = LabelCounts(hits=[hits, hits], predictions=[5, 5], occurrences=[5, 5])
    evaluation = make_evaluation(3, 0.5).model_copy(update={"accuracy": hits / 5, "label_counts": counts})
    test = evaluation if has_test else None
    ranks = [make_rank(rank, step_seconds=[1.0] * 3, evaluations=[evaluation], test=test) for rank in range(2)]
    return make_record(ranks, repeat=repeat, **{"objective": "classification", "num_classes": 2} | changes)


def read(table, row: int = 0) -> dict[str, str]:
    return dict(zip(table.header, table.cells[row], strict=True))


def test_the_table_has_means_over_launches() -> None:
    records = [make_labelled(hits=5), make_labelled(hits=3, repeat=1)]
    table, _ = label_tables(Run([*records, make_record([make_rank(step_seconds=[1.0] * 3)])]))
    assert len(table.cells) == 1
    found = read(table)
    assert (found["n"], found["validation accuracy"], found["validation F1"]) == ("2", "0.800", "0.800")
    assert (found["validation Matthews"], found["test Matthews"]) == ("0.600", "0.600"), "1 and 0.2"
    assert "validation Pearson" not in found and found["test loss"] == "0.500"


def test_each_class_has_a_row_with_the_samples_of_all_ranks_and_launches() -> None:
    counts = LabelCounts(hits=[4, 0], predictions=[9, 0], occurrences=[5, 4])
    records = []
    for repeat in range(2):
        evaluation = make_evaluation(3, 0.5).model_copy(update={"label_counts": counts})
        ranks = [make_rank(rank, step_seconds=[1.0] * 3, evaluations=[evaluation]) for rank in range(2)]
        record = make_record(ranks, repeat=repeat, objective="classification", num_classes=2)
        names = {"class_names": ["good", "b" * 50]} if repeat == 0 else {}
        records.append(record.model_copy(update={"environment": {**record.environment, **names}}))
    _, table = label_tables(Run(records))
    assert [read(table, row)["class"] for row in range(2)] == ["good", "b" * 40]
    first = read(table)
    assert (first["validation samples"], first["validation precision"], first["validation recall"]) == (
        "20",
        "0.444",
        "0.800",
    )
    assert first["validation F1"] == "0.571" and "test F1" not in first
    assert list(read(table, 1).values())[-4:] == ["16", "0.000", "0.000", "0.000"]
    with pytest.raises(ValidationError, match="different numbers of classes"):
        LabelCounts(hits=[1], predictions=[1, 2], occurrences=[1])


def test_each_type_of_entity_has_a_row_and_all_of_them_a_column() -> None:
    words = LabelCounts(hits=[4, 9, 8, 20], predictions=[5, 10, 9, 21], occurrences=[5, 10, 9, 21])
    entities = LabelCounts(hits=[3, 1], predictions=[4, 2], occurrences=[3, 3])
    evaluation = make_evaluation(3, 0.5).model_copy(update={"label_counts": words, "entity_counts": entities})
    ranks = [make_rank(rank, step_seconds=[1.0] * 3, evaluations=[evaluation]) for rank in range(2)]
    record = make_record(ranks, objective="token_classification", num_classes=4, data="x.conll")
    names = {"class_names": ["B-PER", "I-PER", "B-LOC", "O"]}
    record = record.model_copy(update={"environment": {**record.environment, **names}})
    over_all, classes, table = label_tables(Run([record]))
    assert read(over_all)["validation entity F1"] == "0.667", "2 · 8 / (12 + 12), both ranks"
    assert len(classes.cells) == 4 and [read(table, row)["type"] for row in range(2)] == ["LOC", "PER"]
    first = read(table)
    assert (first["validation entities"], first["validation precision"], first["validation recall"]) == (
        "6",
        "0.750",
        "1.000",
    )
    row = launch_row(record, metrics=("final_validation_entity_precision", "final_validation_entity_recall"))
    assert row["final_validation_entity_precision"] == pytest.approx(8 / 12)


def test_without_a_test_split_its_columns_are_empty_and_numbers_have_a_correlation() -> None:
    moments = LabelMoments(
        count=10, predicted_mean=0.0, actual_mean=1.0, predicted_squares=4.0, actual_squares=9.0, products=3.0
    )
    evaluation = make_evaluation(3, 0.5).model_copy(update={"label_moments": moments})
    ranks = [make_rank(rank, step_seconds=[1.0] * 3, evaluations=[evaluation]) for rank in range(2)]
    run = Run([make_record(ranks, objective="regression", data="x.csv")])
    assert not run.has_losses_in_nats and Run([make_record(ranks)]).has_losses_in_nats
    (table,) = label_tables(run)
    found = read(table)
    assert found["validation Pearson"] == "0.500"
    assert not {"validation accuracy", "test Pearson"} & set(found), "of numbers, and without a test split"


def test_a_language_model_predicts_no_labels() -> None:
    ranks = [make_rank(step_seconds=[1.0] * 3, evaluations=[make_evaluation(3, 0.5)])]
    assert not TOPIC.needs.is_met(Run([make_record(ranks)]))
    assert TOPIC.needs.is_met(Run([make_labelled(hits=5)]))
